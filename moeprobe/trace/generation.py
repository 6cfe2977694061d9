"""One line of `generations.jsonl`: a prompt, what the model wrote after it, and where its rows lie."""

import json
from dataclasses import dataclass, field
from typing import Any

from moeprobe.errors import TraceError
from moeprobe.fields import Fields, parse_json
from moeprobe.prompts import Label


@dataclass(frozen=True)
class Generation:
    """One generation.

    Attributes:
        index: number in the trace, the value of the shards' `generation` column.
        prompt_id, sample: which prompt, and which of its samples (from 0).
        pair, label, metadata, messages: as the prompt file gave them.
        prompt_text: the prompt as the model saw it (template and special tokens included).
        text: what was generated, without the end-of-sequence token.
        stop: "eos" or "length".
        generated: number of tokens sampled, the end-of-sequence token included.
        last_token: id of the last sampled token. It was never routed, so it has no row.
        prompt_rows, answer_rows: routed tokens of the prompt and of the answer.
        shard, first_row: where the rows begin; they lie together, in order of position.
        trims: what was cut and why (none yet in this version).
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
    shard: int
    first_row: int
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
        """One JSON line. ASCII only, so that no text of a model can break lines."""
        return json.dumps(vars(self), ensure_ascii=True, allow_nan=False)


def parse_generation(line: str, where: str) -> Generation:
    """Read and validate one line.

    Raises:
        TraceError: a missing or impossible field; the message names `where` and the field.
    """
    fields = Fields(parse_json(line, where, TraceError), where, TraceError)
    label = fields.data.get("label")
    if label is not None and not isinstance(label, str | int | float | bool):
        raise TraceError(f"{where}: 'label' must be a text, a number, true or false.")
    messages = fields.data.get("messages")
    if messages is not None and not isinstance(messages, list):
        raise TraceError(f"{where}: 'messages' must be a list.")
    return Generation(
        index=fields.integer("index"),
        prompt_id=fields.text("prompt_id"),
        sample=fields.integer("sample"),
        prompt_text=fields.text("prompt_text"),
        text=fields.text("text"),
        stop=fields.text("stop"),
        generated=fields.integer("generated", 1),
        last_token=fields.integer("last_token"),
        prompt_rows=fields.integer("prompt_rows"),
        answer_rows=fields.integer("answer_rows"),
        shard=fields.integer("shard"),
        first_row=fields.integer("first_row"),
        pair=fields.optional_text("pair"),
        label=label,
        metadata=fields.section("metadata"),
        messages=None if messages is None else tuple(messages),
        trims=tuple(fields.items("trims")),
    )
