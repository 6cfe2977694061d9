"""Other kinds of sites by hand; edits leave nothing behind, and live with a recorder, offloading and generation."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from moeprobe.capture import Recorder, find_experts
from moeprobe.editing import Editor, Reroute, Write, bias_for, find_places, hooks, reading, rerouting, writing
from moeprobe.errors import InterchangeError
from tests.capture.families.checks import forward
from tests.editing.by_hand import calls, contributions
from tests.editing.exact import Bench, apart, model_of

FLOAT32 = torch.float32
EVERY = torch.arange(18)


def untouched(model: PreTrainedModel) -> bool:
    """Whether no module has a hook or a forward of its own."""
    return not any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in model.modules()
    )


def zeroed(bench: Bench, layer: int | None = None) -> Write:
    """The first choice of every row, without its contribution."""
    where = bench.layer if layer is None else layer
    call = bench.mine[where]
    return Write(where, "expert", call.ids[:, 0], value=torch.zeros_like(call.hidden))


# Other kinds of sites against arithmetic on the model's own modules.


def plain(bench: Bench, kind: str) -> tuple[Any, int]:
    """The module of a kind of site, and the width of its values."""
    one = bench.places[bench.layer]
    modules = {"shared": one.shared, "moe": one.block, "residual": one.decoder}
    return modules[kind], bench.mine[bench.layer].hidden.shape[1]


@pytest.mark.parametrize("kind", ["shared", "moe", "residual"])
@pytest.mark.parametrize("how", ["replace", "scale", "add"])
def test_plain_values(bench: Bench, kind: str, how: Any) -> None:
    """In every second row; shared experts stand in front of their sigmoid gate."""
    module, width = plain(bench, kind)
    value = torch.randn(18, 1 if how == "scale" else width, generator=torch.Generator().manual_seed(1))
    odd = (EVERY % 2 == 1)[:, None]
    gate = bench.places[bench.layer].shared_gate

    def by_hand(module: Any, args: Any, result: Any) -> Any:
        flat = (result[0] if isinstance(result, tuple) else result).reshape(18, width)
        factor = torch.sigmoid(args[0].reshape(18, width) @ gate.weight.T) if kind == "shared" else 1.0
        new = {"replace": value / factor, "scale": flat * value, "add": flat + value / factor}[how]
        edited = torch.where(odd, new, flat).reshape((result[0] if isinstance(result, tuple) else result).shape)
        return (edited, *result[1:]) if isinstance(result, tuple) else edited

    with torch.inference_mode():
        handle = module.register_forward_hook(by_hand)
        due = bench.run()
        handle.remove()
        got = bench.edited([Write(bench.layer, kind, torch.where(odd[:, 0], 0, -1), how, value)])
        assert apart(got, due) < 2e-6
        assert not torch.equal(got, bench.base)
        assert apart(got[0, 0], bench.base[0, 0]) < 2e-6  # row 0 is not touched, and nothing stands before it


@pytest.mark.parametrize("how", ["replace", "scale", "add"])
def test_heads(bench: Bench, how: Any) -> None:
    """Head row % 4 of every row: a slice of 8 of the output projection's input."""
    place = bench.places[bench.last].heads
    index = EVERY % place.count
    value = torch.randn(18, 1 if how == "scale" else place.width, generator=torch.Generator().manual_seed(1))

    def by_hand(module: Any, args: Any) -> Any:
        edited = args[0].clone().reshape(18, -1)
        for row in range(18):
            where = slice(int(index[row]) * place.width, (int(index[row]) + 1) * place.width)
            old = edited[row, where]
            edited[row, where] = {"replace": value[row], "scale": old * value[row], "add": old + value[row]}[how]
        return (edited.reshape(args[0].shape),)

    with torch.inference_mode():
        handle = place.module.register_forward_pre_hook(by_hand)
        due = bench.run()
        handle.remove()
        got = bench.edited([Write(bench.last, "head", index, how, value)])
    assert torch.equal(got, due)
    assert not torch.equal(got, bench.base)


