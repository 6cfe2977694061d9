"""Labels from people, models and other tools: one record says which text, and what was said of it."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moeprobe.designs.values import is_expert_name, names_routing
from moeprobe.errors import LabelError
from moeprobe.fields import Fields, json_lines
from moeprobe.files import sha256
from moeprobe.probes import Span
from moeprobe.prompts import label_text

if TYPE_CHECKING:
    import pandas

WHICH = ("generation", "prompt_id", "sample", "text", "window")
SAID = ("label", "score", "spans")
# What may stand beside without a meaning here. `sampled_by` says what a labelling sheet's windows were drawn by.
BESIDE = ("prompt", "note", "labeller", "sampled_by")
FORM = (
    'Write which text ("generation", or "prompt_id" and "sample", or "text") and what is said of it ("label", "score" '
    'or "spans").'
)


@dataclass(frozen=True)
class LabelRecord:
    """One label.

    Attributes:
        where: file and line, for messages.
        generation, prompt_id, sample, text: which generation; None where the record does not say.
        window: the stretch [start, end) of the answer that was judged; None: all of it.
        kind: "label", "score" or "spans": what was said.
        label: the value as text; None abstains, as for another kind.
        score: in [0, 1]; None abstains, as for another kind.
        spans: stretches of the answer that are marked; None where nothing was said of parts.
        sampled_by: what the window was drawn by, "" where that is not known.
    """

    where: str
    generation: int | None
    prompt_id: str | None
    sample: int | None
    text: str | None
    window: tuple[int, int] | None
    kind: str
    label: str | None
    score: float | None
    spans: tuple[Span, ...] | None
    sampled_by: str = ""

    @property
    def abstains(self) -> bool:
        """Whether whoever labelled gave no answer."""
        return self.label is None and self.score is None and self.spans is None


@dataclass(frozen=True)
class Labels:
    """Records and where they come from.

    Attributes:
        records: in order.
        source: name of the file, or what else they came from.
        digest: "sha256:...", of the file, or of the records where there is none.
        scorer: of an inspect_ai log, whose scores these are.
    """

    records: tuple[LabelRecord, ...]
    source: str
    digest: str
    scorer: str | None = None


def read_label_records(path: str | Path) -> Labels:
    """Labels from JSON Lines, one object a line (docs/labels.md).

    Raises:
        LabelError: the file cannot be read, holds no label, or a line is malformed; the message names file and line.
    """
    file = Path(path)
    records = [label_record(fields.data, fields.where) for fields in json_lines(file, LabelError)]
    return Labels(checked_records(records, str(file)), file.name, "sha256:" + sha256(file))


def frame_labels(frame: "pandas.DataFrame", name: str = "a data frame") -> Labels:
    """Labels from a pandas data frame with the same columns; a missing value (NaN, None, NA) is as if not written.

    An abstention is a row whose `label` (or `score`, or `spans`) is missing.

    Raises:
        LabelError: a row is malformed; the message names its number, from 0.
    """
    said = [column for column in SAID if column in frame.columns]
    plain = []
    for row in frame.to_dict("records"):
        known = {str(key): _plain(value) for key, value in row.items()}
        plain.append({key: value for key, value in known.items() if value is not None})
        if not plain[-1].keys() & set(SAID) and said:
            plain[-1][said[0]] = None
    records = [label_record(one, f"{name}, row {number}") for number, one in enumerate(plain)]
    body = json.dumps(plain, sort_keys=True)
    return Labels(checked_records(records, name), name, "sha256:" + hashlib.sha256(body.encode()).hexdigest())


def label_record(data: Mapping[str, Any], where: str) -> LabelRecord:
    """One record from a JSON object.

    Raises:
        LabelError: a key is unknown, of a wrong type, or missing.
    """
    fields = Fields(dict(data), where, LabelError)
    _check_keys(fields)
    kind = _kind_of(fields)
    window = _window(fields)
    spans = _spans(fields) if data.get("spans") is not None else None
    if window is not None and spans is not None:
        raise LabelError(f'{where}: a "window" is judged as a whole; mark parts of an answer with "spans" alone.')
    if data.get(kind) is None and spans is not None:
        raise LabelError(f'{where}: "{kind}" is null (an abstention), but "spans" marks something. Leave one out.')
    given = data.get("generation"), data.get("prompt_id"), data.get("text")
    if all(value is None for value in given):
        raise LabelError(f"{where}: this line does not say which text it is about. {FORM}")
    if data.get("sample") is not None and data.get("prompt_id") is None:
        raise LabelError(f'{where}: "sample" is the number of an answer to a prompt; add "prompt_id".')
    return LabelRecord(
        where=where,
        generation=fields.integer("generation", 0, 2**31 - 1) if data.get("generation") is not None else None,
        prompt_id=fields.optional_text("prompt_id"),
        sample=fields.integer("sample") if data.get("sample") is not None else None,
        text=fields.optional_text("text"),
        window=window,
        kind=kind,
        label=_label(fields) if kind == "label" else None,
        score=_score(data.get("score"), where, "score") if data.get("score") is not None else None,
        spans=spans,
        sampled_by=fields.optional_text("sampled_by") or "",
    )


def checked_records(records: Iterable[LabelRecord], source: str) -> tuple[LabelRecord, ...]:
    """The records, all of one kind.

    Raises:
        LabelError: there are none, all abstain, or two kinds are mixed.
    """
    made = tuple(records)
    if not made:
        raise LabelError(f"{source} holds no labels. {FORM}")
    if all(one.abstains for one in made):
        raise LabelError(f"{source}: all {len(made)} labels are abstentions (null). There is nothing to compare.")
    for kind, first in ((one.kind, one) for one in made[1:]):
        if kind != made[0].kind:
            raise LabelError(
                f"{first.where} gives a {kind}, but {made[0].where} gives a {made[0].kind}. One file answers one "
                "question in one way; write two files."
            )
    windows = {one.window is not None for one in made}
    if len(windows) > 1:
        raise LabelError(
            f"{source}: some labels are of a window, others of whole answers. Write two files, or mark parts by spans."
        )
    return made


def _check_keys(fields: Fields) -> None:
    known = (*WHICH, *SAID, *BESIDE)
    for key in fields.data:
        if key in known:
            continue
        if names_routing(key):
            raise LabelError(
                f"{fields.where}: the key {key[:60]!r} names experts or routing. Labels are made from the text "
                "alone; leave such columns out."
            )
        raise LabelError(f"{fields.where}: unknown key {key[:60]!r}. Known are {', '.join(known)}.")


def _kind_of(fields: Fields) -> str:
    said = [key for key in SAID if key in fields.data]
    if not said:
        raise LabelError(f"{fields.where}: nothing is said of the text. {FORM} null abstains.")
    if "label" in said and "score" in said:
        raise LabelError(f'{fields.where}: both "label" and "score" are given. Leave one of them out.')
    return said[0]


def _label(fields: Fields) -> str | None:
    value = fields.data["label"]
    if value is None:
        return None
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        if value not in (0, 1):
            raise LabelError(f'{fields.where}: the label {value!r} is a number. Use 0 and 1, or "score".')
        return str(int(value))
    if not isinstance(value, str) or not value.strip():
        raise LabelError(f"{fields.where}: 'label' must be 0, 1, a text or null.")
    if is_expert_name(value):
        raise LabelError(f"{fields.where}: the label {value!r} names an expert: it comes from the routing.")
    text = label_text(value.strip())
    return {"true": "1", "false": "0"}.get(str(text), text)


def _window(fields: Fields) -> tuple[int, int] | None:
    if fields.data.get("window") is None:
        return None
    ends = fields.items("window")
    if len(ends) != 2 or not all(type(end) is int for end in ends) or not 0 <= ends[0] < ends[1] < 2**31:
        raise LabelError(f"{fields.where}: 'window' must be [start, end], characters of the answer, start before end.")
    return ends[0], ends[1]


def _spans(fields: Fields) -> tuple[Span, ...]:
    return tuple(_span(item, fields.where) for item in fields.items("spans"))


def _span(item: object, where: str) -> Span:
    form = "a span is [start, end], [start, end, score] or [start, end, score, label], in characters of the answer"
    if not isinstance(item, list | tuple) or not 2 <= len(item) <= 4:
        raise LabelError(f"{where}: {form}.")
    given = list(item)
    start, end, score, label = given + [1.0, ""][len(given) - 2 :]
    if type(start) is not int or type(end) is not int or not 0 <= start < end < 2**31:
        raise LabelError(f"{where}: the span [{start!r}, {end!r}] is none; {form}, start before end.")
    if not isinstance(label, str):
        raise LabelError(f"{where}: the label of the span [{start}, {end}] must be a text.")
    if is_expert_name(label):
        raise LabelError(f"{where}: the label {label!r} of a span names an expert: it comes from the routing.")
    return Span(start, end, _score(score, where, f"the score of the span [{start}, {end}]"), label)


def _score(value: object, where: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise LabelError(f"{where}: {what} is {str(value)[:40]}; it must be a number from 0 to 1, or null.")
    return float(value)


def _plain(value: Any) -> Any:
    """A cell as JSON would give it; None where it is missing. Whole floats are integers, which pandas made floats."""
    value = value.tolist() if hasattr(value, "tolist") else value  # NumPy's arrays (Parquet gives them) and scalars
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or value != value or type(value).__name__ == "NAType":  # NaN
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
