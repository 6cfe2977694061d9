"""A screen: which sites were worth an exact swap."""

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.causes import CAUSAL_EFFECTS
from moeprobe.findings.checks import check_texts
from moeprobe.report import figures
from moeprobe.report.results.part import Part, Table

LEADING = 30


def screen_part(fields: Fields) -> Part:
    """`moeprobe.screen/1`.

    Raises:
        FindingsError: a field is missing or of the wrong kind.
    """
    sites = [Fields(one, f"{fields.where}, sites[{place}]", FindingsError)
             for place, one in enumerate(fields.items("sites"))]  # fmt: skip
    leading = {name: place for place, name in enumerate(check_texts(fields, "leading"))}
    shown = sorted((one for one in sites if one.text("site") in leading), key=lambda one: leading[one.text("site")])
    quality = fields.section("quality")
    parts = {
        name: Fields(quality[name], f"{fields.where}, quality", FindingsError)
        for name in CAUSAL_EFFECTS
        if name in quality
    }
    sentences = [f"{name.capitalize()}: {one.text('sentence')}" for name, one in parts.items()]
    first = f"The first {min(LEADING, len(shown))} by their exact swaps."
    return Part(
        title=f"A screen of {len(sites):,} sites",
        model=str(fields.section("model").get("id", "a model")),
        sentences=sentences,
        facts=[
            ("Pairs seen", f"{len(check_texts(fields, 'pairs')):,}"),
            ("Pairs left for the test", f"{len(check_texts(fields, 'pairs_left')):,}"),
        ],
        tables=[Table(first, _HEAD, [_row(one) for one in shown[:LEADING]])],
        cautions=[
            "A screen ranks; it gives no verdict. Sites are chosen and swapped on the same pairs here, so the largest "
            "effects are too large. `moeprobe interchange test --screen` tests them on other pairs."
        ],
    )


_HEAD = ["site", "necessity, estimated", "necessity, exact", "sufficiency, estimated", "sufficiency, exact", "drawn as"]


def _row(one: Fields) -> list[str]:
    estimated = Fields(one.section("estimated"), f"{one.where}, estimated", FindingsError)
    exact = (
        None if one.data.get("exact") is None else Fields(one.section("exact"), f"{one.where}, exact", FindingsError)
    )
    cells = [one.text("site")]
    for name in CAUSAL_EFFECTS:
        cells.append(figures.percent(estimated.optional_number(name)))
        cells.append(figures.NONE if exact is None else figures.percent(exact.optional_number(name)))
    return [*cells, one.optional_text("role") or figures.NONE]
