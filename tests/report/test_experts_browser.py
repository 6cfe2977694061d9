"""The table of experts and the measures of the map, in headless Chromium."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_designs
import report_samples as samples
from report_browser import Browser, Page

from moeprobe.report import render, table
from moeprobe.report.voice import voice_of

pytestmark = pytest.mark.browser
Open = Callable[[str], Page]
ROWS = "Array.from(document.querySelectorAll('table.experts tbody tr'), (one) => one.querySelector('th').textContent)"
STATUS = "document.querySelector('.table-status').textContent"


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    pages: list[Page] = []

    def opened(html: str) -> Page:
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(html, encoding="utf-8")
        pages.append(browser.open(path))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def large() -> str:
    return render([samples.large()])


def _filter(page: Page, name: str, value: str) -> None:
    page.evaluate(
        f"((one) => {{ one.value = {json.dumps(value)}; one.dispatchEvent(new Event('input')); }})"
        f"(document.querySelector('[data-filter={name}]'))"
    )


def _press(page: Page, selector: str) -> None:
    page.evaluate(f"document.querySelector({json.dumps(selector)}).click()")


def test_every_expert_is_on_some_page(show: Open, large: str) -> None:
    page = show(large)
    assert page.evaluate(STATUS) == "1 to 100 of 10,240 experts"
    seen: list[str] = []
    while True:
        seen += page.evaluate(ROWS)
        if page.evaluate("document.querySelector('[data-turn=next]').disabled"):
            break
        _press(page, "[data-turn=next]")
    expected = [row["site"] for row in table.order(samples.large()["rows"])]
    assert seen == expected
    assert page.evaluate(STATUS) == "10,201 to 10,240 of 10,240 experts"


def test_heads_sort_and_say_so(show: Open) -> None:
    findings = samples.toy()
    page = show(render([findings]))
    head = "document.querySelectorAll('table.experts thead th')[%d]"
    assert page.evaluate(f"{head % 6}.getAttribute('aria-sort')") == "none"
    known = [row for row in findings["rows"] if row["rate_difference"] is not None]
    page.evaluate(f"{head % 6}.querySelector('button').click()")  # the difference, largest first
    assert page.evaluate(ROWS)[0] == max(known, key=lambda row: row["rate_difference"])["site"]
    assert page.evaluate(f"{head % 6}.getAttribute('aria-sort')") == "descending"
    page.evaluate(f"{head % 6}.querySelector('button').click()")
    assert page.evaluate(f"{head % 6}.getAttribute('aria-sort')") == "ascending"
    assert page.evaluate(ROWS)[0] == min(known, key=lambda row: row["rate_difference"])["site"]
    page.evaluate(f"{head % 6}.querySelector('button').click()")
    assert page.evaluate(ROWS) == [row["site"] for row in table.order(findings["rows"])]
    page.evaluate(f"{head % 11}.querySelector('button').click()")  # q, smallest first, those without at the end
    shown = page.evaluate(ROWS)
    by_site = {row["site"]: row["q"] for row in findings["rows"]}
    values = [by_site[site] for site in shown]
    tested = [value for value in values if value is not None]
    assert tested == sorted(tested)
    assert values[len(tested) :] == [None] * (len(values) - len(tested))


def test_filters_narrow_the_table(show: Open, large: str) -> None:
    page = show(large)
    _filter(page, "find", "l14.e114")
    assert page.evaluate(ROWS) == ["L14.E114"]
    assert page.evaluate(STATUS) == "1 to 1 of 1 experts (filtered from 10,240)"
    _filter(page, "find", "L14")
    assert page.evaluate(STATUS).startswith("1 to 100 of 256 experts")
    _filter(page, "find", "")
    _filter(page, "layer", "39")
    assert all(site.startswith("L39.") for site in page.evaluate(ROWS))
    _press(page, "[data-clear]")
    _filter(page, "level", "0.05")
    found = sum(row["q"] is not None and row["q"] <= 0.05 for row in samples.large()["rows"])
    assert f" of {found} experts" in page.evaluate(STATUS)
    _filter(page, "level", "")
    _filter(page, "find", "nothing of the kind")
    assert page.evaluate(ROWS) == []
    assert page.complaints() == []


@pytest.mark.parametrize("name", ["toy", "smollm", "pairs", "scores", "number", "inside", "prompts"])
def test_both_halves_print_the_same_lines(show: Open, name: str) -> None:
    findings = samples.ALL[name]()
    question = findings["questions"][0]
    rows = table.order([row for row in findings["rows"] if row["probe"] == question["name"]])
    expected = [line.cells for line in table.table("m0q0", rows, question, voice_of(question)).lines]
    page = show(render([findings]))
    assert page.evaluate("Array.from(questions[0].order, (cell) => lines.texts(questions[0], cell))") == expected


def test_a_link_leads_to_a_line_on_another_page(show: Open, large: str) -> None:
    page = show(large)
    last = table.order(samples.large()["rows"])[-1]
    cell = 256 * last["layer"] + last["expert"]
    page.evaluate(f"tables.get('m0q0').go({cell})")
    assert page.evaluate("document.activeElement.querySelector('th').textContent") == last["site"]
    _filter(page, "find", "nothing of the kind")
    page.evaluate("document.querySelector('#found a[href*=\"-L\"]').click()")
    assert page.evaluate("document.activeElement.tagName") == "TR"


def test_what_is_saved_is_what_is_shown_and_no_formula(show: Open) -> None:
    findings = samples.toy()
    untestable = next(row for row in findings["rows"] if row["p"] is None)
    untestable["reason"] = '=HYPERLINK("https://example.invalid","x")'
    page = show(render([findings]))
    text = page.evaluate("lines.csv(questions[0], Array.from(questions[0].order))")
    read = list(csv.DictReader(io.StringIO(text)))
    rows = table.order(findings["rows"])
    assert [line["site"] for line in read] == [row["site"] for row in rows]
    for line, row in zip(read, rows, strict=True):
        for key in ("S1", "S0", "rate_difference", "t", "q"):
            assert (not line[key]) == (row[key] is None)
            assert not line[key] or float(line[key]) == pytest.approx(row[key], rel=1e-5)
    assert float(read[0]["necessity_percent"]) == pytest.approx(
        rows[0]["interchange"]["necessity"]["percent"], abs=0.01
    )
    said = next(line for line in read if line["site"] == untestable["site"])["remark"]
    assert said == "'" + untestable["reason"]
    starts = page.evaluate("['=1', '+1', '-1', '@x', '\\t1', '\\r1', 'a,\"b'].map(lines.harmless)")
    assert starts == ["'=1", "'+1", "'-1", "'@x", "'\t1", '"\'\r1"', '"a,""b"']


def test_the_save_button_asks_for_nothing(show: Open) -> None:
    page = show(render([samples.toy()]))
    _press(page, "[data-save]")
    page.browser.settle()
    assert [url for url in page.requests() if not url.startswith("blob:")] == []
    assert page.complaints() == []


MEASURES = ["d", "W", "Q", "t", "b", "q", "N", "F", "v"]


@pytest.mark.parametrize("name", ["toy", "number", "turned"])
def test_every_measure_is_drawn_and_read_out(show: Open, name: str) -> None:
    findings = samples.ALL[name]()
    for row in findings["rows"]:
        row["beyond_difference"] = row["S1"]  # in the samples it is the rate difference
    page = show(render([findings]))
    drawn = set()
    for measure in MEASURES:
        chosen = f"document.querySelector('input[value={measure}]')"
        if page.evaluate(f"{chosen}.disabled"):
            assert name != "toy"
            continue
        page.evaluate(f"{chosen}.click()")
        drawn.add(page.evaluate("document.getElementById('map-canvas').toDataURL()"))
        assert page.evaluate("document.getElementById('map-meaning').textContent")
        page.evaluate("document.getElementById('map-canvas').focus()")
        page.press("n")
        said = page.evaluate("document.getElementById('map-live').textContent")
        assert "NaN" not in said
        assert "undefined" not in said
        page.evaluate("document.getElementById('map-canvas').blur()")
    assert len(drawn) == (9 if name == "toy" else 7), "two measures look alike"
    assert page.complaints() == []


def test_cells_that_were_not_tested_are_hatched_and_say_so(show: Open) -> None:
    page = show(render([samples.toy()]))
    page.evaluate("document.querySelector('input[value=N]').click()")
    page.evaluate("document.getElementById('map-canvas').focus()")
    assert page.evaluate("document.getElementById('map-live').textContent").endswith("Not tested by interchange.")
    page.press("n")
    page.press("n")
    assert "Swapped: necessity 98" in page.evaluate("document.getElementById('map-live').textContent")
    assert "Hatched: not tested" in page.evaluate("document.getElementById('map-meaning').textContent")


def test_what_is_not_associated_is_pale(show: Open) -> None:
    """Chance alone makes some cells of a large map look strong, so they are pale unless asked for."""
    page = show(render([samples.untested()]))
    sums = "Array.from(document.getElementById('map-canvas').getContext('2d').getImageData(44, 24, 20, 4).data)"
    pale = page.evaluate(sums)
    page.evaluate("document.getElementById('map-fade').click()")
    assert page.evaluate(sums) != pale
    assert "Pale" not in page.evaluate("document.getElementById('map-meaning').textContent")


def test_512_experts_in_60_layers_are_drawn(show: Open) -> None:
    findings = report_designs.shortened(samples.untested())
    findings["model"]["layers"] = [
        {"layer": number, "experts": 512, "k": 8, "weight_sum": "1.0", "shared": 0} for number in range(60)
    ]
    page = show(render([findings]))
    assert page.evaluate("questions[0].total") == 30_720
    page.evaluate("document.getElementById('map-canvas').focus()")
    page.press("End")
    assert page.evaluate("document.getElementById('map-live').textContent").startswith("L0.E511")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert page.complaints() == []
