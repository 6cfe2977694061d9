"""Reruns: exact where they must be, and every planted difference found, with the right numbers."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moeprobe.engines import Decoding, record
from moeprobe.engines.session import Job, Session
from moeprobe.errors import CaptureError, ModelError, OutputError, TraceError
from moeprobe.models import LoadedModel, load_model
from moeprobe.prompts import Prompt
from moeprobe.rerun.repeating import rerun
from moeprobe.rerun.replay import Encoding, same_ids_today
from moeprobe.rerun.sensitive import FlagSource
from moeprobe.rerun.setting import Setting, compare_weights, decoding_of, put_back
from moeprobe.trace import Generation, Routing, ShardData, Trace, load_trace, merge, validate
from tests.chat.chat_templates import LLAMA3
from tests.engines.tiny_moe import CHOICES, EXPERTS, LAYERS, prompts, routed, save_model, set_template
from tests.rerun.rewriting import rewritten


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(str(folder), device_map="cpu")


@pytest.fixture(scope="module")
def run(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    out = tmp_path_factory.mktemp("runs") / "tiny.trace"
    decoding = Decoding(max_new_tokens=16, sample=True, samples=2, batch_size=5, seed=7)
    return record(loaded, prompts(12), out, decoding=decoding)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"sample": True, "temperature": 0.8, "top_p": 0.9, "samples": 3, "seed": 5},
    "beams": {"beams": 3, "samples": 2, "batch_size": 7},
    "chunks": {"prefill_chunk": 5, "batch_size": 1},
    "lookup": {"prompt_lookup": 3},
    "static": {"cache": "static"},
    "continuous": {"continuous": True},
    "stopped": {"stop": ("e", "1"), "sample": True, "trim_loops": False},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_repeats_exactly(loaded: LoadedModel, tmp_path: Path, way: str) -> None:
    decoding = Decoding(**{"max_new_tokens": 10, "batch_size": 4, **WAYS[way]})
    trace = record(loaded, prompts(6), tmp_path / "a.trace", decoding=decoding)
    assert len({one.prompt_rows for one in trace.generations}) > 1  # padding, wherever there are batches
    torch.manual_seed(99)  # nothing may hang on the state of the generator
    result = rerun(trace, load_model(loaded.id, device_map="cpu"))
    assert result.repeats
    assert result.sentence == "The run repeats exactly."
    assert result.comparison.compared == result.comparison.rows == trace.manifest.rows
    assert result.comparison.total().weight_difference == 0
    assert result.setting == Setting("same", "checked: every byte", ())
    assert result.prompts == {"same": 6, "other": 0, "unknown": 0}
    json.dumps(result.to_json(), allow_nan=False)


def test_the_compiled_model_repeats(compiled: LoadedModel, compiled_trace: Trace) -> None:
    result = rerun(compiled_trace, compiled)
    assert (result.sentence, result.setting.weights) == ("The run repeats exactly.", "same")
    forced = rerun(compiled_trace, compiled, teacher_forced=True)
    assert forced.repeats
    assert forced.comparison.compared == compiled_trace.manifest.rows
    assert forced.sentence.startswith("The routing of these tokens repeats")


def test_the_seed_matters(loaded: LoadedModel, run: Trace, tmp_path: Path) -> None:
    """The exact repeat above is no accident: with another seed other tokens come out."""
    result = rerun(rewritten(run, tmp_path / "a", decoding={**run.manifest.decoding, "seed": 8}), loaded)
    assert not result.repeats
    assert len(result.comparison.divergences) > 12
    assert result.sentence.startswith(f"Tokens differ in {len(result.comparison.divergences)} of 24 generations")


def counted(trace: Trace, loaded: LoadedModel) -> dict[str, np.ndarray]:
    """Flips, tokens, gate-sensitive tokens and gate-sensitive flips per layer, by code of the test's own."""
    found = np.zeros((LAYERS, 4), dtype=np.int64)
    shards = list(trace.shards())
    for one in trace.generations:
        rows = slice(one.first_row, one.first_row + one.rows)
        now, flags = routed(loaded, shards[one.shard].token_id[rows].tolist())
        for layer in range(LAYERS):
            then = shards[one.shard].experts(layer)[rows]
            flips = np.array([set(a) != set(b) for a, b in zip(then.tolist(), now[layer].tolist(), strict=True)])
            sensitive = flags[layer]
            found[layer] += [flips.sum(), len(flips), sensitive.sum(), (flips & sensitive).sum()]
    return dict(zip(("flips", "tokens", "sensitive", "sensitive_flips"), found.T, strict=True))


