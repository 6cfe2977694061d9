"""Continuous batching: rows find their request, whatever was packed, chunked, evicted or forked."""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CompileConfig,
    ContinuousBatchingConfig,
    GenerationConfig,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.generation.continuous_batching import PagedAttentionCache
from transformers.generation.continuous_batching import input_outputs as batches

from moeprobe.capture import Recorder, Recording, find_experts
from moeprobe.capture.continuous import ContinuousRecorder
from moeprobe.capture.signals import make_taps
from moeprobe.errors import CaptureError

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64, "num_experts_per_tok": 2, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.5,
}  # fmt: skip
FAMILIES = {
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=16)),
    "qwen2_moe": lambda: Qwen2MoeForCausalLM(
        Qwen2MoeConfig(**SIZES, num_experts=8, moe_intermediate_size=16, shared_expert_intermediate_size=16)
    ),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=8)),
    # Its layers alternate between a sliding window and full attention.
    "gpt_oss": lambda: GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=8, sliding_window=8)),
}
PROMPTS = [5, 19, 7, 11, 3, 8]
# 12 blocks of 4 tokens hold fewer than these requests need, and 8 rows a batch cut the prompts into pieces.
TIGHT = {"page_size": 4, "num_blocks": 12, "max_batch_tokens": 8}


def build(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model: PreTrainedModel = FAMILIES[family]()
    return model.eval()


@pytest.fixture(scope="module")
def qwen() -> PreTrainedModel:
    return build("qwen3_moe")


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, int]]]:
    """The batches that were prepared: (request, rows) of each."""
    seen: list[list[tuple[str, int]]] = []
    original = batches.ContinuousBatchingIOs.prepare_batch_tensors

    def prepare(self: Any, requests_in_batch: Any, *args: Any, **kwargs: Any) -> None:
        original(self, requests_in_batch, *args, **kwargs)
        seen.append([(one.state.request_id, one.query_length) for one in requests_in_batch])

    monkeypatch.setattr(batches.ContinuousBatchingIOs, "prepare_batch_tensors", prepare)
    return seen


def prompts(lengths: list[int] = PROMPTS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 64, (length,), generator=generator).tolist() for length in lengths]


def settings(**changes: Any) -> GenerationConfig:
    return GenerationConfig(
        **({"max_new_tokens": 6, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0} | changes)
    )


def config(**changes: Any) -> ContinuousBatchingConfig:
    return ContinuousBatchingConfig(**(TIGHT | changes))


def assert_teacher_forced(model: PreTrainedModel, outputs: dict[str, Any], recording: Recording) -> None:
    """Ids and weights of every row equal those of one forward of the finished text."""
    routing = recording.routing()
    assert sorted(routing) == ["L0", "L1", "L2"]
    for index, output in enumerate(outputs.values()):
        text = [*output.prompt_ids, *output.generated_tokens]
        with torch.inference_mode(), Recorder(model) as recorder:
            model(input_ids=torch.tensor([text[:-1]]))
        fed = len(text) - 1
        for name, layer in recorder.routing().items():
            assert (routing[name].experts[index, :fed] == layer.experts[0]).all()
            np.testing.assert_allclose(routing[name].weights[index, :fed], layer.weights[0], rtol=0, atol=2e-5)
            assert (routing[name].experts[index, fed:] == -1).all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_teacher_forcing(family: str, attention: str, forwards: list[list[tuple[str, int]]]) -> None:
    if family == "gpt_oss" and attention == "sdpa":
        pytest.skip("gpt-oss has attention sinks, which transformers does not run with sdpa")
    model = build(family)
    model.set_attn_implementation(attention)
    with ContinuousRecorder(model) as recorder:
        # gpt-oss keeps two caches, so the same number of blocks holds less.
        outputs = model.generate_batch(prompts(), settings(), config(num_blocks=24 if family == "gpt_oss" else 12))
    assert [len(output.generated_tokens) for output in outputs.values()] == [6] * 6
    assert max(len(batch) for batch in forwards) > 1, "some forward holds rows of several requests"
    assert max(len({request for request, _ in batch}) for batch in forwards) < 6, "some request had to wait"
    assert sum(rows > 1 for batch in forwards for request, rows in batch if request == "req_1") > 1, "prefill in chunks"
    assert_teacher_forced(model, outputs, recorder.recording(outputs))


