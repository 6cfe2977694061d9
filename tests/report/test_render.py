"""The page without a browser: escaping, policy, order of sections, no text on request, walls."""

import base64
import copy
import hashlib
import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import report_designs
import report_samples as samples
from jinja2 import UndefinedError
from report_hostile import STRINGS, Outline, poisoned

from moeprobe.errors import FindingsError
from moeprobe.findings import load_findings
from moeprobe.report import render
from moeprobe.visible import visible

room = import_module("moeprobe.report.render")  # the package's name `render` is the function
PAGE = Path(room.__file__).parent / "page"


@pytest.mark.parametrize("name", list(samples.ALL))
def test_sections_stand_in_order(name: str) -> None:
    page = Outline(render([samples.ALL[name]()]))
    ids = [value for tag, key, value in page.values if tag == "section" and key == "id"]
    assert ids == [
        "found", "limits", "asked", "interchange", "map", "layers", "table", "tokens", "methods", "glossary",
        "provenance",
    ]  # fmt: skip
    every = [value for _, key, value in page.values if key == "id"]
    assert len(every) == len(set(every)), "an id stands twice"


def test_the_side_of_every_generation_is_not_listed() -> None:
    findings = copy.deepcopy(samples.toy())
    findings["questions"][0]["grouping"] |= {"members": "+-." * 5000, "readings": f"sha256:{'5' * 64}"}
    page = render([findings])
    assert "5" * 64 in page
    assert "+-.+-." not in page


@cache
def _several() -> dict[str, Any]:
    return report_designs.shortened(samples.several())


@cache
def _plain() -> Outline:
    """The page whose strings are harmless."""
    every = [_several(), _several(), *report_designs.short()]  # twice: the runs side by side
    return Outline(render([poisoned(findings, "x") for findings in every], title="x"))


@pytest.mark.parametrize("text", STRINGS)
def test_no_string_adds_a_tag_or_an_attribute(text: str) -> None:
    every = [_several(), _several(), *report_designs.short()]  # twice: the runs side by side
    plain = _plain()
    page = render([poisoned(findings, text) for findings in every], title=text)
    page.encode()
    hostile = Outline(page)
    assert ("section", "id", "runs") in hostile.values
    assert visible(page) == page, "a hidden character stands in the page as it is"
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.raw] == [name for name, _ in plain.raw]
    assert hostile.source("style:text") == plain.source("style:text")
    assert hostile.source("script:text") == plain.source("script:text")


def test_the_outline_test_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    made = room.environment()
    made.autoescape = False
    monkeypatch.setattr(room, "environment", lambda: made)
    findings = samples.toy()
    plain, hostile = (Outline(render([poisoned(findings, text)])) for text in ("x", "<img src=x onerror=y>"))
    assert hostile.tags != plain.tags


