"""Compiled models, built once per module."""

import pytest
import torch
from compiled_runs import Built

from moeprobe.models.compiled import FAMILIES, build


@pytest.fixture(
    scope="module",
    params=[(family, strict) for family in FAMILIES for strict in (False, True)],
    ids=lambda p: f"{p[0]}-strict" if p[1] else p[0],
)
def built(request: pytest.FixtureRequest) -> Built:
    torch.set_num_threads(1)
    family, strict = request.param
    return Built(*build(family, strict=strict), family, strict)


@pytest.fixture(scope="module", params=FAMILIES)
def default(request: pytest.FixtureRequest) -> Built:
    torch.set_num_threads(1)
    return Built(*build(request.param), request.param)
