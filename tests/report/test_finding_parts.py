"""The part of the page for each finding: drawings and words say what the findings say, and text stays inert."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_designs
import report_samples as samples
from report_browser import Browser, Page
from report_hostile import STRINGS, Outline, poisoned

from moeprobe.report import render
from moeprobe.report.confounds import confounds_view, tells
from moeprobe.report.evidence import HEIGHT, Scale, _place, evidence_view
from moeprobe.report.voice import voice_of
from moeprobe.report.windows import window_pairs

Open = Callable[..., Page]
OPEN = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
WAIT = "new Promise((done) => setTimeout(done, 120))"
SPANS = "document.querySelectorAll('.example:first-of-type .pane:nth-of-type(%d) .text span')"


def leading(findings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    question = findings["questions"][0]
    rows = [row for row in findings["rows"] if row["probe"] == question["name"] and row["evidence"] is not None]
    return min(rows, key=lambda row: row["p"] if row["p"] is not None else 1.0), question


def values(path: str, axis: Scale) -> list[float]:
    """Dots of a drawing read back as values."""
    places = [int(x) for x in re.findall(r"M(\d+) \d+h0", path)]
    return [axis.low + (x - 20) / 960 * (axis.high - axis.low) for x in places]


def test_dots_stand_where_the_rates_are() -> None:
    row, question = leading(samples.toy())
    seen = evidence_view(row, question, voice_of(question))
    assert seen is not None
    groups, effect = seen.charts
    top = max(max(row["evidence"]["rates"][side]) for side in ("positive", "negative"))
    for strip, side in zip(groups.strips, ("positive", "negative"), strict=True):
        rates = row["evidence"]["rates"][side]
        assert values(strip.dots, Scale(0, top)) == pytest.approx(rates, abs=top / 900)
        assert f"median {100 * np.median(rates):.1f}" in strip.words.replace("\u00a0", " ")
        quartiles = np.quantile(rates, [0.25, 0.75]) * 100
        assert f"{quartiles[0]:.1f}\u00a0% to {quartiles[1]:.1f}\u00a0%" in strip.words
        worst = question["units"][side]["names"][int(np.argmin(rates))]
        assert f"({worst})" in strip.words or rates.count(min(rates)) > 1
    (difference,) = effect.strips
    assert difference.value.startswith(f"+{100 * row['rate_difference']:.1f} points")
    assert effect.zero is not None
    assert effect.zero < difference.middle


@pytest.mark.parametrize("name", ["pairs", "inside"])
def test_inside_units_each_dot_is_a_difference(name: str) -> None:
    row, question = leading(samples.ALL[name]())
    seen = evidence_view(row, question, voice_of(question))
    assert seen is not None
    ((strip,),) = [chart.strips for chart in seen.charts]
    rates = row["evidence"]["rates"]
    inside = np.array(rates["positive"]) - np.array(rates["negative"])
    assert strip.dots.count("h0") == inside.size
    if not question["design"]["held"]:
        assert inside.mean() == pytest.approx(row["rate_difference"], abs=1e-4)
    assert f"median {100 * np.median(inside):+.1f} points" in strip.words.replace("\u2212", "-")


def test_scores_are_drawn_against_rates() -> None:
    row, question = leading(samples.ALL["scores"]())
    seen = evidence_view(row, question, voice_of(question))
    assert seen is not None
    ((strip,),) = [chart.strips for chart in seen.charts]
    units = question["units"]
    scores = [*units["positive"]["scores"], *units["negative"]["scores"]]
    rates = [*row["evidence"]["rates"]["positive"], *row["evidence"]["rates"]["negative"]]
    assert values(strip.dots, Scale(min(scores), max(scores))) == pytest.approx(
        scores, abs=(max(scores) - min(scores)) / 900
    )
    heights = [int(y) for y in re.findall(r"M\d+ (\d+)h0", strip.dots)]
    assert [(HEIGHT - 4 - y) / (HEIGHT - 8) * max(rates) for y in heights] == pytest.approx(rates, abs=max(rates) / 100)


def test_timeline_in_words_and_as_a_table() -> None:
    row, question = leading(samples.toy())
    for side, rate in (("positive", 0.6), ("negative", 0.2)):
        row["evidence"]["timeline"][side] = {
            "rate": [rate, 0.4, None, 0.4],
            "low": [rate - 0.05, 0.3, None, None],
            "high": [rate + 0.05, 0.5, None, None],
        }  # fmt: skip
    seen = evidence_view(row, question, voice_of(question))
    assert seen is not None
    assert seen.timeline.words.startswith("The two 95 % intervals lie apart in 1 of 4 parts: at tokens 1 to 12.")
    assert [label for label, _ in seen.timeline.rows] == ["1 to 12", "13 to 24", "25 to 36", "37 to 48"]
    assert seen.timeline.rows[0][1][0] == "60.0\u00a0% [55.0, 65.0], 288 tokens"
    assert seen.timeline.rows[2][1][0].startswith("\u2013, ")
    assert seen.timeline.lines[0].path.count("M") == 2, "a gap where there is no rate"
    assert seen.timeline.lines[0].band.count("z") == 2


def test_split_in_words() -> None:
    row, question = leading(samples.toy())
    row |= {"entry": 0.03, "valuation": -0.01, "dW": 0.02, "entry_ci": [0.02, 0.04]}
    seen = evidence_view(row, question, voice_of(question))
    assert seen is not None
    assert seen.split_words.replace("\u00a0", " ").startswith(
        "75.0 % of the change in its mean gate weight comes from how often it is chosen. The two work against each"
    )
    assert [one.value.split()[0] for one in seen.splits] == ["+0.0300", "\u22120.0100", "+0.0200"]
    assert seen.splits[1].bar[0] < seen.split_zero == seen.splits[0].bar[0]
    assert seen.splits[0].whisker
    assert not seen.splits[1].whisker


def test_windows_show_weights_marks_and_the_centre() -> None:
    row, question = leading(samples.toy())
    window = row["evidence"]["windows"][0]["window"]
    window |= {
        "tokens": [" a", "b\n", "", "d"], "centre": 2, "spans": [[1, 2]], "gate": {"at": [1, 2], "weight": [0.1, 0.8]}
    }  # fmt: skip
    row["evidence"]["windows"][0]["matched"] = None
    ((first, _),) = [window_pairs(row["evidence"]["windows"], voice_of(question))]
    assert [(piece.text, piece.css) for piece in first.strong.pieces] == [
        (" a", ""), ("b\u21b5", "w0 span"), ("\u2205", "w6 centre"), ("d", ""),
    ]  # fmt: skip
    assert first.strong.weight == "weight 0.800"
    assert first.match is None


def test_warnings_only_where_something_sorts() -> None:
    findings = samples.toy()
    question, rows = findings["questions"][0], findings["rows"]
    sorting = question["confounds"]["sorting"]
    assert [tells(one) for one in sorting] == [False, True]
    seen = confounds_view(question, rows, voice_of(question), text=True)
    assert seen is not None
    (warning,) = seen.warnings
    assert warning.startswith("The wording of the prompt alone tells the two sides apart (AUC 0.93)")
    page = Outline(render([findings])).words
    assert "The wording of the prompt alone tells the two sides apart (AUC 0.93): the expert may go with that" in page
    sorting[1].update(auc=0.93, ci=[0.4, 1.0])
    sorting[0].update(auc=0.1, ci=[0.02, 0.2])
    seen = confounds_view(question, rows, voice_of(question), text=True)
    assert seen is not None
    assert [one.split(" tells")[0] for one in seen.warnings] == ["Length alone"]
    assert "(AUC 0.90), 95 % interval [0.80, 0.98]" in seen.warnings[0], "both turned"


def test_without_confounds_or_evidence_the_page_stands() -> None:
    findings = samples.toy()
    for question in findings["questions"]:
        question.update(confounds=None, units=None, positions=None)
    for row in findings["rows"]:
        row["evidence"] = None
    page = Outline(render([findings]))
    assert "The evidence, drawn" not in page.words
    assert "What else tells" not in page.words


HUSHED = "secret"


@pytest.mark.parametrize("name", ["several", "pairs", "scores", "inside"])
def test_without_text_nothing_of_a_prompt_or_answer_is_left(name: str) -> None:
    findings = samples.ALL[name]()
    for question in findings["questions"]:
        for example in question["examples"]:
            example["tokens"] = ["secret"] * len(example["tokens"])
        for kind in question["confounds"]["tokens"]:
            kind["token"] = HUSHED
        question["confounds"]["topics"] = [{"word": "secret", "z": 3.0, "positive": 5, "negative": 0}]
    for row in findings["rows"]:
        if row["evidence"] is not None:
            for pair in row["evidence"]["windows"]:
                for window in (pair["window"], pair["matched"]):
                    if window is not None:
                        window["tokens"] = ["secret"] * len(window["tokens"])
            row["leave_token_out"] = {"token_id": 7, "token": HUSHED, "rate_difference": 0.1, "p": 0.01}
    page, bare = render([findings]), render([findings], text=False)
    assert "secret" in Outline(page).words
    assert "secret" in json.dumps(Outline(page).tokens())
    assert "secret" not in bare
    assert not any(one["packed"] for one in Outline(bare).data["tokens"])
    assert "without number 7" in Outline(bare).words


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Any:
    pages: list[Page] = []

    def opened(html: str, **options: Any) -> Page:
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(html, encoding="utf-8")
        pages.append(browser.open(path, **options))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, False)])
@pytest.mark.parametrize("name", ["smollm", "pairs", "scores", "inside"])
def test_evidence_is_drawn_and_fits(show: Open, name: str, width: int, dark: bool) -> None:
    page = show(render([samples.ALL[name]()]), width=width, dark=dark)
    page.evaluate(OPEN)
    page.evaluate(WAIT)
    assert page.complaints() == []
    assert page.requests() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = "Array.from(document.querySelectorAll('.evidence path%s'), (one) => one.getBoundingClientRect().width)"
    for kind in (".dots", ".line", ".whisker"):
        assert max(page.evaluate(drawn % kind)) > 20, kind
    columns = "getComputedStyle(document.querySelector('.window-pair')).gridTemplateColumns.split(' ').length"
    assert page.evaluate(columns) == (1 if width == 360 else 2)


@pytest.mark.browser
def test_texts_stand_side_by_side_and_move_together(show: Open) -> None:
    findings = samples.toy()
    example = findings["questions"][0]["examples"][0]
    example["tokens"] = [f" token{index}" for index in range(1500)]
    example["spans"] = [[40, 42], [1400, 1401]]
    example["weights"] = {"L2.E5": {"at": [3, 900], "weight": [0.5, 0.25]}, "L1.E1": {"at": [], "weight": []}}
    findings["questions"][0]["examples"] = [example]
    page = show(render([findings]))
    page.evaluate("document.querySelector('.example').open = true")
    page.evaluate(WAIT)
    assert page.evaluate(f"{SPANS % 1}.length") == page.evaluate(f"{SPANS % 2}.length") == 1500
    assert page.evaluate(f"Array.from({SPANS % 1}).map((one) => one.className).filter(Boolean)[3]").split() == [
        "prompt", "w7",
    ]  # fmt: skip
    assert page.evaluate(f"{SPANS % 1}[900].className") == "w4"
    assert [page.evaluate(f"{SPANS % 2}[{i}].className") for i in (40, 41, 42)] == ["span first", "span last", ""]
    tops = "Array.from(document.querySelectorAll('.example:first-of-type .text'), (one) => one.scrollTop)"
    read = "document.querySelector('.example .read').textContent"
    page.evaluate("document.querySelector('.example .text').focus()")
    page.press("n")
    assert page.evaluate(read) == "Token 4 (prompt); gate weight of L2.E5 about 0.50; not marked."
    page.press("m")
    assert page.evaluate(read) == "Token 41 (answer); L2.E5 was not chosen; marked by the probe."
    page.press("n")
    assert page.evaluate(read) == "Token 901 (answer); gate weight of L2.E5 about 0.25; not marked."
    first, second = page.evaluate(tops)
    assert first == second > 0
    page.press("ArrowRight")
    assert page.evaluate(read).startswith("Token 902 ")
    page.press("n")
    assert page.evaluate(read) == "No more of them."
    page.evaluate("document.querySelector('.example .text').scrollTop = 50")
    page.evaluate(WAIT)
    assert page.evaluate(tops) == [50, 50]
    assert page.complaints() == []


@pytest.mark.browser
def test_a_finding_leads_to_its_text(show: Open) -> None:
    page = show(render([samples.several()]))
    page.evaluate("document.querySelectorAll('.evidence').forEach((one) => { one.open = true; })")
    site = page.evaluate("Array.from(document.querySelectorAll('.read-tokens')).at(1).dataset.site")
    page.evaluate("Array.from(document.querySelectorAll('.read-tokens')).at(1).click()")
    page.evaluate(WAIT)
    assert page.evaluate("document.querySelector('.example-site').selectedOptions[0].textContent.trim()") == site
    assert page.evaluate("document.querySelectorAll('.example .text span').length") > 0


@pytest.mark.browser
@pytest.mark.parametrize("group", range(4))
def test_hostile_text_in_evidence_runs_nothing(show: Open, group: int) -> None:
    text = "".join(STRINGS[group::4])
    every = [poisoned(one, text) for one in (samples.several(), *report_designs.short())]
    for findings in every:
        for row in findings["rows"]:
            for pair in (row["evidence"] or {"windows": []})["windows"]:
                pair["window"]["tokens"] = [STRINGS[(group + i) % 100] for i in range(len(pair["window"]["tokens"]))]
                pair["window"]["tokens"][0] = "\ud800" * 3 + "x" * 1_000_000
    page = show(render(every))
    page.evaluate(OPEN)
    page.evaluate(WAIT)
    assert page.evaluate("document.documentElement.dataset.canary || ''") == ""
    assert page.complaints() == []
    assert page.requests() == []
    assert page.evaluate("document.querySelectorAll('img, iframe, object, base, link, [onerror]').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_part_of_one_token_is_called_by_its_number() -> None:
    assert [_place([0, 1, 3], index) for index in (0, 1)] == ["1", "2 to 3"]


@pytest.mark.browser
def test_without_script_the_evidence_stands_there(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render([samples.toy()]), encoding="utf-8")
    page = browser.open(path)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.reload")
    page.evaluate("1")
    page.evaluate(OPEN)
    text = page.evaluate("document.body.innerText").replace("\u00a0", " ")
    for said in ("24 generations: median", "Along the text", "1 to 12", "Where its weight is largest", "not chosen"):
        assert said in text
    page.close()


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (0.0, 1e-323), (5.0, 5.0), (1e12, 1e12), (-1e-300, 1e-300), (3.0, 3.0 + 1e-15)]
)
def test_an_axis_without_width_is_widened(low: float, high: float) -> None:
    axis = Scale(low, high)
    assert 20 <= axis.at(low) <= axis.at(high) <= 980
    assert 1 <= len(axis.ticks()) <= 12
