"""The labelling page in headless Chromium: by keyboard, offline, and what it saves is read back."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moeprobe.labelling import read_answers, write_sheet
from moeprobe.labelling.form import form_page
from tests.labelling.test_reading_back import KEY

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import report_axe
import report_browser

SAVED = """
(async () => {
  let kept = null;
  URL.createObjectURL = (blob) => { kept = blob; return "blob:none"; };
  HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };
  document.getElementById("save").click();
  return [window.savedAs, await kept.text()];
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[report_browser.Browser]:
    if reason := report_browser.missing():
        pytest.skip(reason)
    opened = report_browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.browser
def test_labels_are_given_by_keyboard_and_saved(browser: report_browser.Browser, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    made: Any = replace(
        KEY, windows=(replace(KEY.windows[0], shown=(hostile, hostile, "after")), *KEY.windows[1:]), question=hostile
    )
    write_sheet(made, tmp_path / "form.html")
    page = browser.open(tmp_path / "form.html", width=400)
    assert page.evaluate("document.querySelector('mark').textContent") == hostile
    for key in ("1", "n", "s", "ArrowLeft", "y", "0"):
        page.press(key)
    assert page.evaluate("document.getElementById('progress').textContent") == "5 of 40; 4 answered, not saved."
    page.evaluate("document.getElementById('yes').click()")
    name, body = page.evaluate(SAVED)
    assert name == "labels-by-me.jsonl"
    (tmp_path / name).write_text(body)
    said = list(read_answers(tmp_path / name, made).by_id.values())
    assert said == [1, 0, 1, 0, 1] + [None] * 35
    assert page.evaluate("document.documentElement.scrollWidth <= 400")
    assert page.complaints() == []
    assert page.requests() == []
    page.close()


def test_the_policy_lets_nothing_in() -> None:
    page = form_page(KEY)
    policy = page.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    rows = page.partition('id="rows">')[2].partition("</script>")[0]
    assert [row["id"] for row in json.loads(rows)] == [one.id for one in KEY.windows]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
def test_the_form_breaks_no_rule_of_axe(
    browser: report_browser.Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    axe = report_axe.source()
    write_sheet(KEY, tmp_path / "form.html")
    page = browser.open(tmp_path / "form.html", width=width, dark=dark)
    page.press("1")
    page.press("ArrowLeft")  # the answer given is pressed now: its colours count, too
    found = report_axe.violations(page, axe)
    page.close()
    assert found == []
