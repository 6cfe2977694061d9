"""Runs: what is recorded equals an independent teacher-forced forward, for every family, batch and padding."""

from pathlib import Path

import numpy as np
import pytest
import torch

from moeprobe.chat.pieces import decode_pieces
from moeprobe.engines import Decoding, record
from moeprobe.errors import CaptureError, ModelError, MoeprobeError, OutputError, PromptError
from moeprobe.models import LoadedModel, load_model
from moeprobe.models.compiled import FAMILIES
from moeprobe.prompts import Prompt
from moeprobe.trace import SEGMENTS, Trace
from tests.engines.routing import check_against_teacher_forcing, independent_routing, sequences


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_equal_teacher_forcing(family: str, compiled_prompts: list[Prompt], tmp_path: Path) -> None:
    loaded = load_model(f"compiled:{family}")
    decoding = Decoding(max_new_tokens=10, sample=True, batch_size=5, samples=2)
    trace = record(loaded, compiled_prompts[:6], tmp_path / "a.trace", decoding=decoding)
    assert trace.manifest.generations == 12
    assert len({one.prompt_rows for one in trace.generations}) > 1  # batches were padded
    check_against_teacher_forcing(loaded, trace)


def test_the_check_against_teacher_forcing_bites(compiled: LoadedModel, compiled_trace: Trace) -> None:
    ids, experts, _ = sequences(compiled_trace)[0]
    shifted = independent_routing(compiled, [ids[0], *ids[:-1]])
    assert any((experts[layer] != index).any() for layer, (index, _) in shifted.items())


def test_prefill_and_decode_are_kept_apart(compiled_trace: Trace) -> None:
    for shard in compiled_trace.shards():
        answers = shard.segment == SEGMENTS.index("answer")
        assert (answers == (shard.phase == 1)).all()
        prompts = {one.index: one.prompt_rows for one in compiled_trace.generations}
        assert (answers == (shard.position >= np.array([prompts[g] for g in shard.generation]))).all()


def test_the_last_token_has_no_row(compiled_trace: Trace) -> None:
    for one in compiled_trace.generations:
        assert one.answer_rows == one.generated - 1


def test_offsets_give_back_the_text(compiled_trace: Trace) -> None:
    frame = compiled_trace.selection_frame([0])
    first = frame[(frame["rank"] == 0)]
    for one in compiled_trace.generations[:5]:
        mine = first[first["generation"] == one.index]
        assert "".join(mine[mine["segment"] == "prompt"]["token"]) == one.prompt_text
        assert one.text.startswith("".join(mine[mine["segment"] == "answer"]["token"]))


def test_greedy_runs_repeat_and_seeds_matter(
    compiled: LoadedModel, compiled_prompts: list[Prompt], tmp_path: Path
) -> None:
    def texts(name: str, **options: object) -> list[str]:
        decoding = Decoding(max_new_tokens=8, **options)  # type: ignore[arg-type]
        run = record(compiled, compiled_prompts[:4], tmp_path / name, decoding=decoding)
        return [one.text for one in run.generations]

    assert texts("a") == texts("b")
    drawn = texts("c", sample=True, seed=1)
    assert drawn == texts("d", sample=True, seed=1)
    assert drawn != texts("e", sample=True, seed=2)


def test_rows_after_the_end_are_dropped(compiled: LoadedModel, compiled_prompts: list[Prompt], tmp_path: Path) -> None:
    config = compiled.model.generation_config
    original = config.eos_token_id
    config.eos_token_id = compiled.tokenizer.convert_tokens_to_ids("the")
    try:
        trace = record(
            compiled, compiled_prompts[:8], tmp_path / "a.trace", decoding=Decoding(max_new_tokens=12, sample=True)
        )
    finally:
        config.eos_token_id = original
    stops = {one.stop for one in trace.generations}
    assert stops == {"eos", "length"}
    assert len({one.generated for one in trace.generations}) > 2
    for one in trace.generations:
        assert (one.stop == "eos") == (one.last_token == compiled.tokenizer.convert_tokens_to_ids("the"))
        assert " the" not in f" {one.text}".replace("they", "") or one.stop == "length"
    check_against_teacher_forcing(compiled, trace)


def test_manifest_says_how_it_was_made(compiled_trace: Trace) -> None:
    manifest = compiled_trace.manifest
    assert manifest.model["family"] == "qwen3_moe"
    assert manifest.engine["experts_implementation"] == "eager"
    assert manifest.decoding["seed"] == 0
    assert manifest.prompts["count"] == 60
    assert manifest.versions["torch"] == torch.__version__
    assert [info.k for info in manifest.layers] == [2] * 4
    assert all(info.experts == 8 for info in manifest.layers)


