"""Results of further experiments on the page: made by the commands, read with suspicion, shown with their texts."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import report_samples
from click.testing import CliRunner
from report_hostile import STRINGS, Outline, poisoned
from report_results import COMMANDS

from moeprobe.cli.main import cli
from moeprobe.errors import FindingsError
from moeprobe.findings.changes import FALLING, as_it_is, to_the_gap
from moeprobe.report import as_json, as_markdown, render
from moeprobe.report.results import SCHEMAS, load_result, part_of
from moeprobe.report.results.changed import _RESCUE, _SWAPS


def document(made: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((made / f"{name}.json").read_text(encoding="utf-8")))


def test_every_schema_that_a_command_writes_is_read(made: Path) -> None:
    found = {document(made, name)["schema"] for name in COMMANDS}
    assert found == set(SCHEMAS)
    for name in COMMANDS:
        part = part_of(load_result(made / f"{name}.json"))
        assert part.model == "compiled"
        assert part.sentences
        assert part.cautions


def test_behaviour_shows_counts_prompts_and_both_texts(made: Path) -> None:
    part = part_of(document(made, "behaviour"))
    assert part.sentences[0].startswith("Necessity: sorry in 3 of 3 answers before and 0 after")
    pair, comparisons = part.texts[0]
    assert pair == document(made, "behaviour")["pairs"][0]
    necessity, sufficiency, knockout = comparisons
    assert necessity.before_rest.startswith("sorry")
    assert sufficiency.after_rest.startswith("sorry")
    assert "crimson" in necessity.prompt
    assert "crimson" not in sufficiency.prompt
    assert knockout.judged == "score before 1.00, after 0.00"
    rows = {row[0]: row for row in part.tables[0].rows}
    assert rows["placebo sufficiency"][1:5] == ["0 of 3", "0 of 3", "leaves the gap as it is", "0"]
    assert rows["necessity"][1:5] == ["3 of 3", "0 of 3", "closes the whole gap", "\u2212100"]
    assert rows["sufficiency"][1:5] == ["0 of 3", "3 of 3", "closes the whole gap", "+100"]
    assert rows["necessity"][5].startswith("[\u2212100, ")
    assert ("The gap", "shown in 3 of 3 answers to the sensitive prompts and 0 of 3 to the controls, unedited: 100 "
            "points apart") in part.facts  # fmt: skip


def test_a_change_stands_as_it_is_and_in_words(made: Path) -> None:
    part = part_of(document(made, "behaviour"))
    assert "That closes the whole gap: a change of \u2212100 points [\u2212100, " in part.sentences[0]
    assert "That closes the whole gap: a change of +100 points [" in part.sentences[1]
    rescued = part_of(document(made, "rescue"))
    assert any(
        said.startswith("Beyond noise: shown in 3 of 3 answers with the rescue and in ") for said in rescued.sentences
    )
    assert {one[0] for one in part.tables[0].rows} >= {name.replace("_", " ") for name in FALLING}


@pytest.mark.parametrize(
    ("points", "percent", "said"),
    [(83.3, 87.0, "closes 87 % of the gap"), (83.3, 111.1, "closes the whole gap and more (111 %)"),
     (75.0, 100.0, "closes the whole gap"), (-4.2, -5.6, "widens the gap by 6 %"),
     (0.0, 0.0, "leaves the gap as it is"),
     (0.0, None, "leaves the gap as it is"),
     (4.0, None, "cannot be put as a share of the gap, which is not above 0 or was not measured"),
     (40.0, -20.0, "cannot be put as a share of the gap, which was measured in other pairs"),
     (50.0, 0.0, "cannot be put as a share of the gap, which was measured in other pairs"),
     (0.4, 0.3, "hardly moves the gap")],
)  # fmt: skip
def test_what_a_change_does_to_the_gap(points: float, percent: float | None, said: str) -> None:
    assert to_the_gap(points, percent) == said


def test_the_change_of_an_arm_has_its_own_sign() -> None:
    assert as_it_is("necessity", 83.0, [58.0, 96.0]) == (-83.0, (-96.0, -58.0))
    assert as_it_is("sufficiency", 79.0, [53.0, 93.0]) == (79.0, (53.0, 93.0))
    assert {name for name, (base, _) in _SWAPS.items() if base == "sensitive"} == FALLING
    assert not {name for name, (base, _) in _RESCUE.items() if base == "sensitive"}
    assert f"{as_it_is('knockout', 0.0, [-15.0, 15.0])[0]:+.0f}" == "+0"


def test_texts_are_parted_where_they_part(made: Path) -> None:
    made_by = document(made, "behaviour")
    made_by["answers"]["sensitive"]["texts"][0] = "sorry, no"
    made_by["answers"]["necessity"]["texts"][0] = "sorry, yes"
    one = part_of(made_by).texts[0][1][0]
    assert (one.same, one.before_rest, one.after_rest) == ("sorry, ", "no", "yes")


@pytest.mark.parametrize("name", ["behaviour", "rescue"])
def test_a_count_that_does_not_follow_from_the_scores_is_refused(made: Path, name: str) -> None:
    forged = document(made, name)
    arm = next(iter(forged["effects"]))
    forged["effects"][arm]["after"] += 1
    with pytest.raises(FindingsError, match="do not follow from the scores"):
        part_of(forged)


@pytest.mark.parametrize(("name", "arm"), [("behaviour", "necessity"), ("behaviour", "sufficiency"),
                                           ("rescue", "rescue")])  # fmt: skip
def test_the_sign_of_the_points_follows_from_the_arm(made: Path, name: str, arm: str) -> None:
    """Fewer of the sensitive answers is positive, and more of the others."""
    forged = document(made, name)
    assert forged["effects"][arm]["points"] == 100
    forged["effects"][arm]["points"] = -100
    with pytest.raises(FindingsError, match="points do not follow from the scores"):
        part_of(forged)


def test_what_rescue_does_beyond_a_control_follows_from_the_scores(made: Path) -> None:
    forged = document(made, "rescue")
    control = next(iter(forged["beyond"]))
    forged["beyond"][control]["after"] += 1
    with pytest.raises(FindingsError, match="beyond, .*: the counts do not follow from the scores"):
        part_of(forged)


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("coalition", ("null", "percent"), ["abc"], "'percent' must be a list of numbers"),
        ("coalition", ("set", "ci"), ["a", "b"], "'ci' must be"),
        ("coalition", ("set", "ci"), [5, 1], "'ci' must be"),
        ("dose", ("series", "L2.E5"), [], "'L2.E5' must be an object"),
        ("dose", ("series", "L2.E5", "bias", "doses"), ["x"], "'doses' must be a list of numbers"),
        ("behaviour", ("effects", "necessity", "points_ci"), [1, 2, 3], "'points_ci' must be"),
        ("behaviour", ("effects", "necessity", "p"), 2, "no probability"),
        ("cascade", ("edits", "zero", "indirect", "ci"), -7, "'ci' must be a list"),
        ("dose", ("against_shams",), {"bias": {"difference": 1e308, "ci": []}}, "beyond 1e.100"),
    ],
)
def test_what_no_command_writes_is_refused(
    made: Path, name: str, path: tuple[str, ...], value: object, said: str
) -> None:
    forged = document(made, name)
    at = forged
    for key in path[:-1]:
        at = at[key]
    assert path[-1] in at
    at[path[-1]] = value
    with pytest.raises(FindingsError, match=said):
        part_of(forged)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_missing_field_is_named(made: Path, name: str, tmp_path: Path) -> None:
    """Each top-level field that a part reads is missed in turn: always a sentence with the file's name."""
    whole = document(made, name)
    path = tmp_path / "broken.json"
    messages = []
    for key in whole:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        try:
            load_result(path)
        except FindingsError as error:
            messages.append(str(error))
    assert len(messages) >= 4
    assert all(str(path) in message for message in messages)


