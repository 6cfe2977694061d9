"""From prompts to token ids, through the chat template where there is one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from moeprobe.errors import PromptError
from moeprobe.prompts import Prompt

# Variables of a chat template, by name.
Template = Mapping[str, Any]
# Arguments of apply_chat_template that are no variables of a template: moeprobe sets them itself, or they change what
# comes back. `tools` and `documents` are variables.
RESERVED = frozenset({
    "self", "conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs", "kwargs",
})  # fmt: skip


def check_template(template: Template) -> None:
    """Check variables of a chat template, wherever they come from.

    Raises:
        PromptError: a name that is no variable or that moeprobe sets itself, or a value that JSON, and so the trace's
            manifest, does not hold.
    """
    for name, value in template.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise PromptError(
                f"{str(name)[:60]!r} is no variable of a chat template; write for example enable_thinking."
            )
        if name in RESERVED:
            raise PromptError(f"{name!r} is no variable of a chat template: moeprobe sets it itself. Leave it out.")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as problem:
            raise PromptError(
                f"The template variable {name!r} cannot be written as JSON, so the trace could not keep it. Give a "
                "text, a number, true, false, a list or an object."
            ) from problem


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, raw: bool = False, template: Template | None = None
) -> list[int]:
    """Token ids of one prompt.

    A plain `prompt` becomes a user message when the tokenizer has a chat template, unless `raw`.

    Args:
        tokenizer: the model's.
        prompt: text or chat.
        raw: a plain prompt is not put through the chat template.
        template: variables of the chat template, for example {"enable_thinking": False}.

    Raises:
        PromptError: chat messages without a chat template, variables that `check_template` refuses, a template that
            fails, or no token at all.
    """
    check_template(template or {})
    if prompt.messages is None and (raw or tokenizer.chat_template is None):
        ids = tokenizer(prompt.prompt)["input_ids"]
    else:
        ids = _templated(tokenizer, prompt, template or {})
    result = [int(token) for token in ids]
    if not result:
        raise PromptError(f"Prompt {prompt.id!r} gives no token with this tokenizer.")
    return result


def tokenizer_section(
    tokenizer: PreTrainedTokenizerBase, *, raw: bool, template: Template | None = None
) -> dict[str, Any]:
    """The manifest's `tokenizer` section."""
    chat = tokenizer.chat_template
    vocabulary = "\n".join(f"{token}\t{index}" for token, index in sorted(tokenizer.get_vocab().items()))
    return {
        "class": type(tokenizer).__name__,
        "vocabulary": len(tokenizer),
        "digest": _digest(vocabulary),
        "raw": raw,
        "chat_template": not raw and chat is not None,
        "template_digest": None if chat is None else _digest(str(chat)),
        "template_options": dict(template or {}),
    }


def _templated(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, template: Template) -> Any:
    if tokenizer.chat_template is None:
        raise PromptError(
            f"Prompt {prompt.id!r} has chat messages, but the model's tokenizer has no chat template. "
            'Give "prompt" instead.'
        )
    plain = [{"role": "user", "content": prompt.prompt or ""}]
    messages = plain if prompt.messages is None else list(prompt.messages)
    try:
        encoded: Any = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, **template
        )
    except Exception as problem:  # a template is the model's own program and may raise anything
        lines = str(problem).split("\n")
        said = (lines[0].strip() or type(problem).__name__)[:200].rstrip(".")
        raise PromptError(
            f"The chat template refused prompt {prompt.id!r}: {said}. Check its messages and the template options."
        ) from problem
    return encoded["input_ids"]


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
