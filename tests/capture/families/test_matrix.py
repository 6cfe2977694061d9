"""Each of the 72 families: what the recorder says is what the model did."""

import os
from pathlib import Path

import numpy as np
import pytest

from moeprobe.capture import LayerRouting, find_experts
from moeprobe.errors import ModelError
from tests.capture.families import tiny
from tests.capture.families.checks import (
    OUTPUTS_AGREE,
    PROMPT,
    Routing,
    as_routing,
    compare,
    counts,
    identity,
    real_rows,
    text_sites,
)
from tests.capture.families.measured import CACHED_DIFFERS, FORWARD_ONLY, REFUSED, document, measure, row

RECORDED = [family for family in tiny.FAMILIES if family not in REFUSED]
DOCUMENT = Path(__file__).parents[3] / "docs" / "families.md"


@pytest.mark.parametrize("family", RECORDED)
def test_the_record_of_a_generation_is_what_the_routers_chose(family: str) -> None:
    found = measure(family)
    assert found.against_plain.none, found.against_plain
    assert sum(layer.experts.size for layer in found.run.routing.values()) > 0


@pytest.mark.parametrize("family", [one for one in RECORDED if one not in CACHED_DIFFERS])
def test_the_record_equals_a_teacher_forced_forward_of_the_same_tokens(family: str) -> None:
    found = measure(family)
    assert found.against_forced.none, found.against_forced
    assert found.logits_apart < 1e-4


@pytest.mark.parametrize("family", CACHED_DIFFERS)
def test_where_cached_and_uncached_runs_differ_it_is_the_model(family: str) -> None:
    """The record of the uncached run is right as well; it is the logits, without any capture, that differ."""
    found = measure(family)
    assert found.logits_apart > 0.01
    assert not found.against_forced.none
    assert compare(found.model, found.forced.routing, as_routing(found.model, found.forced.plain)).none


@pytest.mark.parametrize("family", RECORDED)
def test_chosen_experts_and_weights_give_the_blocks_output(family: str) -> None:
    assert measure(family).output <= OUTPUTS_AGREE


@pytest.mark.parametrize("family", RECORDED)
def test_counts_are_tokens_times_k_less_absent_choices(family: str) -> None:
    found = measure(family)
    assert found.counts.recorded == found.counts.due > 0
    whole = sum(
        int(real_rows(found.model, name, layer.experts.shape[1]).sum()) * layer.experts.shape[-1]
        for name, layer in found.run.routing.items()
    )
    assert found.counts.due == whole or family in {"longcat_flash", "zaya"}
    assert found.counts.due <= whole


@pytest.mark.parametrize("family", RECORDED)
def test_capture_changes_no_bit_of_tokens_and_logits(family: str) -> None:
    assert measure(family).bitwise


@pytest.mark.parametrize("family", RECORDED)
def test_every_layer_is_recorded_at_every_position_under_its_own_name(family: str) -> None:
    found = measure(family)
    assert list(found.run.routing) == [site.name for site in text_sites(found.model)]
    assert len({site.name for site in find_experts(found.model)}) == len(find_experts(found.model))
    for name, layer in found.run.routing.items():
        assert layer.experts.shape == found.run.plain[name][0].shape
        if name.startswith("encoder"):
            assert layer.experts.shape[1] == PROMPT
        elif family not in FORWARD_ONLY:
            assert layer.experts.shape[1] == found.run.tokens.shape[1] - 1


@pytest.mark.parametrize("family", REFUSED)
def test_the_rest_is_refused_by_name(family: str) -> None:
    with pytest.raises(ModelError, match=f"cannot record {family.replace('_', '.')}: "):
        find_experts(tiny.build(family))


# Faults that were seen in other tools, planted: each check must see them in every family.


def _changed(routing: Routing, change: str) -> dict[str, LayerRouting]:
    last = list(routing)[-1]
    if change == "dropped layer":
        return {name: layer for name, layer in routing.items() if name != last}
    if change == "ids off by one":
        return {
            name: LayerRouting(np.where(layer.experts < 0, -1, layer.experts + 1), layer.weights)
            for name, layer in routing.items()
        }
    if change == "rows off by one":
        return {name: LayerRouting(np.roll(layer.experts, 1, 1), layer.weights) for name, layer in routing.items()}
    if change == "first weights 1 % off":
        first = np.float32([1.01, *[1] * 7])
        return {
            name: LayerRouting(layer.experts, layer.weights * first[: layer.weights.shape[-1]])
            for name, layer in routing.items()
        }
    lost = {name: LayerRouting(layer.experts.copy(), layer.weights) for name, layer in routing.items()}
    lost[last].experts[0, 2:] = -1
    return lost


CHANGES = ("dropped layer", "ids off by one", "rows off by one", "first weights 1 % off", "rows lost")


@pytest.mark.parametrize("family", RECORDED)
def test_planted_faults_are_seen(family: str) -> None:
    found = measure(family)
    for change in CHANGES:
        wrong = _changed(found.run.routing, change)
        assert not compare(found.model, wrong, found.run.routing).none, change
        assert identity(found.model, found.seen, _changed(found.seen.run.routing, change)) > 10 * OUTPUTS_AGREE, change
        # A sum of counts can only see what is missing.
        if change in ("dropped layer", "rows lost"):
            assert counts(found.model, found.run, wrong).recorded < found.counts.due, change


def test_the_table_in_the_documentation_is_what_this_run_found() -> None:
    """`MOEPROBE_WRITE_DOCS=1` writes it anew."""
    rows = [row(family) for family in tiny.FAMILIES]
    assert len(rows) == 72
    assert all(cell.strip() for cells in rows for cell in cells)
    found = document(rows)
    if os.environ.get("MOEPROBE_WRITE_DOCS") == "1":
        DOCUMENT.write_text(found, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == found
