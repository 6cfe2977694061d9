"""The methods section says what was run, and the reference list holds exactly the works that it names."""

import re
from typing import Any

import pytest
import report_designs as designs
import report_samples as samples
from report_hostile import Outline

from moeprobe.report import render
from moeprobe.report.methods import paragraphs, works
from moeprobe.report.references import WORKS, listed
from moeprobe.report.voice import voice_of

Json = dict[str, Any]
BASIC = {"benjamini1995", "smyth2004", "kitagawa1955"}


def _cited(findings: Json, number: int = 0) -> set[str]:
    asked = findings["questions"][number]
    rows = [row for row in findings["rows"] if row["probe"] == asked["name"]]
    runs = [run for run in findings["interchange"] if run["probe"] == asked["name"]]
    return works(paragraphs(findings, asked, rows, runs, voice_of(asked)))


def _text(findings: Json) -> str:
    asked = findings["questions"][0]
    made = paragraphs(findings, asked, findings["rows"], findings["interchange"], voice_of(asked))
    return " ".join(said.text for one in made for said in one.sentences).replace("\u00a0", " ")


@pytest.mark.parametrize("name", list(samples.ALL))
def test_the_list_holds_exactly_what_is_cited(name: str) -> None:
    page = Outline(render([samples.ALL[name]()]))
    ids = {value for tag, key, value in page.values if tag == "li" and key == "id" and value.startswith("ref-")}
    links = {value[1:] for tag, key, value in page.values if tag == "a" and key == "href" and value.startswith("#ref-")}
    assert ids == links != set()


def test_two_groups_cite_welch_and_no_interchange() -> None:
    cited = _cited(samples.untested())
    assert BASIC | {"welch1947", "mantel1959", "yusuf1985", "mann1947"} <= cited
    assert not cited & {"mackinnon1985", "hesterberg2015", "romano2005", "geiger2021", "freedman1983", "holm1979"}


def test_scores_cite_robust_errors_and_not_welch() -> None:
    cited = _cited(designs.scores())
    assert "mackinnon1985" in cited
    assert "welch1947" not in cited


def test_pairs_cite_neither_welch_nor_robust_errors() -> None:
    assert not _cited(designs.pairs()) & {"welch1947", "mackinnon1985"}
    assert "paired t" in _text(designs.pairs())


def test_two_groups_with_something_held_fixed_are_a_regression() -> None:
    """docs/findings.md: where blocks or numbers are held fixed the interval is of the model's coefficient, HC3."""
    findings = designs.prompts()
    assert findings["questions"][0]["design"]["held"]
    assert "mackinnon1985" in _cited(findings)
    assert "welch1947" not in _cited(findings)


def test_circular_shifts_are_no_moderated_t() -> None:
    cited, text = _cited(designs.turned()), _text(designs.turned())
    assert "smyth2004" not in cited
    assert "turned in circles" in text
    assert "moderated t" not in text


def test_interchange_cites_what_it_ran() -> None:
    findings = samples.toy()
    assert {"geiger2021", "hesterberg2015", "westfall1993", "romano2005", "kullback1951"} <= _cited(findings)
    for row in findings["rows"]:
        if row["interchange"] is not None:
            row["interchange"] |= {"adjustment": "held out", "price": None}
    cited = _cited(findings)
    assert "romano2005" not in cited
    assert "kullback1951" not in cited
    assert "benjamini1995" in cited


def test_arms_and_figures_stand_in_the_sentences() -> None:
    findings = samples.toy()
    run, text = findings["interchange"][0], _text(samples.toy())
    assert "In 16 pairs of prompts" in text or "in 16 pairs of prompts" in text
    assert f"{run['bootstrap']:,} bootstrap samples" in text
    assert "(placebo)" in text
    run["arms"] = ["necessity", "sufficiency"]
    assert "No control donor was run." in _text(findings)
    assert "10,000 draws" in text
    assert "q below 0.05 was called associated" in text
    findings["questions"][0]["design"] |= {"draws": 0, "resampling": "none"}
    assert "Family-wise p values are from" not in _text(findings)


def test_every_work_has_a_year_in_both_forms() -> None:
    for key, work in WORKS.items():
        year = re.search(r"\d{4}$", key)
        assert year is not None
        assert work.cited.endswith(year[0]), key
        assert f"({year[0]})" in work.reference, key
        assert work.cited.split()[0] == work.reference.split(",")[0], key


def test_references_stand_in_alphabetical_order() -> None:
    references = [work.reference for _, work in listed(set(WORKS))]
    assert references == sorted(references)
    assert listed(set()) == []
