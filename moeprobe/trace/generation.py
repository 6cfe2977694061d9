"""One line of `generations.jsonl`: a prompt, what the model wrote after it, and where its rows lie."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moeprobe.errors import TraceError
from moeprobe.fields import Fields, parse_json
from moeprobe.prompts import Label
from moeprobe.trace.index import lines

NAME = "generations.jsonl"
# A million characters of text, escaped, and room to spare. It bounds what parsing a hostile line may allocate.
MAX_LINE = 16 << 20


@dataclass(frozen=True)
class Generation:
    """One generation.

    Attributes:
        index: number in the trace, the value of the shards' `generation` column.
        prompt_id, sample: which prompt, and which of its samples (from 0).
        pair, label, metadata, messages: as the prompt file gave them.
        prompt_text: the prompt as the model saw it (template and special tokens included).
        text: what was generated, without the end-of-sequence token.
        stop: "eos" (an end token), "stop" (a stop text was complete) or "length".
        generated: number of tokens sampled, the end-of-sequence token included.
        last_token: id of the last sampled token. It was never routed, so it has no row.
        prompt_rows, answer_rows: routed tokens of the prompt and of the answer.
        shard, first_row: where the rows begin; they lie together, in order of position. The writer fills both in.
        trims: what was cut and why: objects with "cause", "kept" and "dropped" (generated tokens).
    """

    index: int
    prompt_id: str
    sample: int
    prompt_text: str
    text: str
    stop: str
    generated: int
    last_token: int
    prompt_rows: int
    answer_rows: int
    shard: int = 0
    first_row: int = 0
    pair: str | None = None
    label: Label = None
    metadata: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, str], ...] | None = None
    trims: tuple[dict[str, Any], ...] = ()

    @property
    def rows(self) -> int:
        """Routed tokens in all."""
        return self.prompt_rows + self.answer_rows

    def to_json(self) -> str:
        """One JSON line. ASCII only, so that no text of a model can break lines.

        Raises:
            TraceError: too long, or half a surrogate pair in a text: no reader would take it.
        """
        line = json.dumps(vars(self), ensure_ascii=True, allow_nan=False)
        where = f"generation {self.index} (prompt {self.prompt_id[:60]!r})"
        if len(line) >= MAX_LINE:
            raise TraceError(f"{where} takes {len(line):,} bytes of text, more than {MAX_LINE:,}. Shorten its prompt.")
        _refuse_surrogates(line, vars(self), where)
        return line


def parse_generation(line: str, where: str) -> Generation:
    """Read and validate one line.

    Raises:
        TraceError: a missing or impossible field; the message names `where` and the field.
    """
    fields = Fields(parse_json(line, where, TraceError), where, TraceError)
    _refuse_surrogates(line, fields.data, where)
    label = fields.data.get("label")
    if label is not None and not isinstance(label, str | int | float | bool):
        raise TraceError(f"{where}: 'label' must be a text, a number, true or false.")
    messages = fields.data.get("messages")
    if messages is not None and not (isinstance(messages, list) and all(isinstance(one, dict) for one in messages)):
        raise TraceError(f"{where}: 'messages' must be a list of objects.")
    trims = fields.items("trims")
    if not all(isinstance(trim, dict) for trim in trims):
        raise TraceError(f"{where}: 'trims' must be a list of objects.")
    return Generation(
        index=fields.integer("index", 0, 2**31 - 1),
        prompt_id=fields.text("prompt_id"),
        sample=fields.integer("sample"),
        prompt_text=fields.text("prompt_text"),
        text=fields.text("text"),
        stop=fields.text("stop"),
        generated=fields.integer("generated", 1),
        last_token=fields.integer("last_token"),
        prompt_rows=fields.integer("prompt_rows", 1, 2**31 - 1),
        answer_rows=fields.integer("answer_rows", 0, 2**31 - 1),
        shard=fields.integer("shard"),
        first_row=fields.integer("first_row"),
        pair=fields.optional_text("pair"),
        label=label,
        metadata=fields.section("metadata"),
        messages=None if messages is None else tuple(messages),
        trims=tuple(trims),
    )


def read_generations(path: Path, count: int) -> Iterator[Generation]:
    """The first `count` lines of `generations.jsonl`, in order; memory for one line.

    Raises:
        TraceError: fewer lines, a damaged one, or one that does not follow the one before: generations are numbered
            from 0, and their rows fill the shards without gaps.
    """
    previous: Generation | None = None
    number = 0
    for number, line in enumerate(lines(path, MAX_LINE), 1):
        if number > count:
            return
        where = f"{path}, line {number}"
        if not line.endswith(b"\n"):
            raise TraceError(f"{where} is cut off. Copy the trace again, or record it again.")
        one = parse_generation(line.decode("ascii", "replace"), where)
        if one.index != number - 1:
            raise TraceError(f"{where} does not list generations 0 to {count - 1} in order: it is number {one.index}.")
        _check_place(one, previous, where)
        previous = one
        yield one
    if number < count:
        raise TraceError(f"{path} does not list generations 0 to {count - 1}: it ends after {number}. Copy it again.")


def _check_place(one: Generation, previous: Generation | None, where: str) -> None:
    shard, row = (0, 0) if previous is None else (previous.shard, previous.first_row + previous.rows)
    follows = (one.shard, one.first_row) == (shard, row) or (one.shard == shard + 1 and one.first_row == 0)
    if not follows or (previous is None and one.shard != 0):
        raise TraceError(
            f"{where}: its rows begin at row {one.first_row} of shard {one.shard}, but the ones before end at row "
            f"{row} of shard {shard}. Copy the trace again, or record it again."
        )


def _refuse_surrogates(line: str, data: dict[str, Any], where: str) -> None:
    """Half of a surrogate pair is no character; printing it would fail far from here."""
    if "\\ud" not in line.lower():
        return
    try:
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as problem:
        raise TraceError(f"{where}: the text holds half of a surrogate pair, which is no character.") from problem
