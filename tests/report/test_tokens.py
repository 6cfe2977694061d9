"""Token data for the script, and the line about a generation."""

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
import report_samples as samples

from moeprobe.report.tokens import DIGITS, LEVELS, example_data, example_line, pack_gaps, pack_weights
from moeprobe.report.voice import voice_of


def unpacked(made: dict[str, Any]) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(made["packed"])))


@pytest.mark.parametrize("seed", range(20))
def test_gaps_and_weights_are_read_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(rng.random(3000) < rng.choice([0.001, 0.02, 0.5, 1.0])).tolist()
    at, found = 0, []
    for character in pack_gaps(chosen):
        gap = DIGITS.index(character)
        at += gap
        if gap < LEVELS:
            found.append(at)
            at += 1
    assert found == chosen
    weights = rng.random(50)
    read = [DIGITS.index(character) * weights.max() / LEVELS for character in pack_weights(weights, weights.max())]
    assert np.abs(np.array(read) - weights).max() <= weights.max() / LEVELS / 2 + 1e-12


def test_weights_must_be_finite() -> None:
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            pack_weights([0.5, wrong], 0.5)


def test_weights_are_sparse_and_exact() -> None:
    example = {
        "tokens": ["a", "b", "c"],
        "answer_start": 1,
        "spans": [[1, 2]],
        "weights": {"L0.E1": {"at": [1, 2], "weight": [0.25, 0.5]}, "L0.E2": {"at": [], "weight": []}},
    }
    made = example_data([example])
    assert (made["sites"], made["most"]) == (["L0.E1", "L0.E2"], [0.5, 0.0])
    assert unpacked(made) == {
        "tokens": [["a", "b", "c"]],
        "start": [1],
        "spans": [[[1, 2]]],
        "gaps": [["BA"], [""]],
        "weights": [["g_"], [""]],  # 32 and 63 of 63
    }


def test_a_huge_token_is_cut_with_a_note() -> None:
    example = {"tokens": ["x" * 1_000_000], "answer_start": 0, "spans": [], "weights": {}}
    ((token,),) = unpacked(example_data([example]))["tokens"]
    assert len(token) < 400
    assert token.endswith("[999,700 more characters left out]")


def test_line_counts_the_answer_only() -> None:
    example = samples.toy()["questions"][0]["examples"][0] | {
        "tokens": list("abcd"),
        "answer_start": 2,
        "weights": {"L0.E1": {"at": [0, 1, 3], "weight": [0.5, 0.5, 0.5]}},
    }
    line = example_line(example, 0, voice_of(samples.toy()["questions"][0]))
    assert "2 prompt and 2 answer tokens" in line.facts
    assert "L0.E1 chosen for 50.0\u00a0% of the answer" in line.facts
    assert line.positive
