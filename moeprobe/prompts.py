"""Prompt files: JSONL (`id`, `prompt` or `messages`, optional `pair`, `label`, `metadata`) or plain text lines."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from moeprobe.errors import PromptError
from moeprobe.fields import LONE_SURROGATE, Fields, parse_json, read_text

_KNOWN = {"id", "prompt", "messages", "pair", "label", "metadata"}
_ROLES = ("system", "user", "assistant", "tool", "developer")
Label = str | int | float | bool | None


@dataclass(frozen=True)
class Prompt:
    """One prompt. Exactly one of `prompt` (plain text) and `messages` (chat) is set."""

    id: str
    prompt: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    pair: str | None = None
    label: Label = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The prompt as one JSONL object."""
        record: dict[str, Any] = {"id": self.id, "pair": self.pair, "label": self.label, "metadata": self.metadata}
        record["prompt"] = self.prompt
        record["messages"] = None if self.messages is None else list(self.messages)
        return record


def read_prompts(source: Path | BinaryIO | TextIO, *, limit: int | None = None) -> list[Prompt]:
    """Read a prompt file, or an open stream such as standard input.

    A first non-blank line that starts with "{" makes it JSONL, unless the file's name ends in .txt; otherwise each
    non-blank line is a prompt with the id "line-N".

    Raises:
        PromptError: no prompts, malformed lines, duplicate ids; the message names file and line.
    """
    if isinstance(source, Path):
        name, text = str(source), read_text(source, PromptError)
    else:
        name, text = "standard input", _decoded(source.read())
    # Only newlines end a line: str.splitlines would also break at U+2028 inside a JSON text.
    every = enumerate(text.removeprefix("\ufeff").split("\n"), 1)
    lines = [(number, line.strip()) for number, line in every if line.strip()]
    if not lines:
        raise PromptError(f"{name} holds no prompts. Write one JSON object per line, or one plain prompt per line.")
    plain = name.endswith(".txt") or not lines[0][1].startswith("{")
    prompts = [_plain(number, line) if plain else _record(line, f"{name}, line {number}") for number, line in lines]
    _refuse_duplicates(prompts, [number for number, _ in lines], name)
    return prompts[:limit]


def label_text(label: Label) -> str | None:
    """A label as text; JSON and command lines write true where Python writes True, and both mean one thing."""
    if label is None:
        return None
    text = str(label)
    return text.lower() if text in ("True", "False") else text


def digest(prompts: list[Prompt]) -> str:
    """SHA-256 over the prompts in order, independent of the file's layout."""
    body = "\n".join(json.dumps(prompt.to_json(), sort_keys=True) for prompt in prompts)
    return "sha256:" + hashlib.sha256(body.encode()).hexdigest()


def _decoded(data: str | bytes) -> str:
    try:
        return data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise PromptError(f"standard input is not UTF-8 text (byte {problem.start}).") from problem


def _plain(number: int, line: str) -> Prompt:
    return Prompt(id=f"line-{number}", prompt=line)


def parse_fields(line: str, where: str) -> Fields:
    """One line of a JSONL file as an object whose texts are all characters.

    Raises:
        PromptError: no JSON, no object, or half of a surrogate pair.
    """
    fields = Fields(parse_json(line, where, PromptError), where, PromptError)
    if LONE_SURROGATE.search(json.dumps(fields.data, ensure_ascii=False)):
        raise PromptError(f"{where}: the text holds half of a surrogate pair (like \\ud800), which is no character.")
    return fields


def parse_identifier(fields: Fields) -> str:
    """The field "id" as text; a whole number is one too.

    Raises:
        PromptError: no id, or an empty one.
    """
    raw_id = fields.data.get("id")
    identifier = str(raw_id) if isinstance(raw_id, int) and not isinstance(raw_id, bool) else fields.text("id")
    if not identifier:
        raise PromptError(f"{fields.where}: the id is empty.")
    return identifier


def _record(line: str, where: str) -> Prompt:
    fields = parse_fields(line, where)
    unknown = sorted(set(fields.data) - _KNOWN)
    if unknown:
        raise PromptError(f'{where}: unknown field {unknown[0]!r}. Put fields of your own under "metadata".')
    identifier = parse_identifier(fields)
    has_prompt, has_messages = fields.data.get("prompt") is not None, fields.data.get("messages") is not None
    if has_prompt == has_messages:
        raise PromptError(f'{where}: give either "prompt" (text) or "messages" (chat), and not both.')
    label = fields.data.get("label")
    if label is not None and not isinstance(label, str | int | float | bool):
        raise PromptError(f'{where}: "label" must be a text, a number, true or false.')
    return Prompt(
        id=identifier,
        prompt=_prompt_text(fields) if has_prompt else None,
        messages=parse_messages(fields) if has_messages else None,
        pair=_pair(fields),
        label=label,
        metadata=fields.section("metadata") if fields.data.get("metadata") is not None else {},
    )


def _prompt_text(fields: Fields) -> str:
    text = fields.text("prompt")
    if not text.strip():
        raise PromptError(f"{fields.where}: the prompt is empty.")
    return text


def _pair(fields: Fields) -> str | None:
    pair = fields.data.get("pair")
    return str(pair) if isinstance(pair, int) and not isinstance(pair, bool) else fields.optional_text("pair")


def parse_messages(fields: Fields, key: str = "messages") -> tuple[dict[str, str], ...]:
    """A field that holds a chat.

    Raises:
        PromptError: an empty chat, an unknown role, or a message of another form.
    """
    messages = fields.items(key)
    if not messages:
        raise PromptError(f'{fields.where}: "{key}" is empty.')
    result = []
    for index, message in enumerate(messages):
        entry = Fields(message, f"{fields.where}, message {index + 1}", PromptError)
        role = entry.text("role")
        if role not in _ROLES:
            raise PromptError(f"{entry.where}: unknown role {role!r}; use one of {', '.join(_ROLES)}.")
        result.append({"role": role, "content": entry.text("content")})
    return tuple(result)


def _refuse_duplicates(prompts: list[Prompt], numbers: list[int], name: str) -> None:
    seen: dict[str, int] = {}
    for prompt, number in zip(prompts, numbers, strict=True):
        if prompt.id in seen:
            raise PromptError(f"{name}, line {number}: the id {prompt.id!r} stands in line {seen[prompt.id]} already.")
        seen[prompt.id] = number
