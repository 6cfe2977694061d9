"""The compact columns of the script: every number arrives, in the right cell, and nothing else."""

import base64
import math
import struct
from typing import Any

import pytest
import report_samples as samples

from moeprobe.errors import FindingsError
from moeprobe.report import table, verdicts
from moeprobe.report.cells import CHANCES, FIELDS, cell_data
from moeprobe.report.voice import voice_of

Json = dict[str, Any]
VOICE = voice_of(samples.toy()["questions"][0])
SIZES = {"f": 4, "d": 8, "I": 4, "B": 1}


def _unpacked(text: str, kind: str) -> list[Any]:
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // SIZES[kind]}{kind}", raw))


def _data(findings: Json, rows: list[Json] | None = None, layers: list[Json] | None = None) -> Json:
    found = table.order(findings["rows"] if rows is None else rows)
    return cell_data("m0q0", "refusal", layers or findings["model"]["layers"], found, VOICE, 0.05)


def _same(shown: float, value: float | None) -> bool:
    return math.isnan(shown) if value is None else shown == pytest.approx(value, rel=1e-6)


def test_every_number_of_every_row_arrives() -> None:
    findings = samples.toy()
    data = _data(findings)
    columns = {name: _unpacked(text, "d" if name in CHANCES else "f") for name, text in data["columns"].items()}
    codes = _unpacked(data["verdict"], "B")
    for row in findings["rows"]:
        cell = 8 * row["layer"] + row["expert"]
        assert all(_same(columns[name][cell], row[name]) for name in (*FIELDS, *CHANCES)), row["site"]
        low, high = row["rate_difference_ci"] or (None, None)
        assert _same(columns["low"][cell], low)
        assert _same(columns["high"][cell], high)
        assert verdicts.VERDICTS[codes[cell]].name == row["verdict"]


def test_order_is_that_of_the_table() -> None:
    findings = samples.toy()
    cells = _unpacked(_data(findings)["order"], "I")
    expected = [8 * row["layer"] + row["expert"] for row in table.order(findings["rows"])]
    assert cells == expected
    assert cells[0] == 2 * 8 + 5


def test_layers_stand_in_order_and_a_missing_row_is_marked() -> None:
    findings = samples.toy()
    rows = [row for row in findings["rows"] if row["site"] != "L1.E0"]
    data = _data(findings, rows, findings["model"]["layers"][::-1])
    assert data["layers"] == [[0, 8], [1, 8], [2, 8], [3, 8]]
    codes = _unpacked(data["verdict"], "B")
    assert codes[8] == 255
    assert codes.count(255) == 1
    assert math.isnan(_unpacked(data["columns"]["S1"], "f")[8])


def test_rows_outside_the_model_have_no_cell() -> None:
    findings = samples.toy()
    stray = [findings["rows"][0] | {"layer": 99}, findings["rows"][0] | {"expert": 8}]
    data = _data(findings, stray)
    assert set(_unpacked(data["verdict"], "B")) == {255}
    assert _unpacked(data["order"], "I") == []


def test_swaps_hold_what_interchange_found() -> None:
    findings = samples.toy()
    swaps = {cell: rest for cell, *rest in _data(findings)["swaps"]}
    assert sorted(swaps) == [8 + 1, 16 + 5]
    row = next(row for row in findings["rows"] if row["site"] == "L2.E5")
    necessity = row["interchange"]["necessity"]
    assert swaps[21][:3] == pytest.approx([necessity["percent"], *necessity["ci"]], abs=0.005)


def test_remarks_are_told_once() -> None:
    findings = samples.toy()
    for row in findings["rows"][:5]:
        row |= {"reason": "the same reason", "association": "untestable"}
    data = _data(findings)
    numbers = _unpacked(data["remark"], "I")
    assert data["remarks"].count("the same reason") == 1
    assert [data["remarks"][n - 1] for n in numbers[:5]] == ["the same reason"] * 5
    assert numbers[5] == 0


def test_a_number_too_large_for_its_column_is_cut() -> None:
    findings = samples.toy()
    findings["rows"][0]["t"] = 1e300
    assert _unpacked(_data(findings)["columns"]["t"], "f")[0] > 3e38


def test_an_absurd_number_of_experts_is_refused() -> None:
    findings = samples.toy()
    findings["model"]["layers"][0]["experts"] = 10**9
    with pytest.raises(FindingsError, match="1,000,000,024 experts"):
        _data(findings)
