"""Markdown, JSON and CSV say what the page says, and no text in them can become markup or a formula."""

import csv
import io
import json
import re
from pathlib import Path

import markdown_it
import pytest
import report_samples
from click.testing import CliRunner

from moeprobe.cli.main import cli
from moeprobe.errors import FindingsError
from moeprobe.findings import Findings, load_findings
from moeprobe.findings.frames import effects_frame, layers_frame, pairs_frame, rows_frame
from moeprobe.report import as_csv, as_json, as_markdown
from moeprobe.report.formats import escaped

HOSTILE = [
    "# heading", "[link](javascript:alert(1))", "![x](http://e.vil/a.png)", "<script>alert(1)</script>", "| a | b |",
    "`code`", "*em* _em_ ~~del~~", "- item", "1. item", "+ item", "==== ", "&lt;b&gt;", "<http://e.vil>", "\\*a*",
    "> quote", "a\n\n# heading", "12) item",
]  # fmt: skip


def loaded(made: dict, folder: Path) -> Findings:
    path = folder / "f.json"
    path.write_text(json.dumps(made), encoding="utf-8")
    return load_findings(path)


@pytest.mark.parametrize("text", HOSTILE)
def test_escaped_text_renders_as_itself_and_as_nothing_else(text: str) -> None:
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(escaped(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    kinds = {child.type for child in tokens[1].children}
    assert kinds <= {"text", "text_special"}
    assert "".join(child.content for child in tokens[1].children) == " ".join(text.split())


LINKED = [
    "https://e.vil/x", "HTTP://e.vil", "see www.e.vil now", "WWW.e.vil", "a@e.vil.com", "ask @somebody",
    "mailto:a@e.vil", "ftp://e.vil", "(www.e.vil)", "xmpp:a@e.vil.com/b",
]  # fmt: skip
# The starts of GitHub's autolinks (GFM 6.9) and of mentions; an entity in the source breaks the first, a comment the
# others, which are looked for in one piece of text.
AUTOLINK = re.compile(r"(?i)(https?|ftp)://|www\.|@[\w.-]")


@pytest.mark.parametrize("text", LINKED)
def test_no_address_and_no_name_links_itself(text: str) -> None:
    assert AUTOLINK.search(text)
    assert not AUTOLINK.search(escaped(text))
    (_, inline, _) = markdown_it.MarkdownIt("commonmark").parse(escaped(text))
    shown = [child.content for child in inline.children if child.type != "html_inline"]
    assert "".join(shown) == text
    assert {child.content for child in inline.children if child.type == "html_inline"} <= {"<!-- -->"}


def test_the_check_of_escaping_sees_what_is_not_escaped() -> None:
    """The same look at raw text finds markup in nearly all of them, so it could fail."""
    parser = markdown_it.MarkdownIt("commonmark").enable("table").enable("strikethrough")

    def as_itself(text: str) -> bool:
        tokens = parser.parse(text)
        inline = tokens[1].children if len(tokens) == 3 and tokens[0].type == "paragraph_open" else []
        return bool(inline) and "".join(child.content for child in inline) == text

    assert sum(map(as_itself, HOSTILE)) <= 2  # a table without its second line, and a rule that ends in a space


def test_markdown_holds_each_finding_with_its_doubts_and_limits() -> None:
    page = as_markdown([report_samples.smollm()])
    assert page.startswith("# Which experts go with refusal?\n")
    for site, label in (("L18.E5", "Necessary and sufficient"), ("L18.E11", "Association only")):
        assert f"#### {site}: {label}" in page
    assert "What would make this wrong:" in page
    assert "### What may not be concluded" in page
    assert page.count("\n| L18.E") == 16
    assert report_samples.WORDS[-1] in report_samples._ANSWER
    assert report_samples._ANSWER not in page


def test_json_says_the_same_as_markdown() -> None:
    made = report_samples.smollm()
    document = json.loads(as_json([made], title="A title"))
    assert document["schema"] == "moeprobe.report/1"
    assert document["title"] == "A title"
    page = as_markdown([made])
    for found in document["questions"][0]["findings"]:
        assert escaped(found["summary"]) in page
        assert found["what_would_make_it_wrong"]


def test_csv_has_a_line_for_each_row_with_the_numbers_of_the_file(tmp_path: Path) -> None:
    made = report_samples.smollm()
    lines = list(csv.DictReader(io.StringIO(as_csv([loaded(made, tmp_path)]))))
    assert len(lines) == len(made["rows"]) == 16
    for line, row in zip(lines, made["rows"], strict=True):
        assert line["site"] == row["site"]
        assert float(line["rate_difference"]) == pytest.approx(row["rate_difference"], rel=1e-12)
        assert float(line["rate_difference_low"]) == pytest.approx(row["rate_difference_ci"][0], rel=1e-12)
        assert float(line["marginal.q"]) == pytest.approx(row["marginal"]["q"], rel=1e-12)
        swaps = row["interchange"]
        if swaps is None:
            assert line["necessity.percent"] == ""
        else:
            assert float(line["necessity.percent"]) == pytest.approx(swaps["necessity"]["percent"], rel=1e-12)
            assert float(line["sufficiency.high"]) == pytest.approx(swaps["sufficiency"]["ci"][1], rel=1e-12)


def test_no_cell_of_the_csv_is_a_formula(tmp_path: Path) -> None:
    made = report_samples.untested()
    name = made["questions"][0]["name"]
    hostile = '=HYPERLINK("http://e.vil","x")'
    made["questions"][0]["name"] = hostile
    for row in made["rows"]:
        assert row["probe"] == name
        row["probe"] = hostile
    for line in csv.reader(io.StringIO(as_csv([loaded(made, tmp_path)]))):
        assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in line)
        assert not any(cell.startswith("-") and not cell[1:2].isdigit() for cell in line)


def test_no_name_of_a_column_is_a_formula_and_none_stands_twice(tmp_path: Path) -> None:
    made = report_samples.untested()
    for row in made["rows"]:
        row |= {'=HYPERLINK("http://e.vil")': 1, "@x": "y", "model": "another"}
    head, first = list(csv.reader(io.StringIO(as_csv([loaded(made, tmp_path)]))))[:2]
    assert not any(name.startswith(("=", "+", "@", "-", "\t")) for name in head)
    assert '\'=HYPERLINK("http://e.vil")' in head
    assert head.count("model") == 1
    assert first[0] == made["model"]["id"]


def test_frames_are_tidy(tmp_path: Path) -> None:
    made = report_samples.smollm()
    findings = loaded(made, tmp_path)
    assert len(rows_frame(findings)) == 16
    effects = effects_frame(findings)
    assert set(effects["site"]) >= {"L18.E5", "L18.moe", "L12.H3"}
    one = effects[(effects["site"] == "L18.E5") & (effects["effect"] == "necessity")].iloc[0]
    row = next(row for row in made["rows"] if row["site"] == "L18.E5")
    assert one["percent"] == row["interchange"]["necessity"]["percent"]
    assert one["null_largest"] == max(abs(value) for value in row["interchange"]["null"]["necessity"])
    pairs = pairs_frame(findings)
    assert pairs.empty
    run = findings.interchange[0]
    run["per_pair"] = {"L18.E5": {"necessity": [0.5] * len(run["pair_ids"]), "knockout": [None] * len(run["pair_ids"])}}
    pairs = pairs_frame(findings)
    assert list(pairs["pair"]) == 2 * run["pair_ids"]
    assert list(pairs[pairs["arm"] == "necessity"]["effect"]) == [0.5] * len(run["pair_ids"])
    assert len(layers_frame(findings)) == len(made["questions"][0]["layers"])


@pytest.mark.parametrize(
    ("name", "start"), [("r.md", "# Which"), ("r.csv", "model,"), ("r.json", "{"), ("r.html", "<!")]
)
def test_the_suffix_says_the_form(tmp_path: Path, name: str, start: str) -> None:
    loaded(report_samples.smollm(), tmp_path)
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "f.json"), "-o", str(tmp_path / name)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_a_suffix_of_no_form_and_nothing_to_write_are_usage_errors(tmp_path: Path) -> None:
    loaded(report_samples.smollm(), tmp_path)
    for arguments in (["-o", str(tmp_path / "r.docx")], []):
        done = CliRunner().invoke(cli, ["report", str(tmp_path / "f.json"), *arguments])
        assert done.exit_code == 2
    assert not (tmp_path / "r.docx").exists()


@pytest.mark.parametrize("broken", [[1.0], ["x"], {"a": 1}, 3])
def test_per_pair_values_that_fit_no_pair_are_refused(tmp_path: Path, broken: object) -> None:
    made = report_samples.smollm()
    made["interchange"][0]["per_pair"] = {"L18.E5": {"necessity": broken}}
    with pytest.raises(FindingsError, match="needs one number or null for each of 24 pairs"):
        loaded(made, tmp_path)


def test_the_tables_of_the_markdown_are_tables() -> None:
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(as_markdown([report_samples.smollm()]))
    assert sum(token.type == "tr_open" for token in tokens) == 1 + 16


def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    loaded(report_samples.smollm(), tmp_path)
    done = CliRunner().invoke(cli, ["report", str(tmp_path / "f.json"), "-o", "-", "--format", "csv"])
    assert done.exit_code == 0
    assert done.stdout == as_csv([load_findings(tmp_path / "f.json")])
