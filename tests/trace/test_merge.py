"""Merging: counts add up, prompts of different runs stay apart, and only runs of one model merge."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from store_samples import LAYERS, batch, make, manifest

from moeprobe.cli.main import cli
from moeprobe.correlate.counts import count, segment_lengths
from moeprobe.errors import MoeprobeError, OutputError, TraceError
from moeprobe.trace import Trace, TraceWriter, count_experts, load_trace, merge

SAMPLED = {"sample": True, "temperature": 1.0}


def drawn(path: Path, seed: int, batches: int = 2, **changes: Any) -> Trace:
    return make(path, batches, seed=seed, **{"decoding": {**SAMPLED, "seed": seed}, **changes})


def renamed(path: Path, seed: int, start: int) -> Trace:
    """A run of other prompts."""
    data, records = batch(0, 4, seed)
    with TraceWriter(path) as writer:
        records = [replace(one, prompt_id=f"q{start + one.index}") for one in records]
        writer.add(data, records, manifest(decoding={**SAMPLED, "seed": seed}))
        writer.finish()
    return load_trace(path)


def test_counts_are_additive(tmp_path: Path) -> None:
    runs = [drawn(tmp_path / "a.trace", 0), renamed(tmp_path / "b.trace", 1, 0), renamed(tmp_path / "c.trace", 2, 9)]
    merged = merge([run.path for run in runs], tmp_path / "m.trace")
    merged.verify()
    assert merged.manifest.rows == sum(run.manifest.rows for run in runs)
    for segment in (None, "answer"):
        whole = count_experts(merged, by="label", segment=segment)
        parts = [count_experts(run, by="label", segment=segment) for run in runs]
        assert whole.groups == (0, 1) == parts[0].groups
        np.testing.assert_array_equal(whole.tokens, sum(part.tokens for part in parts))
        for name, selected in whole.selected.items():
            np.testing.assert_array_equal(selected, sum(part.selected[name] for part in parts))
    # the counts that correlate makes, generation by generation
    whole_counts = count(merged, "answer", segment_lengths(merged, "answer"))
    counts = [count(run, "answer", segment_lengths(run, "answer")) for run in runs]
    np.testing.assert_array_equal(whole_counts.selected, np.concatenate([one.selected for one in counts]))
    np.testing.assert_array_equal(whole_counts.gate, np.concatenate([one.gate for one in counts]))


def test_weight_sums_are_those_of_all_rows(tmp_path: Path) -> None:
    runs = [drawn(tmp_path / "a.trace", 0), renamed(tmp_path / "b.trace", 1, 0)]
    merged = merge([run.path for run in runs], tmp_path / "m.trace")
    weights = np.concatenate([shard.weights("L3") for run in runs for shard in run.shards()]).astype(np.float64)
    assert merged.manifest.layers[0].weight_sum == pytest.approx(weights.sum(axis=1).mean(), abs=1e-6)


def test_shared_prompts_get_more_samples(tmp_path: Path) -> None:
    """The sample files give prompt p0 another text under another seed, so here the text is made the same."""
    runs = []
    for seed in (0, 1):
        data, records = batch(0, 1, 0)
        with TraceWriter(tmp_path / f"{seed}.trace") as writer:
            writer.add(data, records, manifest(decoding={**SAMPLED, "seed": seed}))
            writer.finish()
        runs.append(tmp_path / f"{seed}.trace")
    merged = merge(runs, tmp_path / "m.trace")
    assert [(one.prompt_id, one.sample, one.index) for one in merged.iter_generations()] == [("p0", 0, 0), ("p0", 1, 1)]
    assert [source["decoding"]["seed"] for source in merged.manifest.merged] == [0, 1]
    assert merged.manifest.decoding["seed"] == [0, 1]
    assert merged.manifest.decoding["temperature"] == 1.0
    apart = merge(runs, tmp_path / "p.trace", prefix=True)
    assert [(one.prompt_id, one.sample) for one in apart.iter_generations()] == [("0/p0", 0), ("1/p0", 0)]


def test_other_prompts_of_the_same_id_are_refused(tmp_path: Path) -> None:
    runs = [drawn(tmp_path / f"{seed}.trace", seed).path for seed in (0, 1)]
    with pytest.raises(TraceError, match=r"'p\d' has another text.*--prefix"):
        merge(runs, tmp_path / "m.trace")
    assert not (tmp_path / "m.trace").exists()
    merged = merge(runs, tmp_path / "m.trace", prefix=True, force=True)
    assert len({one.prompt_id for one in merged.iter_generations()}) == 8


@pytest.mark.parametrize("decoding", [{"sample": False, "seed": 0}, {**SAMPLED, "seed": 4}])
def test_the_same_text_is_not_counted_twice(tmp_path: Path, decoding: dict[str, Any]) -> None:
    runs = [make(tmp_path / f"{n}.trace", n, decoding=decoding).path for n in (1, 2)]
    with pytest.raises(TraceError, match="would count as two"):
        merge(runs, tmp_path / "m.trace")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"id": "toy", "config_digest": "other"}}, "another model.config_digest"),
        ({"tokenizer": {"digest": "other"}}, "another tokenizer.digest"),
        ({"engine": {"dtype": "bfloat16"}}, "another engine.dtype"),
        ({"layers": (replace(LAYERS[0], shared=True), *LAYERS[1:])}, "other layers"),
        ({"decoding": {**SAMPLED, "temperature": 0.5, "seed": 1}}, r"decoding.temperature.*--allow-different-decoding"),
    ],
)
def test_only_runs_of_one_model_merge(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    runs = [drawn(tmp_path / "a.trace", 0).path, drawn(tmp_path / "b.trace", 1, **changes).path]
    with pytest.raises(MoeprobeError, match=said):
        merge(runs, tmp_path / "m.trace", prefix=True)
    assert not list(tmp_path.glob("m.trace*"))


def test_other_decoding_is_recorded_when_allowed(tmp_path: Path) -> None:
    runs = [drawn(tmp_path / "a.trace", 0).path,
            drawn(tmp_path / "b.trace", 1, decoding={**SAMPLED, "temperature": 0.5, "seed": 1}).path]  # fmt: skip
    merged = merge(runs, tmp_path / "m.trace", prefix=True, allow_different_decoding=True)
    assert merged.manifest.decoding["temperature"] == [1.0, 0.5]
    assert [one["decoding"]["temperature"] for one in merged.manifest.merged] == [1.0, 0.5]


def test_one_run_cannot_be_named_twice_or_be_the_output(tmp_path: Path) -> None:
    a, b = drawn(tmp_path / "a.trace", 0).path, drawn(tmp_path / "b.trace", 1).path
    with pytest.raises(TraceError, match="same run"):
        merge([a, b, a], tmp_path / "m.trace")
    with pytest.raises(TraceError, match="at least two"):
        merge([a], tmp_path / "m.trace")
    with pytest.raises(OutputError, match="being read"):
        merge([a, b], a, force=True)
    load_trace(a).verify()


def test_the_command(tmp_path: Path) -> None:
    a, b = drawn(tmp_path / "a.trace", 0).path, drawn(tmp_path / "b.trace", 1).path
    done = CliRunner().invoke(cli, ["merge", str(a), str(b), "-o", str(tmp_path / "m.trace"), "--prefix"])
    assert done.exit_code == 0, done.output
    assert "8 generations" in done.output
    load_trace(tmp_path / "m.trace").verify()
