"""One name for each verdict, wherever people meet it, and never a cause without its size."""

import ast
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

import moeprobe
from moeprobe.cli.compare import _in_words as change_words
from moeprobe.cli.correlate import summary as correlate_summary
from moeprobe.cli.interchange.test import _words as words_tested
from moeprobe.findings import Findings, verdict
from moeprobe.findings.row import ASSOCIATIONS
from moeprobe.findings.verdicts import CAUSAL, NAMES, VERDICTS, extent, extent_of_all, in_words, said
from moeprobe.report import render, swaps
from moeprobe.report.formats import as_csv, as_json, as_markdown
from moeprobe.report.glossary import TERMS
from moeprobe.report.verdicts import tally

Json = dict[str, Any]
ROOT = Path(moeprobe.__file__).parent.parent
LABELS = [one.label for one in VERDICTS]
# A badge of a cause on a site, and one in a legend.
SIZED = re.compile(r" for (?:(?:part|most) of the gap: .+ % \[.+\]|[\d.]+ % to [\d.]+ % of the gap each)\Z")
# Names of a findings file that people should not read: they have other words, and stand in code marks or nowhere.
CODES = re.compile(r"\b(?:tokens only|underpowered|tested and neither)\b", re.IGNORECASE)


def _every() -> Json:
    """Findings in which every verdict occurs; those that swaps do not decide are set by hand."""
    findings = samples.smollm()
    rows = [row for row in findings["rows"] if row["interchange"] is None]
    missing = [name for name in NAMES if name not in {row["verdict"] for row in findings["rows"]}]
    for row, name in zip(rows, missing, strict=False):
        if name in CAUSAL or name in ("neither", "underpowered"):
            row["interchange"] = next(r["interchange"] for r in findings["rows"] if r["interchange"] is not None)
            findings["interchange"][-1]["tested"].append(row["site"])
        row["verdict"] = name
    assert {row["verdict"] for row in findings["rows"]} == set(NAMES)
    return findings


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def _named(text: str) -> str | None:
    """The label that a printed verdict begins with, at the end of a word; None where it is none of the table."""
    found = [label for label in LABELS if re.match(rf"{re.escape(label)}(?! and)\b", text, re.IGNORECASE)]
    return max(found, key=len, default=None)


def test_the_table_holds_every_verdict_once() -> None:
    effects = {"enough_pairs": True, "necessary": False, "sufficient": False}
    states: list[Json | None] = [None, effects, effects | {"undecided": ["necessity"]}]
    states += [effects | {"necessary": a, "sufficient": b} for a, b in ((True, True), (True, False), (False, True))]
    assert {verdict(association, one) for association in ASSOCIATIONS for one in states} == set(NAMES)
    assert len({one.words for one in VERDICTS}) == len({one.sign for one in VERDICTS}) == len(NAMES)


def test_the_page_uses_the_table() -> None:
    page = _plain(render([_every()]))
    badges = re.findall(r'<span class="badge v-[a-z]+"><span aria-hidden="true">.</span> ([^<]*)</span>', page)
    assert {_named(badge) for badge in badges} == set(LABELS)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert [[label, sign] for label, _, sign in data["verdicts"]] == [[one.label, one.sign] for one in VERDICTS]
    summaries = re.findall(r'<summary><span class="site">[^<]*</span> ([^<]*)</summary>', page)
    assert summaries
    assert None not in map(_named, summaries)


def test_the_glossary_explains_each() -> None:
    page = render([samples.toy()])
    part = page[page.index('id="verdicts"') :]
    assert re.findall(r"</span> ([^<]*)</span></dt>", part[: part.index("</section>")]) == LABELS
    for one in VERDICTS:
        assert one.meaning in part
    words = {form.lower() for term in TERMS for form in (term.word, *term.forms)}
    assert not {name for name in NAMES if in_words(name) != name and name in words - {"associated"}}


def test_markdown_csv_and_json_use_the_table() -> None:
    findings = _every()
    text = _plain(as_markdown([findings]))
    heads = re.findall(r"^#### [^:]+: (.*)$", text, re.M)
    lines = re.findall(r"^\| L\d+\.E\d+ \| ([^|]*) \|", text, re.M)
    assert heads
    assert lines
    assert None not in map(_named, [*heads, *lines])
    body = {key: value for key, value in findings.items() if key != "schema"}
    table = list(csv.DictReader(io.StringIO(as_csv([Findings(**body)]))))
    assert {line["verdict"] for line in table} == set(LABELS)
    assert {line["association"] for line in table} <= {one.label for one in VERDICTS}
    for card in json.loads(as_json([findings]))["questions"][0]["findings"]:
        assert _named(card["verdict_in_words"]) == in_words(card["verdict"]).capitalize()


def test_the_terminal_uses_the_table() -> None:
    body = {key: value for key, value in _every().items() if key != "schema"}
    findings = Findings(**body)
    printed = correlate_summary(findings, findings.questions[0], len(findings.rows))
    table = printed.split("\n\n")[1].splitlines()[2:]
    for row in findings.rows:
        line = next(line for line in table if line.startswith(f"{row['site']} "))
        assert line.endswith(f"  {said(row['verdict'], row['interchange'])}")
        if row["interchange"] is not None:
            known = words_tested(row["interchange"], row["association"])
            assert known.startswith(in_words(verdict(row["association"], row["interchange"])))
    assert all(f"{in_words(name)}: " in repr(findings) for name in NAMES)
    assert change_words("tokens only") == in_words("tokens only")
    assert change_words("not changed") == "not changed"


