"""Recording while the model is compiled: whole graphs, the same rows, and no hooks on what was compiled before."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CompileConfig, PreTrainedModel, Qwen3MoeConfig, Qwen3MoeForCausalLM

from moeprobe.capture import Recorder, find_experts
from moeprobe.capture.buffers import BufferRecorder
from moeprobe.errors import CaptureError
from tests.capture.families.tiny import build
from tests.capture.tiny_qwen import differences, places, prompts, tiny


@pytest.fixture
def model() -> Iterator[PreTrainedModel]:
    yield tiny(implementation="batched_mm")
    torch._dynamo.reset()


def generate(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, new: int, backend: str, **how: Any) -> Any:
    config = CompileConfig(backend=backend, fullgraph=True, dynamic=False, mode=None)
    config._compile_all_devices = True
    how = {"do_sample": False, "cache_implementation": "static", "compile_config": config} | how
    return model.generate(ids, attention_mask=mask, max_new_tokens=new, **how)


def graph_breaks() -> int:
    return sum(torch._dynamo.utils.counters["graph_break"].values())


def wrong_rows(backend: str, model: PreTrainedModel) -> list[int]:
    """Rows that differ from teacher forcing, in each of two runs; graphs and tokens are checked on the way."""
    wrong = []
    torch._dynamo.utils.counters.clear()
    ids, mask = prompts(6, 3)
    with torch.inference_mode():
        plain = generate(model, ids, mask, 8, "eager", disable_compile=True)
        with BufferRecorder(model, rows=2 * 14) as recorder:
            tokens = generate(model, ids, mask, 8, backend)
            recording = recorder.recording()
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            recorder.clear()
            again = generate(model, ids.flip(0), mask.flip(0), 8, backend)
            second = recorder.recording()
        # The model and its outermost hook are a graph each; the second run needs no other.
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs == 2
    assert graph_breaks() == 0
    assert torch.equal(tokens, plain)
    for one, text, padding in ((recording, tokens, mask), (second, again, mask.flip(0))):
        real = places(text.numpy(), padding)
        assert one.returned(text).stacks[""].grid.shape == (2, 13)
        one.check("", text.numpy(), real)
        wrong.append(differences(model, one, text.numpy(), real))
        assert differences(model, one, text.numpy()[::-1], real[::-1]) > 0
    # What was taken out is a copy: the second run did not write into it.
    assert not hasattr(model, "_compiled_call")
    assert not model._forward_pre_hooks
    return wrong


def test_rows_equal_teacher_forcing(model: PreTrainedModel) -> None:
    assert wrong_rows("aot_eager", model) == [0, 0]


@pytest.mark.slow
def test_rows_equal_teacher_forcing_with_inductor(model: PreTrainedModel) -> None:
    assert wrong_rows("inductor", model) == [0, 0]


def test_the_ordinary_recorder_is_right_or_says_so(model: PreTrainedModel) -> None:
    """Its lists are no part of a graph: whether the compiler takes them is its business, wrong rows are ours."""
    ids, mask = prompts(5)
    try:
        with torch.inference_mode(), Recorder(model) as recorder:
            tokens = generate(model, ids, mask, 4, "eager")
        found = recorder.recording()
    except (torch._dynamo.exc.TorchDynamoException, CaptureError):
        return
    assert differences(model, found, tokens.numpy(), places(tokens.numpy(), mask)) == 0


def test_what_was_compiled_before_is_forgotten(model: PreTrainedModel) -> None:
    """Compiled without hooks, then recorded: the old code, which knows of no hooks, must not run."""
    ids, mask = prompts(5)
    with torch.inference_mode():
        tokens = generate(model, ids, mask, 5, "eager")
        assert hasattr(model, "_compiled_call")
        with BufferRecorder(model, rows=20) as recorder:
            assert torch.equal(generate(model, ids, mask, 5, "eager"), tokens)
        assert differences(model, recorder.recording(), tokens.numpy(), places(tokens.numpy(), mask)) == 0
        # And what was compiled with hooks does not go on writing afterwards.
        rows = int(recorder._tracks["rows"].cursor)
        generate(model, ids, mask, 5, "eager")
        assert int(recorder._tracks["rows"].cursor) == rows == 9


def test_overflow_is_said_and_harmless(model: PreTrainedModel) -> None:
    ids, mask = prompts(5, 5)
    with torch.inference_mode(), BufferRecorder(model, rows=15) as recorder:
        tokens = generate(model, ids, mask, 6, "eager", disable_compile=True)
        with pytest.raises(CaptureError, match="20 rows were forwarded, but there was room for 15. Ask for more"):
            recorder.recording()
        recorder.clear()
        with pytest.raises(CaptureError, match="no forward pass"):
            recorder.recording()
        short = generate(model, ids, mask, 3, "eager", disable_compile=True)
    assert torch.equal(short, tokens[:, :8])
    assert differences(model, recorder.recording(), short.numpy(), places(short.numpy(), mask)) == 0


def test_routing_of_returned_sequences_is_checked(model: PreTrainedModel) -> None:
    ids, mask = prompts(5, 5)
    with torch.inference_mode(), BufferRecorder(model, rows=20) as recorder:
        tokens = generate(model, ids, mask, 6, "eager", disable_compile=True)
    assert {layer.experts.shape for layer in recorder.routing(tokens).values()} == {(2, 10, 2)}
    with pytest.raises(CaptureError, match="computed from another token"):
        recorder.routing(tokens.flip(0))
    with pytest.raises(CaptureError, match="were recorded, but the text has"):
        recorder.routing(torch.cat([tokens, tokens], dim=1))


def test_room_for_every_row_is_enough(model: PreTrainedModel) -> None:
    ids, mask = prompts(5, 5)
    with torch.inference_mode(), BufferRecorder(model, rows=20) as recorder:
        generate(model, ids, mask, 6, "eager", disable_compile=True)
    assert len(recorder.recording().stacks[""].rows.token) == 20


@pytest.mark.parametrize("times", [0, 2])
def test_a_layer_that_is_bypassed_or_run_twice_is_named(model: PreTrainedModel, times: int) -> None:
    ids, _ = prompts(4)
    with torch.inference_mode(), BufferRecorder(model, rows=20) as recorder:
        block = model.model.layers[1].mlp
        original = block.forward
        block.forward = lambda hidden: [hidden, *(original(hidden) for _ in range(times))][-1]
        model(input_ids=ids)
    with pytest.raises(CaptureError, match=rf"L1 \(model.layers.1.mlp.experts\) recorded {4 * times} rows of 4"):
        recorder.recording()


def test_some_layers_only(model: PreTrainedModel) -> None:
    ids, _ = prompts(4)
    with torch.inference_mode(), BufferRecorder(model, find_experts(model)[1:2], rows=9) as recorder:
        model(input_ids=ids)
    assert list(recorder.routing()) == ["L1"]


def test_several_stacks_are_refused() -> None:
    for family in ("switch_transformers", "jetmoe"):
        with pytest.raises(CaptureError, match="several stacks cannot be recorded while compiled"):
            BufferRecorder(build(family), rows=9)


def test_adapted_families_can_be_compiled() -> None:
    """Llama 4 is read on its router's return, with a top-k of our own inside the graph."""
    llama = build("llama4")
    llama.set_experts_implementation("eager")
    ids = torch.randint(1, 90, (1, 5))
    with torch.inference_mode(), Recorder(llama) as plain:
        llama(input_ids=ids)
    torch._dynamo.utils.counters.clear()
    with torch.inference_mode(), BufferRecorder(llama, rows=9) as recorder:
        torch.compile(llama.__call__, backend="eager", fullgraph=True)(input_ids=ids, use_cache=False)
    torch._dynamo.reset()
    for name, layer in recorder.routing().items():
        assert (layer.experts == plain.routing()[name].experts).all()
        np.testing.assert_allclose(layer.weights, plain.routing()[name].weights, atol=4e-6)