def test_policy_hashes_match_and_nothing_unsafe() -> None:
    page = Outline(render([samples.toy()]))
    (policy,) = [
        value for tag, key, value in page.values if tag == "meta" and key == "content" and "default-src" in value
    ]
    for kind, directive in (("style:text", "style-src"), ("script:text", "script-src")):
        digest = base64.b64encode(hashlib.sha256(page.source(kind).encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", list(samples.ALL))
def test_no_inline_style_handler_or_address(name: str) -> None:
    page = Outline(render([samples.ALL[name]()]))
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [key for key in attributes if key.startswith("on")], tag
        assert tag not in ("link", "img", "iframe", "object", "embed", "form", "base")
    links = [value for _, key, value in page.values if key in ("href", "src", "xlink:href", "action", "data")]
    assert links
    assert all(value.startswith("#") for value in links)
    own = page.source("style:text") + page.source("script:text")
    assert not re.search(
        r"https?://|url\(|@import|\beval\b|innerHTML|document\.write|fetch\(|XMLHttp|new Function", own
    )


def test_links_inside_the_page_lead_somewhere() -> None:
    page = Outline(render([samples.smollm()]))
    ids = {value for _, key, value in page.values if key == "id"}
    assert {value[1:] for _, key, value in page.values if key == "href"} <= ids
    assert {value for _, key, value in page.values if key == "aria-labelledby"} <= ids


def test_a_missing_name_in_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        room.environment().from_string("{{ nothing_of_the_kind }}").render()


def test_data_is_json_that_cannot_leave_its_element() -> None:
    findings = samples.toy()
    findings["questions"][0]["examples"][0]["tokens"][0] = "</script><script>x</script>\u2028\ud800"
    page = render([findings])
    page.encode()
    assert Outline(page).tokens()["tokens"][0][0] == "</script><script>x</script>\u2028\ud800"


def test_numbers_that_are_not_finite_are_refused() -> None:
    findings = samples.toy()
    findings["questions"][0]["examples"][0]["weights"] = {"L0.E0": {"at": [0], "weight": [float("nan")]}}
    with pytest.raises(ValueError, match="JSON compliant"):
        render([findings])


def test_without_text_no_prompt_or_answer_leaks() -> None:
    findings = samples.several()
    for question in findings["questions"]:
        for example in question["examples"]:
            example["tokens"] = [f" secret{index}" for index, _ in enumerate(example["tokens"])]
    assert "secret7" in json.dumps(Outline(render([findings])).tokens())
    page = render([findings], text=False)
    assert "secret" not in page
    assert [one["packed"] for one in Outline(page).data["tokens"]] == ["", "", ""]
    assert "left out of this report on request" in page
    assert "answer tokens" in Outline(page).words


def test_token_text_is_only_in_the_data() -> None:
    findings = samples.toy()
    findings["questions"][0]["examples"][0]["tokens"][3] = " onlyonce"
    page = render([findings])
    assert "onlyonce" not in page
    assert Outline(page).tokens()["tokens"][0][3] == " onlyonce"


def test_findings_are_readable_without_script() -> None:
    words = Outline(render([samples.toy()])).words.replace("\u00a0", " ")
    assert "Expert 5 of layer 2 (L2.E5) goes with refusal, and causes it here" in words
    assert "swapping it or knocking it out changed nothing (exactly 0): association only" in words
    assert "What would make this wrong" in words
    assert "pair-03" in words


def test_nothing_found_is_said_plainly() -> None:
    words = Outline(render([samples.nothing()])).words
    assert "No expert was found that goes with hedging." in words
    assert "Nothing was found." in words


def test_large_findings_keep_200_lines_and_say_so() -> None:
    page = Outline(render([samples.large()]))
    lines = [value for tag, key, value in page.values if tag == "tr" and key == "id"]
    assert len(lines) == 200
    assert "Without JavaScript these are the 200 leading of 10,240 experts" in page.words
    assert "the other 10,040 are in the findings file" in page.words


def test_several_findings_make_one_page() -> None:
    page = Outline(render([samples.toy(), samples.smollm()]))
    assert [one["key"] for one in page.data["maps"]] == ["m0q0", "m1q0"]
    assert "refusal in moeprobe/toy-planted" in page.words


def test_an_unknown_verdict_stops_the_report() -> None:
    findings = samples.toy()
    findings["rows"][0]["verdict"] = "certain"
    with pytest.raises(FindingsError, match="certain"):
        render([findings])


def test_missing_values_are_dashes() -> None:
    findings = samples.toy()
    for row in findings["rows"]:
        row.update(Q1=None, Q0=None)
    findings["questions"][0]["design"].update(length_ratio_before=None, length_ratio_after=None, prior_df=None)
    for key in ("necessity", "sufficiency", "knockout"):
        next(row for row in findings["rows"] if row["site"] == "L2.E5")["interchange"][key]["ci"] = None
    words = Outline(render([findings])).words
    assert "prior degrees of freedom: none" in words
    assert "[no interval]" in words


def test_no_question_at_all() -> None:
    findings = samples.toy() | {"questions": [], "rows": [], "interchange": []}
    assert "The findings hold no question." in Outline(render([findings])).words


def test_importing_the_report_loads_nothing_heavy() -> None:
    script = (
        "import sys, moeprobe.report; "
        "print([n for n in ('torch','transformers','pandas','scipy','statsmodels','moeprobe.capture','moeprobe.trace',"
        "'moeprobe.stats') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _scheme(css: str) -> tuple[dict[str, str], dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    )
    return light, light | dark


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_colours_reach_aa(scheme: int) -> None:
    assert round(_contrast("#000000", "#ffffff"), 3) == 21
    colours = _scheme((PAGE / "page.css").read_text())[scheme]
    inks = [name for name in colours if name in ("ink", "muted", "accent") or name.startswith("v-")]
    assert len(inks) == 12
    weak = {
        (ink, ground): round(_contrast(colours[ink], colours[ground]), 2)
        for ink in inks
        for ground in ("paper", "card", "wash")
        if _contrast(colours[ink], colours[ground]) < 4.5
    }
    assert weak == {}
    assert _contrast(colours["ink"], colours["token"]) >= 4.5  # the strongest token background
    assert _contrast(colours["card"], colours["accent"]) >= 4.5  # the chosen switch


def test_data_size_of_many_tokens() -> None:
    findings = samples.toy()
    example = findings["questions"][0]["examples"][0]
    example.update(
        tokens=[" token"] * 200_000, weights={"L2.E5": {"at": list(range(0, 200_000, 2)), "weight": [0.5] * 100_000}}
    )
    page = render([findings])
    assert len(page) < 600_000, f"{len(page):,} bytes"
    assert Outline(page).tokens()["tokens"][0] == example["tokens"]


def test_effects_without_their_run_stop_the_report() -> None:
    findings = samples.toy() | {"interchange": []}
    with pytest.raises(FindingsError, match=r"L2\.E5 holds interchange effects, but no interchange run"):
        render([findings])


def test_a_missing_field_is_named() -> None:
    findings = samples.toy()
    del findings["model"]["layers"]
    with pytest.raises(FindingsError, match="lack the field 'layers'"):
        render([findings])


def test_an_absurd_number_of_experts_is_refused() -> None:
    findings = samples.toy()
    findings["model"]["layers"][0]["experts"] = 10**9
    with pytest.raises(FindingsError, match="1,000,000,024 experts"):
        render([findings])


@pytest.mark.parametrize("name", list(samples.ALL))
def test_the_samples_are_findings(name: str, tmp_path: Path) -> None:
    path = tmp_path / "findings.json"
    path.write_text(json.dumps(samples.ALL[name]()))
    assert Outline(render([load_findings(path).to_json()])).tags == Outline(render([samples.ALL[name]()])).tags


@pytest.mark.parametrize("schema", ["moeprobe.findings/4", "moeprobe.findings/99", None])
def test_another_schema_version_is_refused(schema: str | None) -> None:
    findings = samples.toy() | {"schema": schema}
    with pytest.raises(FindingsError, match=r"Findings 2 of 2 are of schema .* again with moeprobe correlate"):
        render([samples.toy(), findings])
