"""Token data for the script, and the line about a generation."""

import report_samples as samples

from moeprobe.report.tokens import example_data, example_line
from moeprobe.report.voice import voice_of


def test_weights_are_sparse_and_exact() -> None:
    example = {
        "tokens": ["a", "b", "c"],
        "answer_start": 1,
        "spans": [[1, 2]],
        "weights": {"L0.E1": {"at": [1, 2], "weight": [0.25, 0.5]}, "L0.E2": {"at": [], "weight": []}},
    }
    assert example_data([example]) == {
        "sites": ["L0.E1", "L0.E2"],
        "most": [0.5, 0.0],
        "examples": [
            {"tokens": ["a", "b", "c"], "start": 1, "spans": [[1, 2]], "weights": [([1, 2], [0.25, 0.5]), ([], [])]}
        ],
    }


def test_a_huge_token_is_cut_with_a_note() -> None:
    example = {"tokens": ["x" * 1_000_000], "answer_start": 0, "spans": [], "weights": {}}
    (token,) = example_data([example])["examples"][0]["tokens"]
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
