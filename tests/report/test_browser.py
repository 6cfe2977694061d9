"""The page in headless Chromium: nothing runs that is not ours, nothing is asked for, and the controls work."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import report_designs
import report_samples as samples
from report_browser import Browser, Page
from report_hostile import STRINGS, poisoned

from moeprobe.report import render
from moeprobe.visible import HIDDEN, visible

room = import_module("moeprobe.report.render")  # the package's name `render` is the function
pytestmark = pytest.mark.browser
CANARY = "document.documentElement.dataset.canary || ''"
OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
# Tables of experts that must be scrolled sideways on a wide screen.
CUT = """innerWidth < 1280 ? [] : Array.from(document.querySelectorAll("table.experts"), (one) =>
  [one.offsetWidth, one.parentElement.clientWidth]).filter(([own, place]) => own > place)"""
CANVAS = "document.getElementById('map-canvas')"
Open = Callable[..., Page]


def _choose(page: Page, selector: str, value: int) -> None:
    page.evaluate(
        f"((one) => {{ one.value = '{value}'; one.dispatchEvent(new Event('change')); }})"
        f"(document.querySelector('{selector}'))"
    )


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Any:
    """Write a page and open it; every page is closed at the end."""
    pages: list[Page] = []

    def opened(html: str, **options: Any) -> Page:
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(html, encoding="utf-8")
        pages.append(browser.open(path, **options))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


def _open_details(page: Page) -> None:
    page.evaluate(OPEN_ALL)
    page.evaluate("new Promise((done) => setTimeout(done, 60))")


@pytest.mark.parametrize("name", list(samples.ALL))
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_are_quiet_and_fit(show: Open, name: str, width: int) -> None:
    page = show(render([samples.ALL[name]()]), width=width, dark=width == 360)
    _open_details(page)
    assert page.complaints() == []
    assert page.requests() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == [], "a table of experts is wider than its place"


@pytest.mark.parametrize("group", range(10))
def test_hostile_strings_run_nothing(show: Open, made: Path, group: int) -> None:
    text = "".join(STRINGS[group::10])
    every = [poisoned(one, text) for one in (samples.several(), samples.several(), *report_designs.short())]
    for question in every[0]["questions"]:
        for example in question["examples"]:
            example["tokens"][: len(STRINGS)] = STRINGS[: len(example["tokens"])]
            example["tokens"][-1] = text
    results = [poisoned(json.loads(path.read_text(encoding="utf-8")), text) for path in sorted(made.glob("*.json"))]
    page = show(render(every, results, title=text))
    assert page.evaluate("document.querySelectorAll('#runs tbody tr, .result').length") > len(results)
    _open_details(page)
    page.evaluate(
        "document.querySelectorAll('select').forEach((one) => "
        "{ one.selectedIndex = 1; one.dispatchEvent(new Event('change')); })"
    )
    page.evaluate("document.querySelectorAll('[tabindex], a, summary').forEach((one) => one.focus())")
    assert page.evaluate(CANARY) == ""
    assert page.complaints() == []
    assert page.requests() == []
    foreign = "img, iframe, object, embed, video, audio, base, link, [onerror], [onload]"
    assert page.evaluate(f"document.querySelectorAll('{foreign}').length") == 0


def _unescaped(monkeypatch: pytest.MonkeyPatch) -> str:
    """A page made with the fault that the tests above must see: nothing is escaped."""
    made = room.environment()
    made.autoescape = False
    monkeypatch.setattr(room, "environment", lambda: made)
    findings = samples.toy()
    findings["questions"][0]["definition"] = STRINGS[0] + "<img src=https://example.invalid/x.png>"
    return render([findings])


def test_the_canary_bites_without_escaping_and_policy(show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "policy", lambda style, script: "")
    page = show(_unescaped(monkeypatch))
    assert page.evaluate(CANARY) == "hit"
    assert page.requests() == ["https://example.invalid/x.png"]


def test_the_policy_alone_stops_what_is_not_escaped(show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    page = show(_unescaped(monkeypatch))
    assert page.evaluate(CANARY) == ""
    assert any("Content Security Policy" in complaint for complaint in page.complaints())


def test_html_cannot_be_set_from_a_string(show: Open) -> None:
    page = show(render([samples.toy()]))
    assert (
        page.evaluate(
            "(() => { try { document.body.innerHTML = '<p>x</p>'; return 'set'; } catch { return 'refused'; } })()"
        )
        == "refused"
    )


def test_map_by_keyboard(show: Open) -> None:
    page = show(render([samples.toy()]))
    live = "document.getElementById('map-live').textContent"
    page.evaluate("document.getElementById('map-canvas').focus()")
    assert page.evaluate(live).startswith("L0.E0: ")
    page.press("ArrowRight")
    page.press("ArrowDown")
    assert page.evaluate(live).startswith("L1.E1: Association only.")
    page.press("ArrowUp")
    page.press("ArrowUp")
    page.press("End")
    assert page.evaluate(live).startswith("L0.E7: ")
    page.press("n")
    page.press("n")
    assert page.evaluate(live).startswith("L2.E5: Necessary and sufficient for most of the gap: 98")
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "m0q0-L2E5"
    assert page.complaints() == []


def test_map_by_mouse_and_its_colours(show: Open) -> None:
    page = show(render([samples.toy()]))
    page.evaluate("document.getElementById('map-canvas').scrollIntoView({ behavior: 'instant', block: 'center' })")
    left, top, width = page.evaluate(
        f"(({{ left, top, width }}) => [left, top, width])({CANVAS}.getBoundingClientRect())"
    )
    cell = (width - 44) / 8
    x, y = 40 + cell * 5.5, 20 + 30 * 2.5  # the middle of L2.E5: gutter 40, head 20, lines of 30 pixels
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + x, y=top + y)
    assert page.evaluate("document.getElementById('map-read').textContent").startswith("L2.E5: ")
    pixel = f"Array.from({CANVAS}.getContext('2d').getImageData(%d, %d, 1, 1).data)"
    assert page.evaluate(pixel % (x, y)) == [0xB3, 0x58, 0x06, 255]  # --d6, the largest difference
    page.evaluate("document.querySelector('input[value=v]').click()")
    assert page.evaluate(pixel % (x - 12, y)) == [0xD5, 0x5E, 0x00, 255]  # --c-both, beside the sign


def test_questions_switch_the_map(show: Open) -> None:
    page = show(render([samples.several()]))
    _choose(page, "#map-question", 1)
    page.evaluate("document.getElementById('map-canvas').focus()")
    page.press("n")
    assert page.evaluate("document.getElementById('map-live').textContent").startswith("L0.E3: Associated")


def test_tokens_are_built_when_opened(show: Open) -> None:
    findings = samples.toy()
    question = findings["questions"][0]
    example = question["examples"][0]
    example["tokens"][5] = "a\u202eb\x00\n"
    page = show(render([findings]))
    count = "document.querySelectorAll('.example .text span').length"
    assert page.evaluate(count) == 0
    page.evaluate("document.querySelector('.example').open = true")
    page.evaluate("new Promise((done) => setTimeout(done, 60))")
    assert page.evaluate(count) == 2 * len(example["tokens"])  # the router's choices, and the probe's marks
    span = "document.querySelectorAll('.example .text span')[%d]"
    assert page.evaluate(f"{span % 5}.textContent") == "a\u27e8U+202E\u27e9b\u27e8U+0000\u27e9\u21b5\n"
    start = example["answer_start"]
    assert "prompt" in page.evaluate(f"{span % 0}.className")
    assert "span" in page.evaluate(f"{span % (len(example['tokens']) + start)}.className").split()
    assert "prompt" not in page.evaluate(f"{span % start}.className")
    first = "document.querySelectorAll('.example .pane:first-child .text span')"
    coloured = f"Array.from({first}).map((one) => /\\bw\\d/.test(one.className))"
    for number, site in enumerate(example["weights"]):
        _choose(page, ".example-site", number)
        assert page.evaluate(coloured) == [
            index in example["weights"][site]["at"] for index in range(len(example["tokens"]))
        ]
    assert page.complaints() == []


def test_both_halves_show_the_same_codes(show: Open) -> None:
    page = show(render([samples.toy()]))
    codes = [code for low, high in HIDDEN for code in (low - 1, low, high, high + 1) if 0 <= code <= 0x10FFFF]
    shown = page.evaluate(f"{codes}.map((code) => visible(String.fromCodePoint(code)))")
    expected = [visible(chr(code)) for code in codes]
    assert shown == expected


def test_many_tokens_and_a_huge_one(show: Open) -> None:
    findings = samples.toy()
    example = findings["questions"][0]["examples"][0]
    example.update(
        tokens=["x" * 1_000_000] + [" token"] * 29_999,
        weights={"L2.E5": {"at": list(range(0, 30_000, 2)), "weight": [0.5] * 15_000}},
        spans=[],
        answer_start=1,
    )
    findings["questions"][0]["examples"] = [example]  # nothing is marked, so there is one text
    page = show(render([findings]))
    page.evaluate("document.querySelector('.example').open = true")
    page.evaluate(
        "new Promise((done) => { const wait = () => document.querySelectorAll('.example .text span').length < 30000 "
        "? setTimeout(wait, 50) : done(); wait(); })"
    )
    assert page.evaluate("document.querySelectorAll('.example .text span').length") == 30_000
    assert "999,700 more characters left out" in page.evaluate(
        "document.querySelector('.example .text span').textContent"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_without_script_the_findings_stand_there(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(render([samples.toy()]), encoding="utf-8")
    page = browser.open(path)
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.reload")
    page.evaluate("1")
    browser.settle()
    text = page.evaluate("document.body.innerText").replace("\u00a0", " ")
    assert "(L2.E5) goes with refusal, and causes it here" in text
    assert "The map needs JavaScript" in text
    assert page.evaluate("document.getElementById('map-widget').hidden") is True
    page.close()
