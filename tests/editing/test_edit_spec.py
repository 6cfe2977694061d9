"""The grammar of edits: what is read, what is printed, what is refused."""

import pytest

from moeprobe.editing import VERBS, Edit, arm_name, parse_edits
from moeprobe.errors import InterchangeError, MoeprobeError
from moeprobe.sites import LayerSites, Layout, Site, SiteSet

FULL = LayerSites(experts=8, heads=4, router=True, shared=True, moe=True)
LAYOUT = Layout({0: LayerSites(heads=4), 1: FULL, 2: FULL})


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("zero:L2.E5", "zero:L2.E5"),
        (" zero : L2.E5 ", "zero:L2.E5"),
        ("bar:L1.E1+E3@prompt", "bar:L1.E1+E3@prompt"),
        ("bias:L2.E5=+2.5", "bias:L2.E5=+2.5"),
        ("bias:L2.E5=-3", "bias:L2.E5=-3"),
        ("scale:L1-L2.E5=0.5@answer", "scale:L1-L2.E5=0.5@answer"),
        ("scale:L2.E5=1e-05", "scale:L2.E5=1e-05"),
        ("zero:L2.residual@all", "zero:L2.residual"),
        ("swap:L0-L2.H*", "swap:L0-L2.H0-H3"),
        ("swap:L1.router", "swap:L1.router"),
        ("zero:L2.E5 / bar:L1.E1", "zero:L2.E5 / bar:L1.E1"),
        ("zero:L2.E5@prompt/scale:L2.E5=2@answer", "zero:L2.E5@prompt / scale:L2.E5=2@answer"),
    ],
)
def test_read_and_printed(text: str, printed: str) -> None:
    edits = parse_edits(text, LAYOUT)
    assert arm_name(edits) == printed
    assert parse_edits(printed, LAYOUT) == edits


def test_fields() -> None:
    (edit,) = parse_edits("scale:L1.E1+E3=0.25@answer", LAYOUT)
    assert edit == Edit("scale", SiteSet("", (Site(1, "expert", 1), Site(1, "expert", 3))), 0.25, "answer")
    assert arm_name(()) == "none"


def test_every_verb_can_be_printed_and_read() -> None:
    for name, verb in VERBS.items():
        for kind in verb.kinds:
            site = Site(1, kind, 2 if kind in ("expert", "head") else None)
            edit = Edit(name, SiteSet("", (site,)), 1.5 if verb.number else None, "prompt")
            assert parse_edits(str(edit), LAYOUT) == (edit,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no edit"),
        ("L2.E5", "is no edit"),
        ("erase:L2.E5", "'erase' is no edit. There are: zero"),
        ("zero:", "is no edit"),
        ("zero:L2.E5 /", "'' is no edit"),
        ("zero:L2.E5=1", "takes no number"),
        ("scale:L2.E5", "needs a number"),
        ("scale:L2.E5=much", "'much' is no number"),
        ("scale:L2.E5=", "'' is no number"),
        ("bias:L2.E5=inf", "'inf' is no number"),
        ("bias:L2.E5=1e999", "finite number"),
        ("bias:L2.E5=1_0", "is no number"),
        ("zero:L2.E5@later", "@later is no place"),
        ("zero:L2.E5@prompt@answer", "is no edit"),
        ("zero:L2.router", "cannot be done to L2.router"),
        ("bar:L2.H1", "cannot be done to L2.H1"),
        ("swap-output:L2.moe", "cannot be done to L2.moe"),
        ("zero:L2.E8", "L2.E7"),
        ("zero:L9.E1", "no layer L9"),
        ("zero:L0.E1", "L0 has no experts"),
        ("zero:L2.E5 / scale:L2.E5=2", "both edit L2.E5"),
        ("bar:L2.E5 / force:L2.E1+E5@answer", "both edit L2.E5 in the answer"),
        ("swap:L2.E5 / resample:L1.E1", "one donor"),
        ("bar:L2.E5 / swap:L2.router", "replaced whole"),
        ("zero:" + "9" * 5000, "names no"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(MoeprobeError, match=message) as problem:
        parse_edits(text, LAYOUT)
    assert len(str(problem.value)) < 500


def test_zeroing_and_barring_one_expert_is_no_conflict() -> None:
    assert len(parse_edits("zero:L2.E5 / force:L2.E5", LAYOUT)) == 2


def test_made_by_hand() -> None:
    with pytest.raises(InterchangeError, match="finite"):
        Edit("bias", SiteSet("", (Site(1, "expert", 0),)), float("nan"))