def test_bfloat16_flips_are_counted_and_mostly_gate_sensitive(run: Trace, folder: Path) -> None:
    half = load_model(str(folder), dtype="bfloat16", device_map="cpu")
    result = rerun(run, half, teacher_forced=True)
    expected = counted(run, half)
    layers = [result.comparison.layers[f"L{n}"] for n in range(LAYERS)]
    for name, numbers in expected.items():
        assert [getattr(layer, name) for layer in layers] == numbers.tolist(), name
    flips, tokens, sensitive, both = (int(numbers.sum()) for numbers in expected.values())
    assert flips > 30
    assert both / flips > 4 * sensitive / tokens
    assert both / flips > 0.75
    assert not result.repeats
    assert "gate-sensitive" in result.sentence
    assert {one.field for one in result.setting.differences} == {"engine.dtype", "engine.dtypes"}
    assert result.setting.weights == "same"  # the files are; the number format is another thing
    live = rerun(run, half)
    assert live.comparison.divergences
    assert 0 < live.comparison.compared < live.comparison.rows
    total = live.comparison.total()
    assert (total.sensitive_flips or 0) / total.flips > 4 * (total.sensitive or 0) / total.tokens


def test_whose_flags_are_used(run: Trace, loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    """The run in the coarser number format decides."""
    half = load_model(str(folder), dtype="bfloat16", device_map="cpu")
    fine = record(loaded, prompts(4), tmp_path / "a", decoding=Decoding(max_new_tokens=8), what=("margin",))
    coarse = record(half, prompts(4), tmp_path / "b", decoding=Decoding(max_new_tokens=8), what=("margin",))
    flags = {
        trace: sum(int(shard.signal(f"L{n}.gate_sensitive").sum()) for shard in trace.shards() for n in range(LAYERS))
        for trace in (fine, coarse)
    }
    assert flags[coarse] > 20 > flags[fine]
    same = rerun(coarse, half, teacher_forced=True).comparison.total()
    assert same.sensitive == flags[coarse]
    assert rerun(coarse, loaded, teacher_forced=True).comparison.total().sensitive == flags[coarse]
    assert (rerun(fine, half, teacher_forced=True).comparison.total().sensitive or 0) > 20
    bare = record(half, prompts(4), tmp_path / "c", decoding=Decoding(max_new_tokens=8))
    noted = rerun(bare, loaded, teacher_forced=True)
    assert any("finer than the run's" in note for note in noted.notes)


def altered(folder: Path, out: Path) -> Path:
    """A copy whose router of layer 1 has one number changed."""
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    tensors["model.layers.1.mlp.gate.weight"][3, 5] += 4.0
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def test_an_altered_weight_is_refused_and_then_reported(run: Trace, folder: Path, tmp_path: Path) -> None:
    other = load_model(str(altered(folder, tmp_path / "other")), device_map="cpu")
    seen: list[Any] = []
    with pytest.raises(ModelError, match=r"other weights.*model\.safetensors has another digest.*--allow-other-model"):
        rerun(run, other, announce=seen.append, progress=lambda done, total: seen.append(done))
    assert [one.weights for one in seen] == ["other"]  # said before anything ran
    result = rerun(run, other, allow_other_model=True, teacher_forced=True)
    expected = counted(run, other)
    assert expected["flips"][0] == 0 < expected["flips"][1]
    assert [layer.flips for layer in result.comparison.layers.values()] == expected["flips"].tolist()
    assert result.sentence.startswith("With other weights: ")
    assert not result.repeats


def test_another_model_is_refused_whatever_is_allowed(run: Trace, compiled: LoadedModel) -> None:
    with pytest.raises(ModelError, match=r"L0 had 16 experts.*it has 8"):
        rerun(run, compiled, allow_other_model=True)


def _shuffled_rows(data: ShardData, mine: list[Generation]) -> tuple[ShardData, list[Generation]]:
    one = data.routing["L1"]
    order = np.random.default_rng(0).permutation(data.rows)
    return replace(data, routing={**data.routing, "L1": Routing(one.experts[order], one.weights[order])}), mine


def _shuffled_choices(data: ShardData, mine: list[Generation]) -> tuple[ShardData, list[Generation]]:
    one = data.routing["L1"]
    return replace(data, routing={**data.routing, "L1": Routing(one.experts[:, ::-1], one.weights)}), mine


def _one_choice(data: ShardData, mine: list[Generation]) -> tuple[ShardData, list[Generation]]:
    if mine[0].index:
        return data, mine
    ids = data.routing["L2"].experts.copy()
    ids[3, 1] = next(expert for expert in range(EXPERTS) if expert not in ids[3])
    return replace(data, routing={**data.routing, "L2": Routing(ids, data.routing["L2"].weights)}), mine


def test_shuffled_ids_are_no_match(run: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    rows = rerun(rewritten(run, tmp_path / "a", _shuffled_rows), loaded)
    assert not rows.repeats
    assert rows.sentence.startswith("Tokens match; ")
    assert "in 1 of 3 layers" in rows.sentence
    flips = {name: layer.flips for name, layer in rows.comparison.layers.items()}
    assert (flips["L0"], flips["L2"]) == (0, 0)
    assert flips["L1"] > 0.8 * run.manifest.rows
    # Such flips are not explained by close calls.
    assert (rows.comparison.layers["L1"].sensitive_flips or 0) < 0.1 * flips["L1"]

    choices = rerun(rewritten(run, tmp_path / "b", _shuffled_choices), loaded)
    layer = choices.comparison.layers["L1"]
    assert (layer.flips, layer.reordered) == (0, run.manifest.rows)
    assert layer.weight_difference > 0.01  # the ids moved away from their weights
    assert not choices.repeats
    assert "in another order" in choices.sentence

    single = rerun(rewritten(run, tmp_path / "c", _one_choice), loaded)
    total = single.comparison.total()
    assert (total.flips, total.selections - total.agree) == (1, 1)
    assert single.comparison.layers["L2"].flips == 1
    assert not single.repeats
    assert "below 0.1 % " not in single.sentence
    assert f"{100 / (3 * run.manifest.rows):.2g} % of the choices flip, in 1 of 3 layers" in single.sentence


def test_other_tokens_are_found_at_their_place(run: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    chosen, place = 4, 6
    victim = run.generations[chosen]

    def token(data: ShardData, mine: list[Generation]) -> tuple[ShardData, list[Generation]]:
        columns = dict(data.columns)
        rows = np.flatnonzero((columns["generation"] == chosen) & (columns["position"] == victim.prompt_rows + place))
        columns["token_id"][rows] ^= 1
        return replace(data, columns=columns), mine

    def last(data: ShardData, mine: list[Generation]) -> tuple[ShardData, list[Generation]]:
        return data, [replace(one, last_token=one.last_token ^ 1) if one.index == chosen else one for one in mine]

    assert victim.answer_rows > place
    result = rerun(rewritten(run, tmp_path / "a", token), loaded)
    (found,) = result.comparison.divergences
    assert (found.index, found.token, found.prompt_id) == (chosen, place, victim.prompt_id)
    assert (found.then or 0) ^ (found.now or 0) == 1
    # Rows up to the token before it, and no further.
    assert result.comparison.rows - result.comparison.compared == victim.answer_rows - place
    assert "before they differ, routing is the same" in result.sentence
    assert not result.repeats
    result = rerun(rewritten(run, tmp_path / "b", last), loaded)
    (found,) = result.comparison.divergences
    assert found.token == victim.generated - 1
    assert result.comparison.compared == result.comparison.rows


def test_the_traces_own_ids_are_used_whatever_the_template_does(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    then = load_model(str(copy), device_map="cpu")
    chat = Prompt("chat", messages=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}))
    trace = record(then, [*prompts(5), chat], tmp_path / "a.trace", decoding=Decoding(max_new_tokens=8))
    set_template(copy, LLAMA3)
    result = rerun(trace, load_model(str(copy), device_map="cpu"))
    assert result.repeats
    assert result.prompts == {"same": 0, "other": 6, "unknown": 0}
    fields = {one.field for one in result.setting.differences}
    assert {"tokenizer.template_digest", "model.files.chat_template.jinja"} <= fields


def test_raw_prompts_are_read_back(loaded: LoadedModel, tmp_path: Path) -> None:
    trace = record(loaded, prompts(3), tmp_path / "a.trace", decoding=Decoding(max_new_tokens=4), raw=True)
    result = rerun(trace, loaded)
    assert (result.repeats, result.prompts["same"]) == (True, 3)
    encoding = Encoding.of(loaded, trace.manifest, "a.trace")
    assert encoding.raw
    half = loaded.tokenizer.convert_tokens_to_ids("\u00c3")  # the byte C3, half of a character
    assert not same_ids_today(encoding, Job(Prompt("p", "abc"), 0, [half]))


def test_the_setting_is_put_back_and_taken_away_again(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(str(folder), device_map="cpu")
    loaded.model.set_experts_implementation("batched_mm")
    trace = record(loaded, prompts(5), tmp_path / "a.trace", decoding=Decoding(max_new_tokens=12))
    assert trace.manifest.engine["experts_implementation"] == "batched_mm"
    now = load_model(str(folder), device_map="cpu")
    before = now.model.config._experts_implementation
    now.model.generation_config.eos_token_id = [trace.generations[0].last_token]
    result = rerun(trace, now)
    assert (result.repeats, result.setting.differences) == (True, ())
    assert now.model.config._experts_implementation == before != "batched_mm"
    assert now.end_tokens == {trace.generations[0].last_token}
    threads = torch.get_num_threads()
    manifest = replace(trace.manifest, engine={**trace.manifest.engine, "threads": threads + 1})
    with put_back(now, manifest, "a"):
        assert torch.get_num_threads() == threads + 1
    assert torch.get_num_threads() == threads


def test_the_pad_token_is_put_back(run: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    before = loaded.pad_token
    other = rewritten(run, tmp_path / "a", decoding={**run.manifest.decoding, "pad_token": 65})
    with put_back(loaded, other.manifest, "a"):
        assert loaded.pad_token == 65
    assert loaded.pad_token == before
    assert rerun(other, loaded).repeats  # padding is masked, so it changes nothing


def test_drafted_runs_need_their_assistant(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    helper = load_model(str(folder), device_map="cpu")
    decoding = Decoding(max_new_tokens=8, assistant="helper")
    trace = record(loaded, prompts(3), tmp_path / "a", decoding=decoding, assistant=helper)
    result = rerun(trace, loaded, assistant=helper)
    assert (result.repeats, result.setting.differences) == (True, ())
    with pytest.raises(CaptureError, match=r"Decoding\.assistant"):
        rerun(trace, loaded)
    engine = {**trace.manifest.engine, "assistant": {**helper.provenance, "family": "llama"}}
    other = rewritten(trace, tmp_path / "b", engine=engine)
    found = {one.field for one in rerun(other, loaded, assistant=helper).setting.differences}
    assert found == {"engine.assistant.family"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_p": 0.1}, "'min_p', which this moeprobe does not know.*upgrade"),
        ({"beams": "2"}, "decoding beams is '2'"),
        ({"sample": 1}, "decoding sample"),
        ({"stop": [1]}, "decoding stop"),
        ({"temperature": -1.0}, "cannot be: --temperature"),
        ({"end_tokens": ["x"]}, "end_tokens must be token ids"),
        ({"end_tokens": [10**6]}, "end_tokens names token 1000000"),
        ({"seed": None}, "decoding seed is 'None'"),
    ],
)
def test_decoding_that_cannot_be_repeated(
    run: Trace, loaded: LoadedModel, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    trace = rewritten(run, tmp_path / "a", decoding={**run.manifest.decoding, **change})
    with pytest.raises(TraceError, match=said):
        rerun(trace, loaded)


def test_decoding_reads_back_what_it_wrote() -> None:
    decoding = Decoding(sample=True, temperature=0.5, top_p=0.25, samples=2, seed=9, stop=("a", "b"))
    assert decoding_of(json.loads(json.dumps(decoding.to_json())), "x") == decoding
    early = {name: value for name, value in decoding.to_json().items() if name not in ("continuous", "trim_loops")}
    assert decoding_of(early, "x") == decoding  # made before these came
    del early["seed"]
    with pytest.raises(TraceError, match="does not say its 'seed'"):
        decoding_of(early, "x")


def test_merged_runs_are_refused_live(run: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    merged = rewritten(run, tmp_path / "a", merged=({"run": 1}, {"run": 2}))
    with pytest.raises(TraceError, match=r"merged from 2 runs.*--teacher-forced"):
        rerun(merged, loaded)
    assert rerun(merged, loaded, teacher_forced=True).repeats
    with pytest.raises(TraceError, match="no run to write"):
        rerun(run, loaded, teacher_forced=True, out=tmp_path / "b")


def test_a_hostile_trace_is_refused(run: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    section = {**run.manifest.tokenizer, "template_options": {"chat_template": "{{ 1 }}"}}
    with pytest.raises(TraceError, match="template_options"):
        rerun(rewritten(run, tmp_path / "a", tokenizer=section), loaded)

    def foreign(data: ShardData, mine: list[Generation]) -> tuple[ShardData, list[Generation]]:
        data.columns["token_id"][2] = 10**6
        return data, mine

    with pytest.raises(TraceError, match="token 1000000, but the model knows"):
        rerun(rewritten(run, tmp_path / "b", foreign), loaded)
    with pytest.raises(TraceError, match="more than its decoding parameters give"):
        rerun(rewritten(run, tmp_path / "c", decoding={**run.manifest.decoding, "batch_size": 2}), loaded)


def test_an_interrupted_run_is_compared_as_far_as_it_goes(loaded: LoadedModel, tmp_path: Path) -> None:
    class Interruption(Exception):  # noqa: N818  # like KeyboardInterrupt
        pass

    def stop(done: int, total: int, tokens: int) -> None:
        if done >= 6:
            raise Interruption

    with pytest.raises(Interruption):
        record(
            loaded, prompts(9), tmp_path / "a.trace", progress=stop,
            decoding=Decoding(max_new_tokens=6, sample=True, batch_size=3),
        )  # fmt: skip
    half = load_trace(tmp_path / "a.trace.partial", incomplete=True)
    assert half.manifest.generations == 6
    result = rerun(half, loaded)
    assert (result.repeats, result.comparison.generations) == (True, 6)


def test_a_limit_keeps_whole_batches(run: Trace, loaded: LoadedModel) -> None:
    result = rerun(run, loaded, limit=6)
    assert result.comparison.generations == 10  # two batches of five
    assert result.repeats


def test_the_rerun_can_be_written(run: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    result = rerun(run, loaded, out=tmp_path / "b.trace")
    again = load_trace(tmp_path / "b.trace")
    assert result.repeats
    assert validate(again.path).valid
    assert again.manifest.prompts["rerun_of"] == run.digest
    texts = [[(one.text, one.prompt_text, one.trims) for one in trace.generations] for trace in (run, again)]
    assert texts[0] == texts[1]
    for old, new in zip(run.shards(), again.shards(), strict=True):
        assert np.array_equal(old.segment, new.segment)
        assert np.array_equal(old.token_id, new.token_id)
        for layer in range(LAYERS):
            assert np.array_equal(old.experts(layer), new.experts(layer))
            assert old.experts(layer).shape[1] == CHOICES
    assert rerun(again, loaded).repeats


def test_weights_are_told_apart(run: Trace, loaded: LoadedModel) -> None:
    then = run.manifest.model
    assert compare_weights(then, loaded)[0] == "same"
    assert compare_weights({**then, "config_digest": "sha256:0"}, loaded) == ("other", "its config differs")
    assert compare_weights({**then, "family": "olmoe"}, loaded)[0] == "other"
    assert compare_weights({**then, "files": None}, loaded)[0] == "unknown"
    kinds = {**then["files"], "model.safetensors": "sampled:00"}
    verdict, why = compare_weights({**then, "files": kinds}, loaded)
    assert verdict == "unknown"
    assert "sampled then, sha256 now" in why
    more = {**then["files"], "model-2.safetensors": "sha256:0"}
    assert compare_weights({**then, "files": more}, loaded) == ("other", "model-2.safetensors is missing now")
    whole = {"model.safetensors": then["files"]["model.safetensors"]}
    assert compare_weights({**then, "weights_sha256": whole}, loaded) == (
        "same", "checked: every byte of the weight files",
    )  # fmt: skip
    wrong = {"model.safetensors": "sha256:0"}
    assert compare_weights({**then, "weights_sha256": wrong}, loaded)[0] == "other"


@pytest.fixture(scope="module")
def short(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Trace:
    decoding = Decoding(max_new_tokens=4, batch_size=2)
    return record(loaded, prompts(4), tmp_path_factory.mktemp("short") / "short.trace", decoding=decoding)


def test_merged_draws_are_compared_teacher_forced(loaded: LoadedModel, tmp_path: Path) -> None:
    """The runs' decodings differ, so that of the merge holds lists, which no single run could have."""
    ways = [{"seed": 0, "temperature": 0.5}, {"seed": 1, "batch_size": 3}, {"seed": 2, "samples": 2, "batch_size": 4}]
    decodings = [Decoding(max_new_tokens=4, sample=True, **way) for way in ways]
    runs = [record(loaded, prompts(4), tmp_path / f"{n}.trace", decoding=one) for n, one in enumerate(decodings)]
    merged = merge([one.path for one in runs], tmp_path / "m.trace", allow_different_decoding=True)
    assert merged.manifest.decoding["seed"] == [0, 1, 2]
    with pytest.raises(TraceError, match=r"merged from 3 runs.*--teacher-forced"):
        rerun(merged, loaded)
    result = rerun(merged, loaded, teacher_forced=True)
    assert result.repeats
    assert result.setting.differences == ()
    assert result.comparison.compared == merged.manifest.rows
    planted = rerun(rewritten(merged, tmp_path / "p.trace", _one_choice), loaded, teacher_forced=True)
    assert planted.comparison.total().flips == 1


def test_what_is_being_read_is_not_replaced(short: Trace, loaded: LoadedModel, tmp_path: Path) -> None:
    trace = load_trace(shutil.copytree(short.path, tmp_path / "a.trace"))
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for out in (trace.path, tmp_path / "link" / "a.trace"):
        with pytest.raises(OutputError, match="being read"):
            rerun(trace, loaded, limit=1, out=out, force=True)
    part = load_trace(trace.path.rename(tmp_path / "b.trace.partial"), incomplete=True)
    with pytest.raises(OutputError, match="being read"):
        rerun(part, loaded, out=tmp_path / "b.trace", force=True)
    assert load_trace(part.path, incomplete=True).digest == short.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.trace.partial", "link"]


def test_layers_that_were_chosen_are_repeated(loaded: LoadedModel, tmp_path: Path) -> None:
    decoding = Decoding(max_new_tokens=4)
    trace = record(loaded, prompts(3), tmp_path / "a.trace", decoding=decoding, layers=[0, 2])
    assert trace.manifest.engine["layers"] == ["L0", "L2"]
    result = rerun(trace, loaded, out=tmp_path / "b.trace")
    assert (result.repeats, result.setting.differences, set(result.comparison.layers)) == (True, (), {"L0", "L2"})
    again = load_trace(tmp_path / "b.trace").manifest
    assert again.engine == trace.manifest.engine
    assert [info.name for info in again.layers] == ["L0", "L2"]


def failing(monkeypatch: pytest.MonkeyPatch, batch: int | None, before: Any = None) -> None:
    """Margins are asked for, and fail: at a batch, or (None) before there is a writer, when `before` happens."""
    module = sys.modules["moeprobe.rerun.repeating"]

    class Failing(Session):
        def __init__(self, *args: Any, **options: Any) -> None:
            self.margins = "margin" in args[3]
            if self.margins and batch is None:
                if before is not None:
                    before()
                raise CaptureError("No margins.")
            super().__init__(*args, **options)

        def generate(self, jobs: list[Job], *, number: int) -> Any:
            if self.margins and number == batch:
                raise CaptureError("No margins.")
            return super().generate(jobs, number=number)

    monkeypatch.setattr(module, "Session", Failing)
    monkeypatch.setattr(module, "choose_flags", lambda *_, **__: FlagSource(False, ("margin",)))


@pytest.mark.parametrize("batch", [None, 0, 1])
def test_without_margins_the_rerun_is_written_anew(
    short: Trace, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int | None
) -> None:
    failing(monkeypatch, batch)
    result = rerun(short, loaded, out=tmp_path / "a.trace")
    assert result.repeats
    assert result.notes == ("Gate-sensitive choices are not known. No margins.",)
    assert load_trace(tmp_path / "a.trace").manifest.generations == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.trace"]


def test_without_margins_nothing_is_replaced_unasked(
    short: Trace, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stands(name: str) -> bytes:
        return (tmp_path / name / "run.json").read_bytes()

    shutil.copytree(short.path, tmp_path / "a.trace")
    failing(monkeypatch, None)
    with pytest.raises(OutputError, match="exists already"):
        rerun(short, loaded, out=tmp_path / "a.trace")
    # Another process's, which came after the first look.
    for name in ("b.trace", "c.trace.partial"):
        failing(monkeypatch, None, lambda name=name: shutil.copytree(short.path, tmp_path / name))
        with pytest.raises(OutputError, match=r"exists already|interrupted run"):
            rerun(short, loaded, out=tmp_path / name.removesuffix(".partial"))
    assert {stands(name) for name in ("a.trace", "b.trace", "c.trace.partial")} == {
        (short.path / "run.json").read_bytes()
    }
    monkeypatch.undo()
    failing(monkeypatch, 1)
    assert rerun(short, loaded, out=tmp_path / "a.trace", force=True).repeats
    assert stands("a.trace") != stands("b.trace")
