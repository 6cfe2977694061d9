"""Configs that ask for more than any model has are refused before anything is built."""

import time
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING

from moeprobe.errors import ModelError
from moeprobe.models import limits
from moeprobe.models.limits import MOST_EXPERTS, MOST_LAYERS, bounded_modules, check_counts


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"n_layer": 20_000}, "n_layer = 20000"),
        ({"num_layers": MOST_LAYERS + 1}, "num_layers = 1001"),
        ({"depth": 10**6}, "depth"),
        ({"depths": [2, 2, 10**6]}, "depths"),
        ({"num_blocks": 5_000}, "num_blocks"),
        ({"n_routed_experts": MOST_EXPERTS + 1}, "n_routed_experts"),
        ({"text_config": {"moe": [{"num_hidden_layers": 10**5000}]}}, "num_hidden_layers = a number of 19 digits"),
    ],
)
def test_counts_above_the_limits(facts: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelError, match=f"'m' says {key}.* at most"):
        check_counts(facts, "m")


def test_counts_at_the_limits_and_widths_pass() -> None:
    check_counts({"n_layer": MOST_LAYERS, "num_experts": MOST_EXPERTS, "use_experts": True}, "m")
    check_counts({"vocab_size_per_layer_input": 262_144, "layer_rope_theta": [10**6], "expert_dim": 10**6}, "m")


def test_no_default_config_of_transformers_is_refused() -> None:
    checked = 0
    for kind in CONFIG_MAPPING:
        try:
            facts = CONFIG_MAPPING[kind]().to_dict()
        except Exception:  # noqa: BLE001, S112  # some need arguments or other packages
            continue
        check_counts(facts, kind)
        checked += 1
    assert checked > 300


def test_too_many_modules_are_stopped_while_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_MODULES", 100)
    start = time.perf_counter()
    with torch.device("meta"), pytest.raises(ModelError, match="more than 100 modules"), bounded_modules("m"):
        nn.ModuleList(nn.Linear(1, 1) for _ in range(10**9))
    assert time.perf_counter() - start < 10
    with bounded_modules("m"):
        nn.ModuleList(nn.Linear(1, 1) for _ in range(100))
    nn.ModuleList(nn.Linear(1, 1) for _ in range(101))  # no longer counted
