"""Names of sites: what is read, what is printed, and what is refused at once."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprobe.errors import MoeprobeError
from moeprobe.sites import (
    KINDS,
    LayerSites,
    Layout,
    Site,
    SiteSet,
    expert_site,
    parse_expert,
    parse_site,
    parse_sites,
)

# L0 dense; L1 and L3 experts; L2 state-space, without heads; L4 has more experts and fewer heads.
DENSE = LayerSites(heads=4)
SPARSE = LayerSites(experts=8, heads=4, router=True, shared=True, moe=True)
STATE = LayerSites(residual=True, refused={"head": "its mixer is a state-space model"})
WIDE = LayerSites(experts=16, heads=2, router=True, moe=True)
LAYOUT = Layout({0: DENSE, 1: SPARSE, 2: STATE, 3: SPARSE, 4: WIDE})
EVERY = [site for kind in KINDS for site in LAYOUT.sites(kind)]


def names(text: str) -> list[str]:
    return [str(site) for site in parse_sites(text, LAYOUT).sites]


def test_one_site_is_named_and_read() -> None:
    assert str(expert_site(14, 114)) == "L14.E114"
    assert parse_expert(" L14.E114 ") == expert_site(14, 114) == Site(14, "expert", 114)
    assert expert_site(14, 114).expert == 114
    for name in ("L14.E114", "L14.router", "L14.shared", "L14.moe", "L14.H3", "L14.residual"):
        assert str(parse_site(name)) == name
    assert sorted({Site(2, "head", 1), Site(1, "router"), Site(1, "expert", 9)})[0] == Site(1, "expert", 9)


@pytest.mark.parametrize("wrong", ["E114", "114", "L14", "L14.E", "l14.e114", "L-1.E2", "L1.E2.E3", "L1.E9999999",
                                   "L14.router", "L14.H3", "L1.E٣", ""])  # fmt: skip
def test_what_names_no_expert(wrong: str) -> None:
    with pytest.raises(MoeprobeError, match="names no expert"):
        parse_expert(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("l14.e114", "Did you mean L14.E114\\?"),
        ("L14.rooter", "Did you mean L14.router\\?"),
        ("L14.MoE", "Did you mean L14.moe\\?"),
        ("L14.h3", "Did you mean L14.H3\\?"),
        ("L14.zzz", "names no site\\. Sites are"),
        ("L1234567.E1", "names no site"),
        ("x" * 10_000, "x\\.\\.\\.' names no site\\."),
    ],
)
def test_what_names_no_site(wrong: str, message: str) -> None:
    with pytest.raises(MoeprobeError, match=message) as caught:
        parse_site(wrong)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "facts", [(1, "neuron", 1), (1, "expert", None), (1, "router", 0), (-1, "moe", None), (1, "head", -1),
              (1_000_000, "moe", None)],
)  # fmt: skip
def test_impossible_sites(facts: tuple[int, str, int | None]) -> None:
    with pytest.raises(MoeprobeError):
        Site(*facts)
    with pytest.raises(MoeprobeError, match="L1.router names no expert"):
        _ = Site(1, "router").expert


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L1.E3", ["L1.E3"]),
        ("L1.E3+E7", ["L1.E3", "L1.E7"]),
        (" L1.E3 + E7 +L3.E0 ", ["L1.E3", "L1.E7", "L3.E0"]),
        ("L1.E3+E3+L1.E3", ["L1.E3"]),
        ("L1.E5-E7", ["L1.E5", "L1.E6", "L1.E7"]),
        ("L0-L2.H0-H1", ["L0.H0", "L0.H1", "L1.H0", "L1.H1"]),
        ("L*.H3", ["L0.H3", "L1.H3", "L3.H3"]),
        ("L*.router+residual", ["L0.residual", "L1.residual", "L1.router", "L2.residual", "L3.residual",
                                "L3.router", "L4.residual", "L4.router"]),
        ("L*.E8-E15", [f"L4.E{expert}" for expert in range(8, 16)]),
        ("L3-L4.H*", ["L3.H0", "L3.H1", "L3.H2", "L3.H3", "L4.H0", "L4.H1"]),
        ("L1-L1.moe+L*.shared", ["L1.moe", "L1.shared", "L3.shared"]),
    ],
)  # fmt: skip
def test_sets_are_read(text: str, expected: list[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L0.E3", "L0 has no experts. It has H0-H3, residual. Layers with experts: L1, L3-L4."),
        (
            "L2.H0",
            "heads of L2 cannot be read and edited: its mixer is a state-space model. Layers with attention heads: ",
        ),
        ("L2.H*", "edited: its mixer is a state-space model"),
        ("L1.E8", "The model has no L1.E8: the last of that layer is L1.E7."),
        ("L1.E6-E8", "no L1.E8"),
        ("L4.H2", "the last of that layer is L4.H1"),
        ("L5.E1", "The model has no layer L5: it has L0-L4."),
        ("L3-L5.E1", "no layer L5"),
        ("L0-L999999999.E1", "names no site"),
        ("L0-L999999.E1", "no layer L999999"),
        ("L*.E16", "no layer of that band has it. Its layers go to E15 at most."),
        (
            "L4.shared",
            "L4 has no shared expert. It has E0-E15, H0-H1, router, moe, residual. Layers with shared expert: L1, L3.",
        ),
        ("L3-L1.E1", "write L1-L3"),
        ("L1.E5-E2", "write E2-E5"),
        ("L1.E5-H7", "names no site"),
        ("L1-3.E1", "Did you mean L1-L3.E1?"),
        ("l*.h*", "Did you mean L*.H*?"),
        ("L1.E3-7", "Did you mean L1.E3-E7?"),
        ("L1.residuals", "Did you mean L1.residual?"),
        ("E3", "names no layer"),
        ("L3", "names layers but nothing in them"),
        ("L1.E3++E4", "A site is missing"),
        ("", "A site is missing"),
        ("L1.E3,L1.E4", "names no site"),
        ("L0.L1.E3", "names no site"),
        ("encoder.L1.E3", "names no site"),
    ],
)
def test_what_the_model_has_not_is_refused(text: str, message: str) -> None:
    with pytest.raises(MoeprobeError) as caught:
        parse_sites(text, LAYOUT)
    assert message in str(caught.value)


def test_a_kind_no_layer_has() -> None:
    bare = Layout({0: DENSE, 1: STATE})
    with pytest.raises(MoeprobeError, match="No layer of this model has such a site \\(experts\\)"):
        parse_sites("L*.E*", bare)
    with pytest.raises(MoeprobeError, match="MoE block of L0 cannot be read and edited: it is fused"):
        parse_sites("L*.moe", Layout({0: LayerSites(refused={"moe": "it is fused"})}))
    with pytest.raises(MoeprobeError, match="at least one layer"):
        Layout({})


def test_hostile_texts_are_refused_at_once() -> None:
    large = Layout({layer: LayerSites(experts=512, heads=64, router=True, moe=True) for layer in range(94)})
    started = time.process_time()
    for text in ("+".join(["L0.E1"] * 1_000_000), "L*.E*" + "+E*" * 90_000, "L0.E1" * 10_000, "+" * 500_000,
                 "L" + "9" * 900_000 + ".E1"):  # fmt: skip
        with pytest.raises(MoeprobeError) as caught:
            parse_sites(text, large)
        assert len(str(caught.value)) < 400
    assert time.process_time() - started < 5
    assert len(parse_sites("L*.E*", large).sites) == 94 * 512


def test_printing_is_compact() -> None:
    assert str(parse_sites("L0-L1.H0-H2", LAYOUT)) == "L0-L1.H0-H2"
    assert str(parse_sites("L1.moe+L1.E7+E3+E4", LAYOUT)) == "L1.E3-E4+E7+moe"
    assert str(parse_sites("L1.E3", LAYOUT)) == "L1.E3"
    assert str(parse_sites("L*.E0", LAYOUT)) == "L1.E0+L3-L4.E0"
    asked = parse_sites("L*.E0", LAYOUT)
    assert asked.name == "L*.E0"
    assert asked == parse_sites("L1.E0+L3-L4.E0", LAYOUT) == SiteSet("", asked.sites[::-1])
    assert SiteSet("", asked.sites).name == "L1.E0+L3-L4.E0"
    with pytest.raises(MoeprobeError, match="at least one"):
        SiteSet("none", ())


@settings(max_examples=300, deadline=None)
@given(st.sets(st.sampled_from(EVERY), min_size=1))
def test_what_is_printed_is_read_back(sites: set[Site]) -> None:
    made = SiteSet("", tuple(sites))
    assert parse_sites(str(made), LAYOUT) == made
    assert all(parse_site(str(site)) == site for site in sites)


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="L0123456789.EH*-+ routershadmi", max_size=40))
def test_any_text_is_read_or_refused_with_a_message(text: str) -> None:
    try:
        found = parse_sites(text, LAYOUT)
    except MoeprobeError:
        return
    for site in found.sites:
        LAYOUT.check(site)
