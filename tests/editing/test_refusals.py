"""Editing says what it refuses, and why."""

from typing import Any

import pytest
import torch

from moeprobe.editing import Editor, Write, find_places, reading
from moeprobe.errors import InterchangeError
from tests.editing.exact import Bench, model_of
from tests.editing.test_writing import EVERY, FLOAT32, untouched


@pytest.mark.parametrize("family", ["llama4", "jetmoe", "doge", "switch_transformers"])
def test_families_without_an_oracle(family: str) -> None:
    places = find_places(model_of(family, FLOAT32))
    layer = [number for number, one in places.items() if one.experts is not None][-1]
    for kind in ("expert", "router"):
        with pytest.raises(InterchangeError, match="cannot be called one at a time|not handed to the experts"):
            Editor(places, [(layer, kind)])
        with pytest.raises(InterchangeError), reading(places, [(layer, kind)]):
            pass


def test_bad_writes(bench: Bench) -> None:
    zero, layer = torch.zeros(18, 32), bench.layer
    bad: list[tuple[dict[str, Any], str]] = [
        ({"how": "swap", "value": zero}, "'swap' is no way to edit"),
        ({}, "needs a value or a partner"),
        ({"value": zero, "partner": EVERY}, "needs a value or a partner"),
        ({"value": zero[:5]}, "donor has 5 rows, the write 18"),
        ({"kind": "moe", "how": "output", "value": zero}, "this is a moe"),
        ({"kind": "router", "how": "add", "value": zero}, "replaced as a whole"),
        ({"how": "add", "partner": EVERY}, "does not scale or add"),
        ({"partner": EVERY - 1}, "has no partner; give it index -1"),
    ]
    for given, words in bad:
        with pytest.raises(InterchangeError, match=words):
            Write(**({"layer": layer, "kind": "expert", "index": EVERY * 0} | given))


def test_bad_places_and_values(bench: Bench) -> None:
    layer, zero, index = bench.layer, torch.zeros(18, 32), EVERY * 0
    bad: list[tuple[list[Write], str]] = [
        ([Write(9, "expert", index, value=zero)], "no layer 9"),
        ([Write(layer, "expert", index + 8, value=zero)], "experts 0 to 7, not 8"),
        ([Write(bench.last, "head", index + 4, value=zero[:, :8])], "heads 0 to 3, not 4"),
        ([Write(layer, "tail", index, value=zero)], "no tail"),
        ([Write(layer, "expert", index, value=zero)] * 2, "Two writes change the same expert"),
        ([Write(layer, "expert", index, value=zero[:, :1])], r"shape \(18, 1\), not \(18, 32\)"),
        ([Write(layer, "expert", index, "scale", zero)], r"shape \(18, 32\), not \(18, 1\)"),
        ([Write(layer, "moe", index, value=zero[:, :1])], r"shape \(18, 1\), not \(18, 32\)"),
        ([Write(layer, "moe", index[:5], value=zero[:5])], "donor has 5 rows, the forward 18"),
        ([Write(layer, "moe", index, partner=EVERY + 1)], "Partner 18 is no row of a forward of 18"),
        ([Write(layer, "router", index, value=zero[:, :3], ids=index[:, None].expand(18, 3))], "of the same k"),
    ]
    for writes, words in bad:
        with pytest.raises(InterchangeError, match=words):
            bench.edited(writes)
    assert untouched(bench.model)


def test_bad_reads(bench: Bench) -> None:
    with torch.inference_mode(), reading(bench.places, [(bench.layer, "expert"), (bench.layer, "moe")]) as seen:
        bench.run()
    bad: list[tuple[tuple[Any, ...], str]] = [
        ((bench.last, "expert", EVERY * 0, EVERY), "were not read"),
        ((bench.layer, "shared", EVERY * 0, EVERY), "was not read"),
        ((bench.layer, "router", EVERY * 0, EVERY), "take them from `choice`"),
        ((bench.layer, "moe", EVERY * 0, EVERY, "routing"), "no value for 'routing'"),
        ((bench.layer, "expert", EVERY * 0, EVERY, "add"), "no value for 'add'"),
        ((bench.layer, "expert", EVERY * 0 + 8, EVERY), "experts 0 to 7, not 8"),
        ((bench.layer, "expert", EVERY * 0, EVERY + 1), "Row 18 was asked of a forward of 18"),
    ]
    for given, words in bad:
        with pytest.raises(InterchangeError, match=words):
            seen.value(*given)
    # Rows without a donor, and no expert, give 0.
    assert (seen.value(bench.layer, "moe", EVERY * 0, EVERY * 0 - 1) == 0).all()
    assert (seen.value(bench.layer, "expert", EVERY * 0 - 1, EVERY) == 0).all()


def test_a_write_that_no_forward_met_is_said(bench: Bench) -> None:
    """A part that was replaced, as by compiling, calls no hook."""
    one = bench.places[bench.layer]
    one.decoder.forward = lambda hidden, *args, **kwargs: hidden
    write = Write(bench.layer, "moe", EVERY * 0, "scale", torch.zeros(18, 1))
    try:
        with pytest.raises(InterchangeError, match="No forward came by .*nothing was written"):
            bench.edited([write])
    finally:
        del one.decoder.forward
    assert untouched(bench.model)