def test_a_gate_of_zero_is_no_obstacle() -> None:
    """Dividing the new value by the gate would give infinity times 0."""
    bench = Bench("qwen2_moe", "eager", FLOAT32)
    width = plain(bench, "shared")[1]
    value = torch.randn(18, width, generator=torch.Generator().manual_seed(1))
    gate = bench.places[bench.layer].shared_gate
    closed = gate.register_forward_hook(lambda module, args, output: torch.full_like(output, -200.0))
    with torch.inference_mode():
        got = bench.edited([Write(bench.layer, "shared", EVERY * 0, value=value)])
        closed.remove()
        # The routed experts' output plus the value, by hand.
        block = bench.places[bench.layer].block

        def by_hand(module: Any, args: Any, result: Any) -> Any:
            routed = bench.mine[bench.layer].output + value
            whole = routed.reshape((result[0] if isinstance(result, tuple) else result).shape)
            return (whole, *result[1:]) if isinstance(result, tuple) else whole

        handle = block.register_forward_hook(by_hand)
        due = bench.run()
        handle.remove()
    assert got.isfinite().all()
    assert apart(got, due) < 2e-6


def test_a_gate_in_front_of_the_shared_experts_is_refused(bench: Bench) -> None:
    """Its rows could not be opened any more. Here nothing calls the gate after them."""
    one = bench.places[bench.layer]
    gated = hooks.Gated(one, lambda: [Write(bench.layer, "shared", EVERY * 0, value=torch.ones(18, 32))])
    handles = [one.shared.register_forward_hook(gated.after), one.decoder.register_forward_hook(gated.check)]
    with torch.inference_mode(), pytest.raises(InterchangeError, match="does not follow them"):
        bench.run()
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", ["head", "shared", "moe", "residual", "router"])
def test_a_partner_is_its_value(bench: Bench, kind: str) -> None:
    """What the other element has in the same column, live and given."""
    layer, partner = bench.last, (EVERY + 9) % 18
    index = EVERY % 2 if kind == "head" else EVERY * 0
    with torch.inference_mode(), reading(bench.places, [(layer, kind)]) as seen:
        bench.run()
    if kind == "router":
        choice = seen.choice(layer)
        given = Write(layer, kind, index, value=choice.weights[partner], ids=choice.ids[partner])
    else:
        given = Write(layer, kind, index, value=seen.value(layer, kind, index, partner))
    one, other = bench.edited([Write(layer, kind, index, partner=partner)]), bench.edited([given])
    assert torch.equal(one, other)
    assert not torch.equal(one, bench.base)


def test_rows_that_exchange_their_values_see_each_other_unedited(bench: Bench) -> None:
    """Two writes of one kind: the second takes what stood there before the first."""
    halves = [torch.where(EVERY < 9, 0, -1), torch.where(EVERY < 9, -1, 0)]
    partner = (EVERY + 9) % 18
    apart_ = [Write(bench.layer, "moe", half, partner=partner) for half in halves]
    together = Write(bench.layer, "moe", EVERY * 0, partner=partner)
    assert torch.equal(bench.edited(apart_), bench.edited([together]))


def test_a_swapped_router_runs_other_experts(bench: Bench) -> None:
    """The donor's whole choice: by hand, the experts called with the donor's ids and weights."""
    theirs = bench.theirs[bench.layer]
    got = bench.edited([Write(bench.layer, "router", EVERY * 0, value=theirs.weights, ids=theirs.ids)])
    seen = bench.mine[bench.layer]
    with torch.inference_mode():
        due = bench.site.module.forward(seen.hidden, theirs.ids, theirs.weights)
        with calls({bench.layer: bench.site}, {bench.layer: lambda call: due}):
            assert torch.equal(bench.run(), got)
    assert not torch.equal(got, bench.base)