def test_mistakes_are_named(compiled: LoadedModel, compiled_trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no prompts"):
        record(compiled, [], tmp_path / "a")
    chat = Prompt("c", messages=({"role": "user", "content": "hi"},))
    with pytest.raises(PromptError, match="no chat template"):
        record(compiled, [chat], tmp_path / "a")
    with pytest.raises(PromptError, match="no token"):
        record(compiled, [Prompt("empty", prompt="")], tmp_path / "a")
    with pytest.raises(ModelError, match="positions"):
        record(compiled, [Prompt("a", prompt="question")], tmp_path / "a", decoding=Decoding(max_new_tokens=10**6))
    with pytest.raises(OutputError, match="exists already"):
        record(compiled, [Prompt("a", prompt="question")], compiled_trace.path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"samples": 2}, {"temperature": 0.5}, {"sample": True, "top_p": 0}, {"sample": True, "temperature": 0},
     {"max_new_tokens": 0}],
)  # fmt: skip
def test_impossible_decoding(wrong: dict[str, object]) -> None:
    with pytest.raises(MoeprobeError, match="--"):
        Decoding(**wrong)  # type: ignore[arg-type]


class Bytes:
    """A byte-level tokenizer: one id per UTF-8 byte."""

    def decode(self, ids: list[int], **_: object) -> str:
        return bytes(ids).decode("utf-8", "replace")


@pytest.mark.parametrize(
    "text", ["plain", "na\u00efve \u4e2d\u6587", "\U0001f469\u200d\U0001f680!", "e\u0301 \u05e9\u05dc\u05d5\u05dd"]
)
def test_pieces_of_a_byte_tokenizer_cover_the_text(text: str) -> None:
    raw = list(text.encode())
    pieces = decode_pieces(Bytes(), raw)  # type: ignore[arg-type]
    assert pieces.text == text
    assert pieces.start[0] == 0
    assert pieces.end[-1] == len(text)
    for index in range(len(raw)):
        # Every byte covers exactly the character it belongs to.
        character = len(bytes(raw[: index + 1]).decode("utf-8", "ignore"))
        start = character if bytes(raw[: index + 1]).decode("utf-8", "replace").endswith("\ufffd") else character - 1
        assert (pieces.start[index], pieces.end[index]) == (start, start + 1)
    with_cut = decode_pieces(Bytes(), list("a\u4e2d".encode())[:-1])  # type: ignore[arg-type]
    assert with_cut.text == "a\ufffd"


@pytest.mark.parametrize(
    "own", [{"num_beams": 2}, {"no_repeat_ngram_size": 1}, {"suppress_tokens": [19]}, {"num_return_sequences": 2}]
)
def test_the_models_own_generation_settings_do_not_leak_in(
    own: dict[str, object], compiled_prompts: list[Prompt], tmp_path: Path
) -> None:
    loaded = load_model("compiled")
    decoding = Decoding(max_new_tokens=6)
    clean = record(loaded, compiled_prompts[:4], tmp_path / "clean", decoding=decoding)
    for name, value in own.items():
        setattr(loaded.model.generation_config, name, value)
    dirty = record(loaded, compiled_prompts[:4], tmp_path / "dirty", decoding=decoding)
    assert [one.text for one in dirty.generations] == [one.text for one in clean.generations]
    check_against_teacher_forcing(loaded, dirty)
    for name, value in own.items():
        assert getattr(loaded.model.generation_config, name) == value  # put back


def test_weight_sum_is_the_mean_over_recorded_tokens(compiled_prompts: list[Prompt], tmp_path: Path) -> None:
    loaded = load_model("compiled:qwen2_moe")  # not renormalised: the sums differ between tokens
    run = record(loaded, compiled_prompts[:15], tmp_path / "a", decoding=Decoding(max_new_tokens=5, batch_size=6))
    frame = run.selection_frame([1])
    sums = frame.groupby(["generation", "position"])["weight"].sum()
    assert sums.std() > 0
    assert run.manifest.layers[1].weight_sum == pytest.approx(sums.mean(), abs=1e-6)


def test_nan_router_weights_are_said(compiled_prompts: list[Prompt], tmp_path: Path) -> None:
    loaded = load_model("compiled")
    with torch.no_grad():
        loaded.model.get_submodule("model.layers.2.mlp.gate").weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match=r"L2: .*NaN"):
        record(loaded, compiled_prompts[:2], tmp_path / "a", decoding=Decoding(max_new_tokens=2))
    assert list(tmp_path.iterdir()) == []
