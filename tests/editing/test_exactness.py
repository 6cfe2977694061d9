"""Edits are exact: 14 families with every experts implementation they have, in float32 and bfloat16."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from moeprobe.editing import hooks, oracle, seen
from tests.capture.families import tiny
from tests.editing.exact import Exact, implementations, measure

ALL = ("eager", "batched_mm", "grouped_mm")
FAMILIES = {
    "mixtral": ALL, "qwen3_5_moe": ALL, "deepseek_v3": ALL, "gpt_oss": ALL, "nemotron_h": ALL, "aria": ALL,
    "gemma4": ALL, "deepseek_v4": ALL, "muse_spark": ALL, "glm4_moe": ALL, "zaya": ALL,
    "longcat_flash": ("eager",), "step3p7": ("eager",), "dbrx": ("eager",),
}  # fmt: skip
# Families without a swap, and why; the words are in test_refusals.py. NLLB cannot even be recorded.
REFUSED = {"doge", "jetmoe", "llama4", "switch_transformers", "nllb_moe"}
CASES = [(family, name) for family, names in FAMILIES.items() for name in names]
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.mark.parametrize(("family", "implementation"), CASES)
def test_float32(family: str, implementation: str) -> None:
    assert implementation in implementations(family)
    assert measure(family, implementation, FLOAT32).faults(FLOAT32) == []


@pytest.mark.parametrize(("family", "implementation"), CASES)
def test_bfloat16(family: str, implementation: str) -> None:
    assert measure(family, implementation, BFLOAT16, brief=True).faults(BFLOAT16) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("family", [one for one in tiny.FAMILIES if one not in REFUSED | FAMILIES.keys()])
def test_every_other_family(family: str, dtype: torch.dtype) -> None:
    """Without a reference from raw weights, but for all that needs none."""
    if family == "inkling2" and dtype == BFLOAT16:
        pytest.skip("its router multiplies float32 by its own weights, so transformers cannot run it in plain bfloat16")
    for implementation in implementations(family):
        assert measure(family, implementation, dtype, brief=dtype == BFLOAT16).faults(dtype) == []


# Every measurement is worth something: each of these mistakes is found, by the measurement named.

Mistake = Callable[[pytest.MonkeyPatch], None]


def _shifted(patch: pytest.MonkeyPatch) -> None:
    """New values one row too far."""
    right = hooks.expert_values
    patch.setattr(hooks, "expert_values", lambda *given: (right(*given)[0], right(*given)[1].roll(1, 0)))


def _next_expert(patch: pytest.MonkeyPatch) -> None:
    """The expert beside the one that was asked."""
    right = oracle.expert_output

    def wrong(site: Any, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        return right(site, hidden, (experts + 1) % site.experts, weights)

    patch.setattr(oracle, "expert_output", wrong)


def _stays(patch: pytest.MonkeyPatch) -> None:
    """The old contribution is not taken out."""
    patch.setattr(hooks, "passed", lambda args, kwargs, hidden, ids, weights: (args, kwargs))


def _always(patch: pytest.MonkeyPatch) -> None:
    """A row's own value is taken out and added again."""
    right = hooks.expert_values
    patch.setattr(hooks, "expert_values", lambda *given: (right(*given)[0] + torch.inf, right(*given)[1]))


def _spilt(patch: pytest.MonkeyPatch) -> None:
    """Rows that are not named are written too: expert 0 of them."""
    right = hooks.contributions

    def wrong(one: Any, writes: Any) -> Any:
        return right(one, lambda: [replace(write, index=write.index.clamp(min=0)) for write in writes()])

    patch.setattr("moeprobe.editing.write.contributions", wrong)


def _everyone(patch: pytest.MonkeyPatch) -> None:
    """Every expert has the row's first weight, chosen or not."""
    for module in (hooks, seen):
        patch.setattr(module, "weight_of", lambda experts, ids, weights: torch.where(experts < 0, 0, weights[:, 0]))


def _unweighted(patch: pytest.MonkeyPatch) -> None:
    """E(x) instead of w * E(x)."""
    right = oracle.expert_output
    patch.setattr(oracle, "expert_output", lambda site, x, ids, weights: right(site, x, ids, torch.ones_like(weights)))


def _larger(patch: pytest.MonkeyPatch) -> None:
    """What is written is one per mille too large."""
    right = hooks.expert_values
    patch.setattr(hooks, "expert_values", lambda *given: (right(*given)[0], right(*given)[1] * 1.001))


def _wrong_partner(patch: pytest.MonkeyPatch) -> None:
    right = hooks.expert_values

    def wrong(one: Any, write: Any, *given: Any) -> Any:
        moved = write if write.partner is None else replace(write, partner=(write.partner + 1) % len(write.partner))
        return right(one, moved, *given)

    patch.setattr(hooks, "expert_values", wrong)


def _in_place(patch: pytest.MonkeyPatch) -> None:
    """Reading works on the model's own tensors."""
    patch.setattr(seen, "_kept", lambda value: value.mul_(1.001) if value.is_floating_point() else value)


def _swapped(patch: pytest.MonkeyPatch) -> None:
    """The output swap and the routing swap are mixed up: the donor's input gets the donor's weight."""
    right = hooks.expert_values

    def wrong(one: Any, write: Any, hidden: Tensor, ids: Tensor, weights: Tensor) -> Any:
        own, new = right(one, write, hidden, ids, weights)
        return own, new * 2 if write.how == "routing" else new

    patch.setattr(hooks, "expert_values", wrong)


MISTAKES: list[tuple[Mistake, str, torch.dtype, str]] = [
    (_shifted, "eager", FLOAT32, "layer"),
    (_shifted, "eager", FLOAT32, "sets"),
    (_next_expert, "batched_mm", FLOAT32, "contribution"),
    (_stays, "grouped_mm", FLOAT32, "layer"),
    (_stays, "eager", FLOAT32, "logits"),
    (_always, "batched_mm", BFLOAT16, "own"),
    (_spilt, "eager", FLOAT32, "layer"),
    (_spilt, "eager", FLOAT32, "rows"),
    (_everyone, "eager", FLOAT32, "unchosen"),
    (_everyone, "eager", FLOAT32, "total"),
    (_unweighted, "eager", FLOAT32, "contribution"),
    (_unweighted, "eager", FLOAT32, "total"),
    (_larger, "eager", FLOAT32, "added"),
    (_larger, "eager", FLOAT32, "own"),
    (_larger, "eager", FLOAT32, "elsewhere"),
    (_wrong_partner, "eager", FLOAT32, "partner"),
    (_in_place, "eager", FLOAT32, "reading"),
    (_swapped, "eager", BFLOAT16, "layer"),
]


@pytest.mark.parametrize(("mistake", "implementation", "dtype", "name"), MISTAKES)
def test_mistakes_are_found(
    mistake: Mistake, implementation: str, dtype: torch.dtype, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    faults = measure("mixtral", implementation, dtype).faults(dtype)
    assert any(fault.split()[0] == name for fault in faults), faults


def test_every_measurement_has_a_mistake() -> None:
    assert {name for *_, name in MISTAKES} == set(Exact.__dataclass_fields__)
