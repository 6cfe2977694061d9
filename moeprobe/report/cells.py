"""The cells of one question for the script: compact columns that map, table and download share."""

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moeprobe.errors import FindingsError
from moeprobe.report import table, verdicts
from moeprobe.report.maps import map_words
from moeprobe.report.voice import Voice

Json = Mapping[str, Any]

MOST_CELLS = 200_000
NO_ROW = 255  # in the column of verdicts: the model has this expert, the findings have no row of it
# Fields of a row that are shipped as they are, one float32 for each cell. Mean weights follow from these: W = S * Q.
FIELDS = ("S1", "S0", "Q1", "Q0", "rate_difference", "entry", "valuation", "auc", "beyond_difference", "t")
CHANCES = ("q",)  # float64, for it can be smaller than any float32
_LARGEST = 3.4e38
_CODES = {verdict.name: code for code, verdict in enumerate(verdicts.VERDICTS)}


def cell_data(
    key: str, label: str, layers: Sequence[Json], rows: Sequence[Json], voice: Voice, alpha: float
) -> dict[str, Any]:
    """Give the cells of one question: layers in order, in each layer one cell for every expert.

    Args:
        key: prefix of the ids of its rows.
        label: what the map shows, in words.
        layers: the model's layers; together they say how many cells there are.
        rows: the question's rows in the order of `table.order`; rows of experts that the model lacks are left out.
        voice: the words of the question.
        alpha: the level of q.

    Returns:
        `columns`: base64 of little-endian float32 (cells,), of q float64, NaN where there is no value.
        `verdict`: base64 of uint8, 255 where there is no row. `order`: base64 of uint32, the cells in the order of the
        table. `remarks`: distinct sentences, `remark`: base64 of uint32, 1 + the index of a cell's sentence, 0 for
        none. `swaps`: a list for each cell that interchange tested: cell, necessity and its interval, sufficiency and
        its interval, in percent. `extents`: by cell, how much a causal verdict is about.

    Raises:
        FindingsError: more than 200,000 experts, which no model has and no page can hold.
    """
    ordered = sorted(layers, key=lambda layer: int(layer["layer"]))
    starts, total = {}, 0
    for layer in ordered:
        starts[int(layer["layer"])] = (total, int(layer["experts"]))
        total += int(layer["experts"])
    if total > MOST_CELLS:
        raise FindingsError(f"The findings name {total:,} experts; the map draws at most {MOST_CELLS:,}.")
    placed = [(cell, row) for row in rows if (cell := _cell(row, starts)) is not None]
    remarks = list(dict.fromkeys(said for _, row in placed if (said := table.remark(row, voice))))
    numbers = {said: number for number, said in enumerate(remarks, 1)}
    bounds = {"low": 0, "high": 1}
    return {
        "key": key,
        "label": label,
        "layers": [[int(layer["layer"]), int(layer["experts"])] for layer in ordered],
        "words": map_words(voice),
        "alpha": alpha,
        "columns": {
            **{name: _floats(total, ((cell, row[name]) for cell, row in placed)) for name in FIELDS},
            **{name: _floats(total, ((cell, row[name]) for cell, row in placed), "d") for name in CHANCES},
            **{name: _floats(total, ((cell, _bound(row, at)) for cell, row in placed)) for name, at in bounds.items()},
        },
        "verdict": _verdicts(total, placed),
        "order": _packed("I", [cell for cell, _ in placed]),
        "remarks": remarks,
        "remark": _packed("I", _filled(total, 0, ((c, numbers.get(table.remark(r, voice), 0)) for c, r in placed))),
        "swaps": [[cell, *_swap(row["interchange"])] for cell, row in placed if row["interchange"] is not None],
        "extents": {cell: said for cell, row in placed if (said := verdicts.extent(row))},
    }


def _cell(row: Json, starts: Mapping[int, tuple[int, int]]) -> int | None:
    """The number of a row's cell; None where the model has no such expert."""
    start, experts = starts.get(int(row["layer"]), (0, 0))
    return start + int(row["expert"]) if 0 <= int(row["expert"]) < experts else None


def _bound(row: Json, at: int) -> float | None:
    bounds = row["rate_difference_ci"]
    return None if bounds is None else bounds[at]


def _swap(effects: Json) -> list[float | None]:
    """Necessity and sufficiency, each with its interval, to one decimal."""
    found = []
    for name in ("necessity", "sufficiency"):
        low, high = effects[name]["ci"] or (None, None)
        found += [effects[name]["percent"], low, high]
    return [None if value is None else round(value, 2) for value in found]


def _verdicts(total: int, placed: Iterable[tuple[int, Json]]) -> str:
    return _packed("B", _filled(total, NO_ROW, ((cell, _CODES[row["verdict"]]) for cell, row in placed)))


def _floats(total: int, values: Iterable[tuple[int, float | None]], kind: str = "f") -> str:
    known = ((cell, max(-_LARGEST, min(_LARGEST, value))) for cell, value in values if value is not None)
    return _packed(kind, _filled(total, math.nan, known))


def _filled(total: int, empty: Any, values: Iterable[tuple[int, Any]]) -> list[Any]:
    filled = [empty] * total
    for cell, value in values:
        filled[cell] = value
    return filled


def _packed(kind: str, values: Sequence[Any]) -> str:
    """Base64 of little-endian numbers; `kind` as of the module struct."""
    return base64.b64encode(struct.pack(f"<{len(values)}{kind}", *values)).decode()
