"""Whole screens on the compiled model and on random ones: half of the pairs, exact swaps, an audit, a record."""

import json

import pytest

from moeprobe.chat.encode import encode_prompt
from moeprobe.errors import InterchangeError
from moeprobe.interchange import lab, label_members, select_pairs
from moeprobe.interchange.screened import SCHEMA, leading_of, screened
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from moeprobe.sites import parse_site


@pytest.fixture(scope="module")
def found(compiled: LoadedModel, compiled_prompts: list[Prompt]):
    ids = [encode_prompt(compiled.tokenizer, prompt) for prompt in compiled_prompts]
    pairs = select_pairs(label_members(compiled_prompts, ids, "triggered")).pairs
    return screened(lab(compiled), pairs, wanted=2, audit=5), pairs


def test_the_causal_expert_leads(found) -> None:
    one, pairs = found
    assert one.leading(1) == [parse_site("L2.E5")]
    assert one.percent(parse_site("L2.E5"), "necessity") == pytest.approx(100, abs=0.1)
    assert len(one.audited) == 5
    assert not set(one.audited) & set(one.selected)
    assert set(one.screen.pair_ids) | set(one.left) == {pair.id for pair in pairs}
    assert not set(one.screen.pair_ids) & set(one.left)


def test_the_record_names_sites_and_pairs(found) -> None:
    one, _ = found
    record = json.loads(json.dumps({"schema": SCHEMA, **one.to_json()}, allow_nan=False))
    sites, seen = leading_of(record, 2)
    assert sites[0] == parse_site("L2.E5")
    assert seen == {*one.screen.pair_ids, *one.digests}
    roles = {entry["site"]: entry for entry in record["sites"]}
    assert roles["L2.E5"]["role"] == "selected"
    assert roles["L2.E5"]["exact"]["necessity"] == pytest.approx(100, abs=0.1)
    assert sum(entry["role"] == "audited" for entry in record["sites"]) == 5
    assert all(entry["exact"] is None for entry in record["sites"] if entry["role"] is None)


@pytest.mark.parametrize("record", [{}, {"schema": "other"}, {"schema": SCHEMA}, [], {"schema": SCHEMA, "leading": 1}])
def test_other_files_are_no_screens(record: object) -> None:
    with pytest.raises(InterchangeError, match="no screen"):
        leading_of(record, 2)


def test_too_few_pairs_to_split(compiled: LoadedModel, compiled_prompts: list[Prompt]) -> None:
    ids = [encode_prompt(compiled.tokenizer, prompt) for prompt in compiled_prompts[:20]]
    pairs = select_pairs(label_members(compiled_prompts[:20], ids, "triggered")).pairs
    with pytest.raises(InterchangeError, match="cannot be split"):
        screened(lab(compiled), pairs)
    whole = screened(lab(compiled), pairs, wanted=2, audit=0, whole=True)
    assert not whole.left
    assert whole.qualities["necessity"].most is None