def test_sampled_answers_of_different_lengths(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(
            prompts(), settings(do_sample=True, max_new_tokens=20, eos_token_id=[2, 5, 9, 17]), config(seed=3)
        )
    lengths = [len(output.generated_tokens) for output in outputs.values()]
    assert len(set(lengths)) > 1
    assert_teacher_forced(qwen, outputs, recorder.recording(outputs))


def test_more_forwards_than_one_flush(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(prompts([5, 9]), settings(max_new_tokens=80), config(num_blocks=60))
        assert recorder._recorder.stacks[""].unflushed < len(recorder._log) > 64
    assert_teacher_forced(qwen, outputs, recorder.recording(outputs))


def test_evicted_requests_are_recorded_again(qwen: PreTrainedModel, forwards: list[list[tuple[str, int]]]) -> None:
    # Two requests of 4 + 20 tokens need 12 blocks; 8 make them take turns.
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(
            prompts([4, 4, 4]), settings(max_new_tokens=20), config(num_blocks=8, safety_margin=0.0)
        )
    fed: dict[str, int] = {}
    for batch in forwards:
        for request, rows in batch:
            fed[request] = fed.get(request, 0) + rows
    assert max(fed.values()) > 23, "some request was fed in again"
    assert [len(output.generated_tokens) for output in outputs.values()] == [20] * 3
    assert_teacher_forced(qwen, outputs, recorder.recording(outputs))


@pytest.mark.parametrize("blocks", [6, 40])
def test_several_answers_share_the_rows_of_their_prompt(
    qwen: PreTrainedModel, blocks: int, forwards: list[list[tuple[str, int]]]
) -> None:
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(
            prompts([9, 6]), settings(do_sample=True, num_return_sequences=3), config(num_blocks=blocks, seed=5)
        )
    assert len(outputs) == 6
    rows = sum(rows for batch in forwards for _, rows in batch)
    forks = [fork for packed in recorder._log for fork in packed.forks]
    if blocks == 40:
        # Each prompt once but for its last token, which every answer feeds in itself, as well as its own five.
        assert (rows, len(forks)) == (8 + 5 + 6 * (1 + 5), 4)
    else:
        assert len(forks) < 4, "some answers found no room to share a cache"
    assert_teacher_forced(qwen, outputs, recorder.recording(outputs))


def test_requests_of_a_manager_come_in_any_order(qwen: PreTrainedModel) -> None:
    with (
        ContinuousRecorder(qwen) as recorder,
        qwen.continuous_batching_context_manager(settings(), continuous_batching_config=config()) as manager,
    ):
        names = [
            manager.add_request(prompt, request_id=f"text {i}", eos_token_id=-1) for i, prompt in enumerate(prompts())
        ]
        outputs = {}
        while len(outputs) < len(names):
            result = manager.get_result(timeout=1)
            if result is not None:
                outputs[result.request_id] = result
    assert_teacher_forced(qwen, outputs, recorder.recording(outputs))
    some = {name: outputs[name] for name in ("text 4", "text 0")}
    assert_teacher_forced(qwen, some, recorder.recording(some))


def test_tokens_are_those_of_an_unrecorded_run(qwen: PreTrainedModel) -> None:
    plain = qwen.generate_batch(prompts(), settings(), config(allow_block_sharing=False))
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(prompts(), settings(), config())
    recorder.recording(outputs)
    assert {name: one.generated_tokens for name, one in outputs.items()} == {
        name: one.generated_tokens for name, one in plain.items()
    }
    assert "init_continuous_batching" not in qwen.__dict__
    assert not qwen._forward_pre_hooks
    assert not qwen._forward_hooks


def test_two_runs_need_a_clear_between_them(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen) as recorder:
        first = qwen.generate_batch(prompts(), settings(), config())
        recorder.recording(first)
        with pytest.raises(CaptureError, match="clear"):
            qwen.generate_batch(prompts([6, 4]), settings(), config())
        recorder.clear()
        second = qwen.generate_batch(prompts([6, 4]), settings(), config())
        recording = recorder.recording(second)
    assert recording.routing()["L0"].experts.shape == (2, 11, 2)
    assert_teacher_forced(qwen, second, recording)


def test_taps_that_read_layers_work_and_those_that_need_logits_are_refused(qwen: PreTrainedModel) -> None:
    taps = make_taps(qwen, find_experts(qwen), ["logits:1"])
    with ContinuousRecorder(qwen, taps=taps) as recorder:
        outputs = qwen.generate_batch(prompts(), settings(), config())
    recording = recorder.recording(outputs)
    scores = np.take(recording.signals["L1.logits"], recording.stacks[""].grid[1, :19], axis=0)
    best = np.sort(np.argsort(-scores, axis=-1)[:, :2], axis=-1)
    assert (best == np.sort(recording.routing()["L1"].experts[1, :19], axis=-1)).all()
    for what in ("entropy", "logprob"):
        with pytest.raises(CaptureError, match="logits only where a token is drawn"):
            ContinuousRecorder(qwen, taps=make_taps(qwen, find_experts(qwen), [what]))


# What must be turned off or refused.


def test_settings_that_hide_rows_are_turned_off(qwen: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []
    original = PagedAttentionCache.search_prefix_match

    def search(self: Any, *args: Any) -> int:
        shared.append(original(self, *args))
        return shared[-1]

    monkeypatch.setattr(PagedAttentionCache, "search_prefix_match", search)
    # One request at a time, all with the same prompt: the later ones would find all but the last block in the cache.
    same = [prompts([17])[0]] * 4
    wish = config(max_requests_per_batch=1, use_cuda_graph=True, default_compile_level=2, use_async_batching=True)
    before = copy.deepcopy(wish)
    qwen.generate_batch(same, settings(), config(max_requests_per_batch=1))
    assert sum(shared) == 3 * 16, "unrecorded, whole blocks of the prompt are shared"
    shared.clear()
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(same, settings(), wish)
    assert not shared
    assert wish == before, "the user's configuration is left as it was"
    assert_teacher_forced(qwen, outputs, recorder.recording(outputs))


def test_a_manager_kept_with_prefix_sharing_is_refused(qwen: PreTrainedModel) -> None:
    qwen.generate_batch(prompts(), settings(), config(), persistent_manager=True)
    try:
        with pytest.raises(CaptureError, match="prefix sharing.*destroy_cached"), ContinuousRecorder(qwen):
            qwen.generate_batch(prompts(), settings(), config())
    finally:
        qwen.destroy_cached_continuous_batching_manager()


def test_a_model_that_wants_to_be_compiled_is_refused(qwen: PreTrainedModel) -> None:
    qwen.config.compile_config = CompileConfig()
    try:
        with pytest.raises(CaptureError, match="compilation.*compile_config"), ContinuousRecorder(qwen):
            qwen.generate_batch(prompts(), settings(), config())
    finally:
        del qwen.config.compile_config


def test_a_manager_from_before_is_refused(qwen: PreTrainedModel) -> None:
    manager = qwen.init_continuous_batching(settings(), config())
    manager.start()
    try:
        with ContinuousRecorder(qwen) as recorder:
            manager.add_request(prompts()[0], eos_token_id=-1)
            result = manager.get_result(timeout=20)
            assert "Create the manager inside the recording" in result.error
            with pytest.raises(CaptureError, match="no forward pass"):
                recorder.recording({result.request_id: result})
    finally:
        manager.stop()


def test_plain_forwards_are_refused(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen), pytest.raises(CaptureError, match="use Recorder for plain generate"):
        qwen(input_ids=torch.tensor([[3, 4, 5]]))
    assert not qwen._forward_pre_hooks


def test_requests_begun_before_a_clear_are_refused(qwen: PreTrainedModel) -> None:
    recorder = ContinuousRecorder(qwen)
    cleared = threading.Event()

    def clear(module: Any, args: Any, kwargs: Any) -> None:
        if len(recorder._log) == 3 and not cleared.is_set():
            cleared.set()
            manager = recorder._manager
            recorder.clear()
            recorder._manager = manager

    handle = qwen.register_forward_pre_hook(clear, with_kwargs=True)
    try:
        with pytest.raises(CaptureError, match="begins at position"), recorder:
            qwen.generate_batch(prompts(), settings(), config())
    finally:
        handle.remove()
    assert cleared.is_set()


# Planted faults.


@pytest.fixture
def planted(qwen: PreTrainedModel) -> Iterator[Any]:
    """Run two requests in lockstep while the batch is described wrongly to the recorder."""
    handles = []

    def run(lengths: list[int], fault: Any) -> tuple[ContinuousRecorder, dict[str, Any]]:
        recorder = ContinuousRecorder(qwen)

        def describe(module: Any, args: Any, kwargs: Any) -> None:
            inputs = recorder._manager.batch_processor.inputs_and_outputs  # type: ignore[union-attr]
            true = inputs.requests_in_batch
            inputs.requests_in_batch = fault(true)
            module.true = (inputs, true)

        def mend(module: Any, args: Any, output: Any) -> None:
            inputs, true = module.true
            inputs.requests_in_batch = true

        # Before the recorder's hook, and undone after it: generation itself is untouched.
        handles.append(qwen.register_forward_pre_hook(describe, with_kwargs=True))
        handles.append(qwen.register_forward_hook(mend, always_call=True))
        with recorder:
            outputs = qwen.generate_batch(prompts(lengths), settings(), config(max_batch_tokens=16, num_blocks=40))
        return recorder, outputs

    yield run
    for handle in handles:
        handle.remove()


def test_swapped_requests_of_equal_length_are_caught_by_their_tokens(planted: Any) -> None:
    recorder, outputs = planted([6, 6], lambda batch: batch[::-1])
    with pytest.raises(CaptureError, match="computed from another token"):
        recorder.recording(outputs)


def test_swapped_requests_of_different_length_are_caught_by_their_positions(planted: Any) -> None:
    recorder, outputs = planted([6, 9], lambda batch: batch[::-1])
    with pytest.raises(CaptureError, match="do not agree with the positions"):
        recorder.recording(outputs)


def test_a_request_left_out_is_caught_by_the_number_of_rows(planted: Any) -> None:
    with pytest.raises(CaptureError, match="padded or split"):
        planted([6, 9], lambda batch: batch[:1])


def test_one_row_swapped_in_one_forward_is_caught(planted: Any) -> None:
    calls = []

    def once(batch: list[Any]) -> list[Any]:
        calls.append(len(batch))
        return batch[::-1] if len(calls) == 4 else batch

    recorder, outputs = planted([6, 6], once)
    assert calls[3] == 2
    with pytest.raises(CaptureError, match=r"sequence \d, position 8 was computed from another token"):
        recorder.recording(outputs)


def test_an_answer_altered_afterwards_is_caught(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(prompts(), settings(), config())
    outputs["req_2"].generated_tokens[3] ^= 1
    with pytest.raises(CaptureError, match="sequence 2, position 10 was computed from another token"):
        recorder.recording(outputs)


def test_a_request_that_never_ran_is_caught(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen) as recorder:
        outputs = qwen.generate_batch(prompts(), settings(), config())
    with pytest.raises(CaptureError, match="sequence 6 has no recorded row at position 0"):
        recorder.recording(outputs | {"req_9": outputs["req_0"]})


# Errors in the manager's thread reach the user, and nothing hangs.


def test_a_bypassed_layer_stops_the_run(qwen: PreTrainedModel) -> None:
    block = qwen.model.layers[1].mlp
    block.forward = lambda hidden: hidden
    try:
        recorder = ContinuousRecorder(qwen)
        with pytest.raises(CaptureError, match="L1 .*recorded 0 rows"), recorder:
            qwen.generate_batch(prompts(), settings(), config())
        with pytest.raises(CaptureError, match="L1 .*recorded 0 rows"):
            recorder.recording({})
    finally:
        del block.forward


def test_the_cause_is_told_even_when_the_code_after_it_fails(qwen: PreTrainedModel) -> None:
    block = qwen.model.layers[1].mlp
    block.forward = lambda hidden: hidden
    try:
        with pytest.raises(CaptureError, match="L1 .*recorded 0 rows"), ContinuousRecorder(qwen):
            qwen.generate_batch(prompts(), settings(), config())["no such request"]
    finally:
        del block.forward


def test_an_error_of_the_model_reaches_the_user(qwen: PreTrainedModel) -> None:
    block = qwen.model.layers[1].mlp
    calls = []
    original = block.forward

    def fail(hidden: torch.Tensor) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("out of paper")
        return original(hidden)

    block.forward = fail
    try:
        with pytest.raises(CaptureError, match="stopped with an error: out of paper"), ContinuousRecorder(qwen):
            qwen.generate_batch(prompts(), settings(), config())
    finally:
        del block.forward


def test_a_cache_that_holds_no_request_reaches_the_user(qwen: PreTrainedModel) -> None:
    with (
        pytest.raises(CaptureError, match="stopped with an error: No requests can be scheduled"),
        ContinuousRecorder(qwen),
    ):
        qwen.generate_batch(prompts([19]), settings(), config(num_blocks=2, max_batch_tokens=16))


def test_an_unknown_layout_of_batches_is_named(planted: Any) -> None:
    with pytest.raises(CaptureError, match="keeps its batches in another way"):
        planted([6, 9], lambda batch: [object()] * len(batch))


def test_nothing_ran(qwen: PreTrainedModel) -> None:
    with ContinuousRecorder(qwen) as recorder:
        assert qwen.generate_batch([], settings()) == {}
    with pytest.raises(CaptureError, match="no forward pass"):
        recorder.recording({})