def test_dose_gives_the_mean_over_prompts(made: Path) -> None:
    whole = document(made, "dose")
    own = whole["series"]["L2.E5"]["bias"]
    mean = sum(line[2] for line in own["outcome"]) / len(own["outcome"])
    row = part_of(whole).tables[0].rows[2]
    assert row[0] == "4.0"
    assert float(row[1]) == pytest.approx(mean, abs=1e-4)


def test_hostile_texts_are_escaped_and_no_text_leaves_them_out(made: Path) -> None:
    hostile = document(made, "behaviour")
    attack = "</p><script>alert(1)</script>\u202e<img src=x onerror=alert(1)>"
    hostile["answers"]["sensitive"]["texts"] = [attack] * 3
    hostile["prompts"] = [{"sensitive": attack, "control": attack}] * 3
    page = render([], [hostile])
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    private = render([], [hostile], text=False)
    assert "alert(1)" not in private
    assert "alert" not in as_markdown([], [hostile])
    assert "alert" not in as_json([], [hostile])


@cache
def outline(made: Path, text: str) -> Outline:
    """The page of all results with `text` before every string of theirs."""
    return Outline(render([], [poisoned(document(made, name), text) for name in sorted(COMMANDS)]))


@pytest.mark.parametrize("text", STRINGS)
def test_no_string_of_a_result_adds_a_tag_or_an_attribute(made: Path, text: str) -> None:
    plain, hostile = outline(made, "x"), outline(made, text)
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.raw] == [name for name, _ in plain.raw]
    assert hostile.source("script:text") == plain.source("script:text")


def test_findings_and_results_share_a_page(made: Path, tmp_path: Path) -> None:
    findings = tmp_path / "f.json"
    findings.write_text(json.dumps(report_samples.smollm()), encoding="utf-8")
    files = [str(findings), str(made / "behaviour.json"), str(made / "coalition.json")]
    done = CliRunner().invoke(cli, ["report", *files, "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Which experts go with refusal?" in page
    assert "What is written when L2.E5 is swapped at every step" in page
    assert 'href="#results"' in page
    alone = CliRunner().invoke(cli, ["report", str(made / "screen.json"), "-o", str(tmp_path / "s.html")])
    assert alone.exit_code == 0
    page = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "<title>A screen of 32 sites</title>" in page
    assert 'href="#map"' not in page


def test_a_csv_of_results_alone_is_a_usage_error(made: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", str(made / "dose.json"), "-o", str(tmp_path / "r.csv")])
    assert done.exit_code == 2
    assert not (tmp_path / "r.csv").exists()


def test_an_unknown_schema_names_what_is_known() -> None:
    with pytest.raises(FindingsError, match="none that a report shows"):
        part_of({"schema": "moeprobe.behaviour/9"})
