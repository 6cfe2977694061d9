"""axe-core over whole pages. It is not shipped (MPL): `npm pack axe-core`, and point MOEPROBE_AXE to axe.min.js."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
from report_browser import Browser, Page

from moeprobe.report import render

pytestmark = pytest.mark.browser
PLACES = [
    Path(os.environ["MOEPROBE_AXE"]) if os.environ.get("MOEPROBE_AXE") else None,
    Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js",
]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
FOUND = "then((done) => done.violations.map((one) => [one.id, one.nodes.slice(0, 3).map((node) => node.html)]))"


@pytest.fixture(scope="module")
def axe() -> str:
    found = next((place for place in PLACES if place is not None and place.is_file()), None)
    if found is None:
        pytest.skip("axe-core is not here: set MOEPROBE_AXE to its axe.min.js, or put it into node_modules")
    return found.read_text(encoding="utf-8")


def violations(page: Page, axe: str) -> list[Any]:
    page.evaluate(f"{axe};0")
    found: list[Any] = page.evaluate(f"axe.run(document, {{runOnly: {{type: 'tag', values: {TAGS}}}}}).{FOUND}")
    return found


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
    levels = page.evaluate(
        "Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), (one) => Number(one.tagName[1]))"
    )
    page.close()
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