# Nothing stays behind.


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("part", ["router", "experts", "shared_expert", "shared_expert_gate", "o_proj", "later"])
def test_nothing_stays_after_an_error(bench: Bench, error: type[BaseException], part: str) -> None:
    """Broken off anywhere; the forward that follows in the same block, and the one after the block, are as ever."""
    one = bench.places[bench.layer]
    broken = {
        "router": one.router, "experts": one.experts.module, "shared_expert": one.shared,
        "shared_expert_gate": one.shared_gate, "o_proj": bench.places[bench.last].heads.module,
        "later": bench.places[bench.last].decoder,
    }[part]  # fmt: skip
    kinds = ["expert", *bench.kinds(bench.layer)]
    touched = [(bench.layer, kind) for kind in kinds] + [(bench.last, "head")]
    value = torch.ones(18, 32)
    writes = [Write(bench.layer, kind, EVERY * 0, "add", value) for kind in kinds if kind != "head"]
    bias = Reroute(bench.layer, bias_for(8, bar=[1]))
    with torch.inference_mode(), rerouting(bench.places, [bias]):
        rerouted = bench.run()
    real = broken.forward

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    with torch.inference_mode(), Editor(bench.places, touched) as editor, rerouting(bench.places, [bias]):
        editor.set([*writes, Write(bench.last, "head", EVERY % 2, "scale", value[:, :1] * 2)])
        edited = bench.run()
        wrapped, broken.forward = broken.forward, fail
        with pytest.raises(error):
            bench.run()
        broken.forward = wrapped
        assert torch.equal(bench.run(), edited)
        editor.set([])
        assert torch.equal(bench.run(), rerouted)
    if "forward" in vars(broken) and broken.forward == real:
        del broken.forward
    assert untouched(bench.model)
    with torch.inference_mode():
        assert torch.equal(bench.run(), bench.base)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_stays_after_an_error_in_the_block(bench: Bench, error: type[BaseException]) -> None:
    with pytest.raises(error), writing(bench.places, [zeroed(bench)]), reading(bench.places, [(bench.layer, "moe")]):
        raise error
    assert untouched(bench.model)


# Beside a recorder, offloading, generation.


def test_a_recorder_sees_no_call_of_ours() -> None:
    """Reading and writing ask experts one by one; a recorder attached before or after counts the rows of the text
    alone, and a swapped router is recorded as it ran."""
    bench = Bench("mixtral", "eager", FLOAT32)
    with Recorder(bench.model) as recorder:
        bench.run()
    plain = recorder.routing()
    write = zeroed(bench)
    theirs = bench.theirs[bench.last]
    swap = Write(bench.last, "router", EVERY * 0, value=theirs.weights, ids=theirs.ids)
    recorders = [Recorder(bench.model), Recorder(bench.model)]
    with (
        torch.inference_mode(),
        recorders[0],
        reading(bench.places, [(bench.layer, "expert")]) as seen,
        writing(bench.places, [write, swap]),
        recorders[1],
    ):
        bench.run()
        seen.value(bench.layer, "expert", write.index, EVERY)
    for recorder in recorders:
        routing = recorder.routing()
        assert routing.keys() == plain.keys()
        layer = routing[f"L{bench.layer}"]
        assert (layer.experts == plain[f"L{bench.layer}"].experts).all()
        # What was taken out weighs nothing; padding (rows 9 to 11) contributes 0 anyway, so it is left alone.
        assert (layer.weights.reshape(18, -1)[:, 0] == 0).nonzero()[0].tolist() == [*range(9), *range(12, 18)]
        ids = torch.from_numpy(routing[f"L{bench.last}"].experts).reshape(18, -1)
        assert torch.equal(ids, theirs.ids)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral", "gpt_oss"])