def test_the_docs_use_the_table() -> None:
    docs = (ROOT / "docs/report.md").read_text()
    part = docs[docs.index("## Verdicts") : docs.index("## The map")]
    assert re.findall(r"^\| (\S) \| ([^|]+) \|", part, re.M) == [(one.sign, one.label) for one in VERDICTS]
    findings = (ROOT / "docs/findings.md").read_text()
    part = findings[findings.index("`verdict` is one of") : findings.index("## An interchange run")]
    listed = dict(re.findall(r'^\| `"([^"]+)"` \| ([^|]+) \|', part, re.M))
    assert listed == {one.name: one.words for one in VERDICTS}


def _strays(path: Path) -> list[str]:
    """What a file shows people that is only a name for programs: outside code marks, keys and comparisons."""
    text = path.read_text()
    if path.suffix == ".py":
        text = " ".join(_sentences(ast.parse(text)))
    return CODES.findall(re.sub(r"`[^`\n]*`|\{[%#].*?[%#]\}", "", text))


def _sentences(tree: ast.AST) -> list[str]:
    """Texts of more words than a name: what is put together or printed, docstrings apart."""
    hidden = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in hidden]
    return [text for text in texts if isinstance(text, str) and text not in NAMES]


@pytest.mark.parametrize("where", ["docs/*.md", "*.md", "moeprobe/report/**/*", "moeprobe/cli/**/*", "moeprobe/demo/*"])
def test_names_for_programs_are_shown_to_nobody(where: str) -> None:
    files = [path for path in ROOT.glob(where) if path.suffix in (".md", ".py", ".j2", ".js") and path.name != "api.md"]
    assert files
    assert {str(path): strays for path in files if (strays := _strays(path))} == {}


def test_the_checks_bite(tmp_path: Path) -> None:
    assert _named("Tested and neither") is None
    assert _named("Necessary and more") is None
    assert _named("Necessary for part of the gap: 3.0 % [2.1, 4.0]") == "Necessary"
    planted = tmp_path / "planted.py"
    planted.write_text('print(f"{1} is underpowered")\nx = row["verdict"] == "tokens only"\n')
    assert _strays(planted) == ["underpowered"]
    for name in ("planted.md", "planted.j2"):
        planted = tmp_path / name
        planted.write_text("It is tokens only, `underpowered`.")
        assert _strays(planted) == ["tokens only"]
    assert not SIZED.search("Necessary and sufficient")
    assert not SIZED.search("Necessary and sufficient, see the percentages")


def test_no_badge_of_a_cause_is_bare() -> None:
    page = _plain(render([_every()]))
    legends = page[page.index('id="verdicts"') :]
    before = page[: page.index('id="verdicts"')]
    badges = re.findall(r'<span class="badge v-(?:both|necessary|sufficient)">.*?</span> ([^<]*)</span>', before)
    assert len(badges) >= 6
    assert [badge for badge in badges if not SIZED.search(badge)] == []
    assert "Necessary and sufficient</span></dt>" in legends
    text = _plain(as_markdown([_every()]))
    causal = re.findall(r"(?:^#### [^:]+: |^\| L\d+\.E\d+ \| )((?:Necessary|Sufficient)[^|\n]*?)(?: \||$)", text, re.M)
    assert causal
    assert [one for one in causal if not SIZED.search(one.replace("\\", ""))] == []


@pytest.mark.parametrize(
    ("name", "necessity", "sufficiency", "words"),
    [
        ("necessary and sufficient", (33.03, [25.04, 42.33]), (27.76, [19.78, 37.39]),
         "for part of the gap: 33 % [25, 42] and 28 % [20, 37]"),
        ("necessary and sufficient", (97.3, [95.0, 99.0]), (60.0, [49.9, 70.0]),
         "for part of the gap: 97 % [95, 99] and 60 % [50, 70]"),
        ("necessary and sufficient", (97.3, [95.0, 99.0]), (103.4, [98.0, 108.0]),
         "for most of the gap: 97 % [95, 99] and 103 % [98, 108]"),
        ("necessary", (4.04, [3.0, 5.0]), (90.0, [80.0, 99.0]), "for part of the gap: 4.0 % [3.0, 5.0]"),
        ("sufficient", (4.04, [3.0, 5.0]), (90.0, [80.0, 99.0]), "for most of the gap: 90 % [80, 99]"),
        ("neither", (4.04, [3.0, 5.0]), (90.0, [80.0, 99.0]), ""),
    ],
)  # fmt: skip
def test_the_size_of_a_cause(name: str, necessity: Any, sufficiency: Any, words: str) -> None:
    effects = {
        key: {"percent": percent, "ci": ci}
        for key, (percent, ci) in (("necessity", necessity), ("sufficiency", sufficiency))
    }
    assert extent(name, effects) == words
    assert said(name, effects) == f"{in_words(name)} {words}".rstrip()
    assert swaps.part("necessary", effects) == ("" if necessity[1][0] >= 50 else "part of ")
    for key in ("necessity", "sufficiency"):  # the same digits as elsewhere on the page
        one = {"necessity": "necessary", "sufficiency": "sufficient"}[key]
        assert extent(one, effects).endswith(_plain(swaps.effect(effects[key])))


def test_several_sites_in_one_count_give_their_range() -> None:
    few, much = ({"necessity": {"percent": value, "ci": [value - 1, value + 1]}} for value in (12.0, 88.0))
    assert extent_of_all("necessary", [few]) == "for part of the gap: 12 % [11, 13]"
    assert extent_of_all("necessary", [few, much]) == "for 12 % to 88 % of the gap each"
    assert extent_of_all("association only", [few, much]) == ""
    rows = [{"verdict": "necessary", "interchange": one} for one in (few, much)]
    ((badge, number),) = tally(rows)
    assert (number, _plain(badge.text)) == (2, "Necessary for 12 % to 88 % of the gap each")
