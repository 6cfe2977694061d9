"""All ways of generating: every recorded row equals one teacher-forced, uncached forward of the final text.

Beside each way where rows do not simply fly by in order stands a recorder that believes they do, and must fail.
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from moeprobe.capture import LayerRouting, Recorder, Recording, find_experts
from moeprobe.capture.outputs import LogprobTap
from moeprobe.capture.recording import StackRows
from moeprobe.capture.rows import rows_of
from moeprobe.capture.signals import make_taps
from moeprobe.errors import CaptureError
from tests.capture.families.tiny import build
from tests.capture.tiny_qwen import differences, places, prompts, spying, teacher, tiny

LENGTHS = (9, 5, 1)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny()


def generate(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, **how: Any) -> tuple[Recorder, Any]:
    torch.manual_seed(3)
    with torch.inference_mode(), Recorder(model) as recorder:
        output = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **how)
    return recorder, output


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 0},
    "one new token": {"do_sample": False, "max_new_tokens": 1},
    "chunked prefill": {"do_sample": False, "prefill_chunk_size": 4},
    "static cache": {"do_sample": False, "cache_implementation": "static", "disable_compile": True},
    "chunked static": {"do_sample": True, "cache_implementation": "static", "disable_compile": True,
                       "prefill_chunk_size": 2},
    "no cache": {"do_sample": False, "use_cache": False},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_rows_equal_teacher_forcing(model: PreTrainedModel, way: str) -> None:
    ids, mask = prompts(*LENGTHS)
    recorder, output = generate(model, ids, mask, **{"max_new_tokens": 12} | WAYS[way])
    tokens = output.sequences.numpy()
    recording, real = recorder.recording(), places(tokens, mask)
    recording.check("", tokens, real)
    assert differences(model, recording, tokens, real) == 0
    # A row further on, which is what forgetting the padding or the cache would give, is seen.
    stack = recording.stacks[""]
    moved = Recording(
        recording.sites, {"": StackRows(stack.rows, np.roll(stack.grid, 1, 1))}, recording.layers, recording.signals
    )
    assert differences(model, moved, tokens, real) > real.sum()
    with pytest.raises(CaptureError, match="another token|no recorded row"):
        moved.check("", tokens, real)


def test_several_return_sequences(model: PreTrainedModel) -> None:
    ids, mask = prompts(6, 3)
    recorder, output = generate(model, ids, mask, max_new_tokens=10, do_sample=True, top_k=0, num_return_sequences=3)
    tokens = output.sequences.numpy()
    assert len({tuple(row) for row in tokens.tolist()}) == 6
    real = places(tokens, mask.repeat_interleave(3, 0))
    recorder.recording().check("", tokens, real)
    assert differences(model, recorder.recording(), tokens, real) == 0
    # All samples of one prompt first, or one of each: the token check knows.
    with pytest.raises(CaptureError, match="another token"):
        recorder.recording().check("", tokens[[0, 2, 4, 1, 3, 5]], real)


def test_right_padding(model: PreTrainedModel) -> None:
    ids, mask = prompts(7, 4)
    ids[1], mask[1] = ids[1].roll(-3), mask[1].roll(-3)
    with torch.inference_mode(), Recorder(model) as recorder:
        model(input_ids=ids, attention_mask=mask)
    assert differences(model, recorder.recording(), ids.numpy(), mask.bool().numpy()) == 0


@pytest.mark.parametrize(("beams", "returned", "ends"), [(3, 1, False), (3, 2, False), (4, 4, True), (2, 2, False)])
def test_beams(model: PreTrainedModel, beams: int, returned: int, ends: bool) -> None:
    ids, mask = prompts(8, 4)
    end = None
    if ends:  # a token in the middle of the most likely text becomes the end token
        free = generate(model, ids, mask, max_new_tokens=14, do_sample=False, num_beams=beams)[1].sequences
        end = int(free[0, 14])
    recorder, output = generate(
        model, ids, mask, max_new_tokens=14, do_sample=False, num_beams=beams, num_return_sequences=returned,
        output_scores=True, eos_token_id=end,
    )  # fmt: skip
    tokens, real = output.sequences.numpy(), places(output.sequences.numpy(), mask.repeat_interleave(returned, 0))
    if end is not None:
        ended = np.cumsum(tokens[:, 8:] == end, axis=1) > 0
        real[:, 8:] &= ~ended
        assert ended[:, -2].any()
        assert not ended[:, -2].all()
    recording = recorder.recording()
    followed = recording.follow(output.beam_indices.numpy(), 8)
    followed.check("", tokens, real)
    assert differences(model, followed, tokens, real) == 0
    # The recorder that takes batch rows for sequences: wrong experts, and the token check says so.
    stack = recording.stacks[""]
    first = [prompt * beams + place for prompt in range(2) for place in range(returned)]
    naive = Recording(recording.sites, {"": StackRows(stack.rows, stack.grid[first])}, recording.layers)
    assert differences(model, naive, tokens, real) > 0
    with pytest.raises(CaptureError, match="another token"):
        naive.check("", tokens, real)


def draft(model: PreTrainedModel, kind: str) -> dict[str, Any]:
    if kind == "prompt lookup":
        return {"prompt_lookup_num_tokens": 4}
    assistant = tiny(9) if kind == "a stranger" else copy.deepcopy(model)
    if kind == "a likeness":
        with torch.no_grad():
            assistant.lm_head.weight += 0.6 * torch.randn(assistant.lm_head.weight.shape)
    return {"assistant_model": assistant}


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("kind", ["prompt lookup", "a likeness", "a stranger"])
def test_drafts(model: PreTrainedModel, kind: str, sample: bool) -> None:
    ids = prompts(5)[0].repeat(1, 4) if kind == "prompt lookup" else prompts(8)[0]
    mask = torch.ones_like(ids)
    with spying(model) as seen:
        recorder, output = generate(
            model, ids, mask, max_new_tokens=40, do_sample=sample, top_k=0, **draft(model, kind)
        )  # fmt: skip
    tokens = output.sequences.numpy()
    recording, real = recorder.recording(), places(tokens, mask)
    recording.check("", tokens, real)
    assert differences(model, recording, tokens, real) == 0
    forwards = recorder.stacks[""].done
    rejected = sum(one.rows for one in forwards) - int(real.sum())
    assert rejected > 0
    assert kind == "a stranger" or len(forwards) < 40, "some drafts were accepted"
    # Rows as they fly by, cut to the length of the text.
    naive = {name: np.concatenate([one[0] for one in calls])[: int(real.sum())] for name, calls in seen.items()}
    right = teacher(model, tokens[0, :-1].tolist())
    assert any((naive[name] != right[name][0]).any() for name in right)
    rows = rows_of(forwards)
    flown = Recording(recording.sites, {"": StackRows(rows, np.arange(len(rows.token))[None])}, recording.layers)
    with pytest.raises(CaptureError, match="another token"):
        flown.check("", tokens, real)


@pytest.mark.parametrize("forwards", [63, 64, 65, 128, 129])
def test_flushes_leave_no_gap(model: PreTrainedModel, forwards: int) -> None:
    ids, mask = prompts(4, 2)
    taps = make_taps(model, find_experts(model), ["logprob", "entropy", "margin:1", "norms:2", "router-input:0"])
    with torch.inference_mode(), Recorder(model, taps=taps) as recorder:
        tokens = model.generate(ids, attention_mask=mask, max_new_tokens=forwards, do_sample=False)
        next(tap for tap in taps if isinstance(tap, LogprobTap)).finish(tokens.numpy())
        recording = recorder.recording()
    assert len(recorder.stacks[""].done) == forwards
    real = places(tokens.numpy(), mask)
    recording.check("", tokens.numpy(), real)
    assert differences(model, recording, tokens.numpy(), real) == 0
    with torch.inference_mode():
        logs = model(tokens, attention_mask=torch.cat([mask, torch.ones(2, forwards, dtype=torch.long)], 1),
                     position_ids=(torch.cat([mask, torch.ones(2, forwards)], 1).cumsum(1) - 1).clamp(0).long(),
                     ).logits.log_softmax(-1)  # fmt: skip
    expected = logs[:, 3:-1].gather(-1, tokens[:, 4:, None])[..., 0].numpy()
    np.testing.assert_allclose(recording.signals["logprob"][recording.stacks[""].grid][:, 3:], expected, atol=1e-4)


class Stop(BaseException):
    """As KeyboardInterrupt: no Exception."""


@pytest.mark.parametrize("error", [Stop, RuntimeError])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("steps", [3, 64, 70])
def test_a_forward_that_broke_off_leaves_no_rows(
    model: PreTrainedModel, error: type[BaseException], read: bool, steps: int
) -> None:
    """The same recorder goes on after an error in the middle of a forward, whether or not it was read in between."""
    ids, mask = prompts(4)
    sites = find_experts(model)
    taps = make_taps(model, sites, ["margin", "router-input", "norms:0", "logits"])
    calls = 0

    def breaks(module: Any, args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == steps + 1:
            raise error("in the middle")

    handle = sites[1].module.register_forward_pre_hook(breaks, prepend=True)
    try:
        with torch.inference_mode(), Recorder(model, taps=taps) as recorder:
            with pytest.raises(error):
                model.generate(ids, max_new_tokens=80, do_sample=False)
            assert not torch.overrides._get_current_function_mode_stack()
            before = recorder.recording() if read else None
            again = model.generate(ids, max_new_tokens=80, do_sample=False)
            recording = recorder.recording()
    finally:
        handle.remove()
    assert before is None or before.stacks[""].grid.shape == (1, 4 + steps - 1)
    assert {len(one) for one in recording.signals.values()} == {len(recording.stacks[""].rows.token)}
    real = places(again.numpy(), mask)
    recording.check("", again.numpy(), real)
    assert differences(model, recording, again.numpy(), real) == 0


def test_nothing_is_left_on_the_model(model: PreTrainedModel) -> None:
    def traces() -> list[Any]:
        return [
            (list(one._forward_hooks), list(one._forward_pre_hooks), "forward" in one.__dict__)
            for one in model.modules()
        ]

    before = traces()
    what = ["logits", "margin", "shared-gate", "router-input", "norms", "residual:0", "entropy", "logprob"]
    taps = make_taps(model, find_experts(model), what)
    with Recorder(model, taps=taps) as recorder:
        assert traces() != before
        with pytest.raises(CaptureError, match="attached already"):
            recorder.__enter__()
    assert traces() == before
    bad = make_taps(model, find_experts(model), ["entropy"])
    bad[0].attach = lambda recorder: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError), Recorder(model, taps=[*taps, *bad]):
        pass
    assert traces() == before


def test_a_model_called_with_positional_arguments(model: PreTrainedModel) -> None:
    ids, _ = prompts(6)
    with torch.inference_mode(), Recorder(model) as recorder:
        cache = model(ids[:, :4]).past_key_values
        model(ids[:, 4:], None, None, cache)
    recording = recorder.recording()
    assert recording.stacks[""].grid.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert differences(model, recording, ids.numpy(), np.ones((1, 6), bool)) == 0


def test_embeddings_are_recorded_without_tokens(model: PreTrainedModel) -> None:
    ids, _ = prompts(6)
    with torch.inference_mode(), Recorder(model) as recorder:
        model(inputs_embeds=model.get_input_embeddings()(ids))
    assert (recorder.recording().stacks[""].rows.token == -1).all()
    assert differences(model, recorder.recording(), ids.numpy(), np.ones((1, 6), bool)) == 0


def test_two_recorders_at_once(model: PreTrainedModel) -> None:
    ids, mask = prompts(5)
    with torch.inference_mode(), Recorder(model) as outer, Recorder(model, find_experts(model)[1:]) as inner:
        tokens = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert sorted(inner.routing()) == ["L1", "L2"]
    for name, routing in inner.routing().items():
        assert (routing.experts == outer.routing()[name].experts).all()
    assert differences(model, outer.recording(), tokens.numpy(), places(tokens.numpy(), mask)) == 0


def test_input_tokens_keep_no_larger_tensor_alive(model: PreTrainedModel) -> None:
    long = torch.randint(1, 60, (1, 400))
    with torch.inference_mode(), Recorder(model) as recorder:
        for start in range(0, 400, 100):
            model(input_ids=long[:, start : start + 2])
    sizes = [one.ids.untyped_storage().nbytes() for one in recorder.stacks[""].done if one.ids is not None]
    assert sizes == [16] * 4


def test_what_waits_does_not_grow(model: PreTrainedModel) -> None:
    ids, _ = prompts(3)
    with torch.inference_mode(), Recorder(model) as recorder:
        model.generate(ids, max_new_tokens=150, do_sample=False)
    assert len(recorder.tape.waiting("L1.experts")) == 150 - 2 * 64


def test_two_stacks_in_one_forward_are_flushed() -> None:
    """JetMoe routes attention as well: both stacks run in the same forwards."""
    jetmoe = build("jetmoe")
    ids = torch.randint(1, 90, (2, 5))
    with torch.inference_mode(), Recorder(jetmoe) as recorder:
        tokens = jetmoe.generate(ids, max_new_tokens=70, do_sample=False)
        recording = recorder.recording()
        assert sorted(recorder.stacks) == ["", "attention"]
        with Recorder(jetmoe) as once:
            jetmoe(tokens)
    real = np.ones(tokens.shape, bool)
    real[:, -1] = False
    for stack in recording.stacks:
        recording.check(stack, tokens.numpy(), real)
    for name, routing in recording.routing().items():
        assert (routing.experts == once.routing()[name].experts[:, :-1]).all(), name


def encoder_decoder(ids: torch.Tensor, **how: Any) -> tuple[PreTrainedModel, Recording, Any]:
    switch = build("switch_transformers")
    switch.generation_config.decoder_start_token_id = 0
    recorder, output = generate(switch, ids, torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, **how)
    return switch, recorder.recording(), output


@pytest.mark.parametrize("beams", [1, 3])
def test_an_encoder_decoder_model(beams: int) -> None:
    ids = torch.randint(1, 90, (2, 6))
    how = {"num_beams": beams, "num_return_sequences": 2, "output_scores": True} if beams > 1 else {}
    switch, recording, output = encoder_decoder(ids, do_sample=False, **how)
    tokens = output.sequences
    if beams > 1:
        recording = recording.follow(output.beam_indices.numpy(), 1)
    recording = recording.spread(len(tokens))
    inputs = ids.repeat_interleave(len(tokens) // 2, 0)
    real = np.ones(tokens.shape, bool)
    real[:, -1] = False
    recording.check("", tokens.numpy(), real)
    recording.check("encoder", inputs.numpy(), np.ones(inputs.shape, bool))
    with torch.inference_mode(), Recorder(switch) as once:
        switch(input_ids=inputs, decoder_input_ids=tokens)
    for name, routing in recording.routing().items():
        expected: LayerRouting = once.routing()[name]
        length = routing.experts.shape[1]
        assert length == (6 if name.startswith("encoder") else 8)
        np.testing.assert_allclose(routing.weights, expected.weights[:, :length], atol=4e-6)
        assert (routing.experts == expected.experts[:, :length]).all()
    with pytest.raises(CaptureError, match="another token"):
        recording.check("encoder", np.roll(inputs.numpy(), 1, 1), np.ones(inputs.shape, bool))


def test_layers_of_the_encoder_alone() -> None:
    switch = build("switch_transformers")
    sites = [site for site in find_experts(switch) if site.stack == "encoder"]
    ids = torch.randint(1, 90, (1, 4))
    with torch.inference_mode(), Recorder(switch, sites) as recorder:
        switch(input_ids=ids, decoder_input_ids=ids[:, :2])
    assert sorted(recorder.routing()) == sorted(site.name for site in sites)
    recorder.recording().check("", ids[:, :2].numpy(), np.ones((1, 2), bool))


def test_routing_of_beams_is_that_of_the_returned_text(model: PreTrainedModel) -> None:
    ids, mask = prompts(7)
    how = {"num_beams": 4, "max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True}
    with torch.inference_mode(), Recorder(model) as recorder:
        output = model.generate(ids, attention_mask=mask, output_scores=True, **how)
    routing = recorder.routing(output.sequences, beam_indices=output.beam_indices)
    expected = teacher(model, output.sequences[0].tolist()[:-1])
    for name, layer in routing.items():
        assert (layer.experts[0] == expected[name][0]).all()
    with pytest.raises(CaptureError, match="were recorded|computed from another token"):
        recorder.routing(output.sequences)  # without beam_indices rows are not those of the text


def without(recording: Recording, column: int) -> Recording:
    """The recording with one row of its first sequence taken out by hand."""
    grid = recording.stacks[""].grid.copy()
    grid[0, column] = -1
    return replace(recording, stacks=dict(recording.stacks) | {"": StackRows(recording.stacks[""].rows, grid)})


@pytest.mark.parametrize("way", WAYS)
def test_routing_of_returned_sequences_holds_each_row(model: PreTrainedModel, way: str) -> None:
    ids, mask = prompts(*LENGTHS)
    recorder, output = generate(model, ids, mask, **{"max_new_tokens": 4} | WAYS[way])
    tokens, recording = output.sequences, recorder.recording()
    length = tokens.shape[1]
    for name, routing in recorder.routing(tokens).items():
        assert routing.experts.shape[:2] == (3, length - 1)
        assert (routing.experts == recorder.routing()[name].experts).all()
    for column in (0, length - 2):
        with pytest.raises(CaptureError, match=f"sequence 0 has no recorded row at position {column}"):
            without(recording, column).returned(tokens)
    # A text that went on after the last forward that was recorded, and one with another token.
    with pytest.raises(CaptureError, match="were recorded, but the text has"):
        recorder.routing(torch.cat([tokens, tokens[:, :1]], dim=1))
    other = tokens.clone()
    other[2, -2] += 1
    with pytest.raises(CaptureError, match=f"sequence 2, position {length - 2} was computed from another token"):
        recorder.routing(other)


@pytest.mark.parametrize("kind", ["prompt lookup", "a stranger"])
def test_a_rejected_draft_may_stand_at_the_place_of_the_last_token(model: PreTrainedModel, kind: str) -> None:
    ids = prompts(5)[0].repeat(1, 4) if kind == "prompt lookup" else prompts(8)[0]
    mask = torch.ones_like(ids)
    free = generate(model, ids, mask, max_new_tokens=16, do_sample=False)[1].sequences[0].tolist()
    stale = []
    for end in sorted(set(free[ids.shape[1] :])):
        recorder, output = generate(
            model, ids, mask, max_new_tokens=40, do_sample=False, eos_token_id=end, **draft(model, kind)
        )  # fmt: skip
        tokens = output.sequences
        last, recorded = tokens.shape[1] - 1, recorder.recording().stacks[""]
        if recorded.grid.shape[1] > last:
            stale.append(recorded.rows.token[recorded.grid[0, last]] != int(tokens[0, last]))
        expected = teacher(model, tokens[0, :-1].tolist())
        for name, routing in recorder.routing(tokens).items():
            assert routing.experts.shape[1] == last
            assert (routing.experts[0] == expected[name][0]).all()
    assert any(stale), "no rejected draft stood there"


def test_beams_that_ended_early_have_no_rows_and_need_none(model: PreTrainedModel) -> None:
    ids, mask = prompts(8, 4)
    how = {"max_new_tokens": 14, "do_sample": False, "num_beams": 4, "num_return_sequences": 4, "output_scores": True}
    end = int(generate(model, ids, mask, **how)[1].sequences[0, 14])
    recorder, output = generate(model, ids, mask, eos_token_id=end, **how)
    tokens, beams = output.sequences, output.beam_indices
    after = beams[:, 1:].numpy() < 0
    assert 0 < after.sum() < after.size
    assert not after.all(axis=0).any()
    for name, routing in recorder.routing(tokens, beam_indices=beams).items():
        absent = (routing.experts == -1).all(-1)
        assert (absent == np.pad(after, ((0, 0), (8, 0)))).all(), name
    # The best text may end sooner than the search did; its rows are wanted up to its own end.
    row = int(beams[0, 1])
    grid = recorder.recording().stacks[""].grid.copy()
    grid[row, 8] = -1
    recording = recorder.recording()
    cut = replace(recording, stacks={"": StackRows(recording.stacks[""].rows, grid)})
    with pytest.raises(CaptureError, match="no recorded row at position 8"):
        cut.returned(tokens, beams)


def test_embeddings_are_not_given_to_the_returned_tokens(model: PreTrainedModel) -> None:
    """generate returns new tokens only then, so column 0 would be the first of the prompt."""
    ids, mask = prompts(6)
    with torch.inference_mode(), Recorder(model) as recorder:
        tokens = model.generate(
            inputs_embeds=model.get_input_embeddings()(ids), attention_mask=mask, max_new_tokens=4, do_sample=False
        )
    assert tokens.shape == (1, 4)
    with pytest.raises(CaptureError, match="fed in as embeddings"):
        recorder.routing(tokens)
    assert recorder.routing()["L0"].experts.shape[:2] == (1, 9)


def test_a_recording_that_begins_on_a_filled_cache(model: PreTrainedModel) -> None:
    ids, _ = prompts(6)
    with torch.inference_mode():
        cache = model(input_ids=ids).past_key_values
        with Recorder(model) as recorder:
            model(input_ids=ids[:, :1], past_key_values=cache)
            assert recorder.recording().stacks[""].grid.tolist() == [[-1] * 6 + [0]]
            model(input_ids=ids)
            with pytest.raises(CaptureError, match=r"in the middle of a text.* clear\(\)"):
                recorder.recording()
            recorder.clear()
            model(input_ids=ids)
            assert recorder.recording().stacks[""].grid.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_two_texts_in_one_recording_are_noticed(model: PreTrainedModel) -> None:
    first, mask = prompts(6, seed=1)
    second, _ = prompts(6, seed=2)
    with torch.inference_mode(), Recorder(model) as recorder:
        model.generate(first, attention_mask=mask, max_new_tokens=3)
        model.generate(second, attention_mask=mask, max_new_tokens=3)
        with pytest.raises(CaptureError, match=r"clear\(\)"):
            recorder.recording()


def test_a_loop_that_writes_tokens_into_one_tensor(model: PreTrainedModel) -> None:
    token, cache, fed = torch.tensor([[5]]), None, []
    with torch.inference_mode(), Recorder(model) as recorder:
        for value in (5, 9, 11):
            token.fill_(value)
            fed.append(value)
            cache = model(input_ids=token, past_key_values=cache, use_cache=True).past_key_values
    assert recorder.recording().stacks[""].rows.token.tolist() == fed
