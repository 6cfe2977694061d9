"""The table that says what the map shows, a line for each layer, and the words of the map."""

import report_designs
import report_samples as samples

from moeprobe.report.maps import layer_lines, map_words
from moeprobe.report.voice import voice_of

VOICE = voice_of(samples.toy()["questions"][0])


def test_layer_lines_count_what_the_map_shows() -> None:
    findings = samples.smollm()
    (line,) = layer_lines(findings["model"]["layers"], findings["rows"], VOICE)
    associated = [row for row in findings["rows"] if row["association"] == "associated"]
    assert (line.layer, line.experts) == (18, 16)
    assert line.more + line.less == len(associated) == 4
    assert (line.less, line.causal, line.only) == (1, 2, 2)


def test_leading_cells_are_those_with_the_smallest_q() -> None:
    findings = samples.large()
    lines = layer_lines(findings["model"]["layers"], findings["rows"], VOICE)
    assert [line.layer for line in lines] == list(range(40))
    for line in lines:
        own = sorted(row["q"] for row in findings["rows"] if row["layer"] == line.layer and row["q"] is not None)
        assert len(line.leaders) == 3
        assert all(text.startswith(f"L{line.layer}.E") for text in line.leaders)
        first = next(row for row in findings["rows"] if line.leaders[0].startswith(f"{row['site']}:"))
        assert first["q"] == own[0]


def test_a_layer_without_a_test_has_no_leader() -> None:
    findings = samples.toy()
    for row in findings["rows"]:
        row |= {"q": None, "p": None}
    assert all(line.leaders == [] for line in layer_lines(findings["model"]["layers"], findings["rows"], VOICE))


def test_the_words_say_which_quantity_was_tested() -> None:
    assert map_words(VOICE)["beyond"].endswith("with the words held fixed, in percentage points.")
    assert not map_words(VOICE)["raw"]
    measured = map_words(voice_of(report_designs.prompts()["questions"][0]))
    assert measured["raw"]
    assert "in its own unit" in measured["beyond"]