def test_weights_on_disk(family: str, tmp_path: Path) -> None:
    """Edits of an offloaded model are those of the plain one, up to how its matrices are aligned in memory."""
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate (pip install accelerate)")
    bench = Bench(family, "eager", FLOAT32)
    bias = Reroute(bench.last, bias_for(8, bar=[1]))

    def edited(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
        places = find_places(model)
        wanted = [(bench.layer, kind) for kind in ("expert", *bench.kinds(bench.layer))]
        with torch.inference_mode(), reading(places, wanted) as seen:
            base = forward(model)[1]
            index = bench.mine[bench.layer].ids[:, 0]
            own = [Write(bench.layer, "expert", index, value=seen.value(bench.layer, "expert", index, EVERY))]
            own += [
                Write(bench.layer, kind, EVERY * 0, value=seen.value(bench.layer, kind, EVERY * 0, EVERY))
                for kind in bench.kinds(bench.layer)
            ]
        with torch.inference_mode():
            with writing(places, own):
                same = forward(model)[1]
            with writing(places, [zeroed(bench)]), rerouting(places, [bias]):
                return base, same, forward(model)[1]

    _, _, due = edited(bench.model)
    offloaded = accelerate.disk_offload(copy.deepcopy(bench.model), str(tmp_path), execution_device=torch.device("cpu"))
    assert any(one.device.type == "meta" for site in find_experts(offloaded) for one in site.module.parameters())
    base, same, got = edited(offloaded)
    assert torch.equal(base, same)
    assert apart(got, due) < 2e-6
    assert not torch.equal(got, base)
    assert all(hasattr(site.module, "_hf_hook") for site in find_experts(offloaded))


def each_step(model: PreTrainedModel, before: Callable[[int], None]) -> Any:
    """Call `before` (rows) at the start of every forward."""

    def enter(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        before(kwargs["input_ids"].numel())

    return model.register_forward_pre_hook(enter, with_kwargs=True)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_5_moe", "gpt_oss"])
def test_at_every_step_of_a_generation(family: str) -> None:
    """Two prompts in one batch: the second one's value of an expert is injected into the first at every step, with a
    cache; by hand, the same step by step without a cache."""
    bench = Bench(family, "eager", FLOAT32)
    ids = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(5))
    expert, steps = 3, 5

    def writes(rows: int) -> list[Write]:
        columns = rows // 2
        index = torch.where(torch.arange(rows) < columns, expert, -1)
        return [Write(bench.layer, "expert", index, partner=(torch.arange(rows) + columns) % rows)]

    with torch.inference_mode(), Editor(bench.places, [(bench.layer, "expert")]) as editor:
        handle = each_step(bench.model, lambda rows: editor.set(writes(rows)))
        out = bench.model.generate(
            input_ids=ids, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        handle.remove()
    with torch.inference_mode():
        plain = bench.model.generate(
            input_ids=ids, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        text = out.sequences[:, :-1]
        by_hand = forced(bench, text, expert)
    for step in range(steps):
        assert apart(out.logits[step], by_hand[:, 6 + step]) < 5e-6
    assert torch.equal(out.logits[0][1], plain.logits[0][1])
    assert not torch.equal(out.logits[0][0], plain.logits[0][0])


def forced(bench: Bench, text: Tensor, expert: int) -> Tensor:
    """Logits of the whole text at once, with the first element's contribution of one expert patched by hand."""
    columns = text.shape[1]
    rows = torch.arange(2 * columns)
    index = torch.full((2 * columns,), expert)

    def patch(call: Any) -> Tensor:
        own = contributions(bench.site, call, index)
        return torch.where(
            (rows < columns)[:, None], call.output - own + own[(rows + columns) % (2 * columns)], call.output
        )

    with calls({bench.layer: bench.site}, {bench.layer: patch}):
        return forward(bench.model, input_ids=text, attention_mask=torch.ones_like(text))[1]


def test_two_experts_of_one_row_may_be_written() -> None:
    bench = Bench("mixtral", "eager", FLOAT32)
    call = bench.mine[bench.layer]
    zero = torch.zeros_like(call.hidden)
    writes = [Write(bench.layer, "expert", call.ids[:, slot], value=zero) for slot in range(2)]
    with torch.inference_mode(), writing(bench.places, writes), calls(bench.sites) as found:
        bench.run()
    assert (found[bench.layer].output == 0).all()


def test_what_was_read_is_a_copy() -> None:
    """Llama 4 adds the routed outputs to what its shared expert returned, in place."""
    model = model_of("llama4", FLOAT32)
    places = find_places(model)
    layer = [number for number, one in places.items() if one.shared is not None][-1]
    given: list[Tensor] = []
    handle = places[layer].shared.register_forward_hook(lambda module, args, output: given.append(output.clone()))
    with torch.inference_mode(), reading(places, [(layer, "shared")]) as seen:
        forward(model)
    handle.remove()
    assert torch.equal(seen.value(layer, "shared", EVERY * 0, EVERY), given[0].reshape(18, -1))
