"""What a reader with a screen reader, a keyboard or little sight needs: axe-core, sizes of targets, headings."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import report_axe
import report_samples as samples
from report_axe import violations
from report_browser import Browser
from report_results import COMMANDS

from moeprobe.report import render

pytestmark = pytest.mark.browser
OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
LEVELS = "Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), (one) => Number(one.tagName[1]))"


@pytest.fixture(scope="module")
def axe() -> str:
    return report_axe.source()


@pytest.mark.parametrize("text", [True, False], ids=["text", "no-text"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
@pytest.mark.parametrize("name", ["smollm", "several", "two"])
def test_no_violation(
    browser: Browser, tmp_path: Path, axe: str, name: str, width: int, dark: bool, text: bool
) -> None:
    documents = [samples.toy(), samples.toy()] if name == "two" else [samples.ALL[name]()]
    path = tmp_path / "page.html"
    path.write_text(render(documents, text=text), encoding="utf-8")
    page = browser.open(path, width=width, dark=dark)
    page.evaluate(OPEN_ALL)
    found = violations(page, axe)
    page.close()
    assert found == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
@pytest.mark.parametrize("alone", [True, False])
def test_no_violation_in_further_experiments(
    browser: Browser, tmp_path: Path, axe: str, made: Path, alone: bool, width: int, dark: bool
) -> None:
    results = [json.loads((made / f"{name}.json").read_text(encoding="utf-8")) for name in (*COMMANDS, "behaviour")]
    path = tmp_path / "page.html"
    path.write_text(render([] if alone else [samples.toy()], results), encoding="utf-8")
    page = browser.open(path, width=width, dark=dark)
    page.evaluate(OPEN_ALL)
    found, levels = violations(page, axe), page.evaluate(LEVELS)
    wide, complaints = page.evaluate("document.documentElement.scrollWidth"), page.complaints()
    page.close()
    assert found == []
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert wide <= width
    assert complaints == []


def test_axe_bites(browser: Browser, tmp_path: Path, axe: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(render([samples.toy()]).replace(' lang="en"', ""), encoding="utf-8")
    page = browser.open(path)
    found = violations(page, axe)
    page.close()
    assert [name for name, _ in found] == ["html-has-lang"]


SMALL = """Array.from(document.querySelectorAll('button, input, select, summary, nav a, canvas[tabindex]'))
  .filter((one) => one.checkVisibility() && !one.disabled).map((one) => {
    const box = (one.type === 'radio' ? one.nextElementSibling : one).getBoundingClientRect();
    return [one.outerHTML.slice(0, 90), Math.round(box.width), Math.round(box.height)];
  }).filter(([, width, height]) => width < 24 || height < 24)"""


@pytest.mark.parametrize("width", [360, 1280])
def test_targets_are_24_pixels(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "page.html"
    path.write_text(render([samples.several()]), encoding="utf-8")
    page = browser.open(path, width=width)
    small = page.evaluate(SMALL)
    page.close()
    assert small == []


def test_headings_go_down_one_step_at_a_time(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render([samples.several(), samples.smollm()]), encoding="utf-8")
    page = browser.open(path)
    levels = page.evaluate(LEVELS)
    page.close()
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
