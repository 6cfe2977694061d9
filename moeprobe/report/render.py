"""Findings in, one HTML file out: offline, no network, no unsafe script or style, readable without JavaScript."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moeprobe.errors import FindingsError
from moeprobe.findings import SCHEMA
from moeprobe.report.glossary import Glossary
from moeprobe.report.references import WORKS
from moeprobe.report.results import part_of
from moeprobe.report.view import PageView, page_view

_STYLES = ("page.css", "finding.css", "results.css")
_SCRIPTS = ("common.js", "cells.js", "table.js", "map.js", "tokens.js")


def render(
    findings: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]] = (),
    *,
    text: bool = True,
    title: str | None = None,
) -> str:
    """Make the report.

    Args:
        findings: one or several objects in the form of docs/findings.md, validated by `moeprobe.findings`. Their
            strings are taken as hostile all the same.
        results: further experiments (screen, coalition, dose, cascade, behaviour, rescue), as `results.load_result`
            reads them. Without findings the page is about these alone.
        text: False leaves out all prompt and answer text of the examples.
        title: heading of the page; by default the questions and the model.

    Returns:
        One HTML document, always encodable as UTF-8.

    Raises:
        FindingsError: another schema version, a field is missing, a verdict is unknown, or effects have no
            interchange run.
    """
    glossary = Glossary()
    style, script = ("\n".join(_asset(name) for name in names) for names in (_STYLES, _SCRIPTS))
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            page=view(findings, results, text=text, title=title),
            glossary=glossary,
            term=glossary.link,
            cited=lambda key: WORKS[key].cited,
            policy=policy(style, script),
            style=Markup(style),  # noqa: S704 -- our own file, not data
            script=Markup(script),  # noqa: S704 -- our own file, not data
        )
    )


def _check(findings: Sequence[Mapping[str, Any]]) -> None:
    """Refuse findings of another schema version: their fields may mean something else."""
    for number, one in enumerate(findings, 1):
        if one.get("schema") != SCHEMA:
            raise FindingsError(
                f"Findings {number} of {len(findings)} are of schema {str(one.get('schema'))[:80]!r}, but this report "
                f"reads {SCHEMA!r}. Make them again with moeprobe correlate."
            )


def view(
    findings: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]] = (),
    *,
    text: bool,
    title: str | None,
) -> PageView:
    """What the page says, in words and numbers.

    Raises:
        FindingsError: as `render`.
    """
    _check(findings)
    try:
        page = page_view(findings, text=text, title=title)
    except KeyError as error:
        raise FindingsError(
            f"The findings lack the field {error}. Make them again with moeprobe correlate; docs/findings.md lists "
            "what they must hold."
        ) from error
    parts = [part_of(one) for one in results]
    if findings or not parts:
        return replace(page, parts=parts)
    named = page.title if title is not None else parts[0].title
    return replace(page, parts=parts, title=named, lead=" ".join(parts[0].sentences[:1]))


def environment() -> Environment:
    """Give the template environment: everything is escaped, and a missing name is an error."""
    made = Environment(
        loader=PackageLoader("moeprobe.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return made


def policy(style: str, script: str) -> str:
    """Build the Content-Security-Policy: nothing may load; only this style and this script may act."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _asset(name: str) -> str:
    return files("moeprobe.report").joinpath("page", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
