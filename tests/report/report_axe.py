"""axe-core over whole pages. It is not shipped (MPL): `npm pack axe-core`, and point MOEPROBE_AXE to axe.min.js."""

import os
from pathlib import Path
from typing import Any

import pytest
from report_browser import Page

PLACES = [
    Path(os.environ["MOEPROBE_AXE"]) if os.environ.get("MOEPROBE_AXE") else None,
    Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js",
]
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FOUND = "then((done) => done.violations.map((one) => [one.id, one.nodes.slice(0, 3).map((node) => node.html)]))"


def source() -> str:
    """The script; the test is skipped where it is not here."""
    found = next((place for place in PLACES if place is not None and place.is_file()), None)
    if found is None:
        pytest.skip("axe-core is not here: set MOEPROBE_AXE to its axe.min.js, or put it into node_modules")
    return found.read_text(encoding="utf-8")


def violations(page: Page, axe: str) -> list[Any]:
    """Rules that the page breaks, with up to three places each."""
    page.evaluate(f"{axe};0")
    found: list[Any] = page.evaluate(f"axe.run(document, {{runOnly: {{type: 'tag', values: {TAGS}}}}}).{FOUND}")
    return found
