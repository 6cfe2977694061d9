"""A set of sites that carries most of what all candidates carry."""

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.findings.checks import check_ends, check_numbers, check_texts
from moeprobe.report import figures, swaps
from moeprobe.report.results.part import Part, Table


def coalition_part(fields: Fields) -> Part:
    """`moeprobe.coalition/1`.

    Raises:
        FindingsError: a field is missing or of the wrong kind.
    """
    members, arm = check_texts(fields, "members"), fields.text("arm")
    null = Fields(fields.section("null"), f"{fields.where}, null", FindingsError)
    check_numbers(null, "percent")
    like = null.items("percent")
    pairs = len(check_texts(fields, "measured_on"))
    found, whole = (_effect(fields.section(key), f"{fields.where}, {key}") for key in ("set", "all"))
    most = f"the largest carries {figures.percent(max(like))}" if like else ""
    beside = f" Of {len(like)} sets of other sites like them {most}." if like else ""
    return Part(
        title=f"A set of {len(members)} sites that carries much of the effect",
        model=str(fields.section("model").get("id", "a model")),
        sentences=[
            f"{len(members)} of {fields.integer('candidates'):,} sites together carry {found} of the gap ({arm}); all "
            f"of them {whole}.{beside}"
        ],
        facts=[
            ("Members", ", ".join(members)),
            ("Searched on", figures.count(len(check_texts(fields, "searched_on")), "pair")),
            ("Measured on", f"{figures.count(pairs, 'other pair')} that the search has not seen"),
        ],
        tables=[_members(fields, members)],
        cautions=[
            "Another search may find another set that carries as much: that this one is enough does not make it the "
            "only one."
        ],
    )


def _members(fields: Fields, members: list[str]) -> Table:
    alone, without = fields.section("singles"), fields.section("without")
    rows = []
    for site in members:
        if site not in alone:
            raise FindingsError(f"{fields.where}: the member {site!r} has no effect of its own.")
        rest = _effect(without[site], f"{fields.where}, without {site}") if site in without else figures.NONE
        rows.append([site, _effect(alone[site], f"{fields.where}, singles {site}"), rest])
    return Table("Each member.", ["site", "alone, of the gap", "the set without it"], rows)


def _effect(value: object, where: str) -> str:
    one = Fields(value, where, FindingsError)
    one.number("percent")
    if one.items("ci") != [None, None]:
        check_ends(one, "ci")
    return swaps.effect(one.data)