def small() -> PreTrainedModel:
    config = Qwen3MoeConfig(
        hidden_size=16, intermediate_size=16, moe_intermediate_size=8, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, vocab_size=32, num_experts=4, num_experts_per_tok=2,
        experts_implementation="batched_mm",
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config).eval()


def _forward(model: PreTrainedModel) -> PreTrainedModel:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def _inner_forward(model: PreTrainedModel) -> PreTrainedModel:
    model.model.layers[1].mlp.forward = torch.compile(model.model.layers[1].mlp.forward, backend="eager")
    return model


def _own(model: PreTrainedModel) -> PreTrainedModel:
    model.compile(backend="eager")
    return model


def _submodule(model: PreTrainedModel) -> PreTrainedModel:
    model.model.layers[0].mlp.compile(backend="eager")
    return model


def _wrapped_submodule(model: PreTrainedModel) -> PreTrainedModel:
    model.model.layers[1] = torch.compile(model.model.layers[1], backend="eager")
    return model


def _generate(model: PreTrainedModel) -> PreTrainedModel:
    generate(model, torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.long), 3, "eager")
    assert "_compiled_call" in vars(model)
    return model


def _class(model: PreTrainedModel) -> PreTrainedModel:
    class Compiled(type(model)):  # type: ignore[misc]
        forward = torch.compile(type(model).forward, backend="eager")

    model.__class__ = Compiled
    return model


COMPILED = {
    "OptimizedModule": (lambda model: torch.compile(model, backend="eager"), "The model is compiled"),
    "module.compile": (_own, "The model is compiled"),
    "forward": (_forward, "The model is compiled"),
    "class": (_class, "The model is compiled"),
    "generate": (_generate, "The model is compiled"),
    "submodule": (_submodule, r"model\.layers\.0\.mlp of the model is compiled"),
    "wrapped submodule": (_wrapped_submodule, r"model\.layers\.1 of the model is compiled"),
    "submodule's forward": (_inner_forward, r"model\.layers\.1\.mlp of the model is compiled"),
}


@pytest.mark.parametrize("how", COMPILED)
def test_hooks_on_a_compiled_model_are_refused(how: str) -> None:
    compile_it, message = COMPILED[how]
    model = small()
    sites = find_experts(model)
    Recorder(model, sites).__enter__().__exit__(None, None, None)  # not refused before
    compiled = compile_it(model)
    with pytest.raises(CaptureError, match=message), Recorder(compiled, sites):
        pass
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in compiled.modules())
    if how != "generate":  # its own compilation is forgotten, what was compiled by hand is not
        with pytest.raises(CaptureError, match=message), BufferRecorder(compiled, sites, rows=9):
            pass
    torch._dynamo.reset()


def test_hooks_on_compiled_code_are_skipped_without_a_word() -> None:
    """Why that is refused: the model runs and its outermost hook too, but the experts' hook is not called."""
    model, seen = small(), []
    model.compile(backend="eager")
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        model(input_ids=ids)
        model.register_forward_pre_hook(lambda module, args: seen.append("model"))
        model.model.layers[0].mlp.experts.register_forward_pre_hook(lambda module, args: seen.append("experts"))
        model(input_ids=ids)
    torch._dynamo.reset()
    assert seen == ["model"]
