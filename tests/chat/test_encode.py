"""Prompts through a chat template, which is a model's own program: whatever it raises is one sentence."""

import math
from typing import Any

import pytest

from moeprobe.chat.encode import RESERVED, check_template, encode_prompt
from moeprobe.cli.trace import parse_template
from moeprobe.errors import PromptError
from moeprobe.prompts import Prompt
from tests.chat.chat_templates import CHATML, QWEN3, tokenizer

PROMPT = Prompt("a", prompt="hello")


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1/0 }}",  # ZeroDivisionError
        "{{ messages[0].content + 1 }}",  # TypeError
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",  # RecursionError
        "{% for m in messages %}{{ m.content",  # TemplateSyntaxError
        "{{ raise_exception('no\n\x1b[2Jsuch role') }}",  # TemplateError of two lines
        "{{ messages.nothing.at_all }}",  # UndefinedError
        "{{ 'x'.encode('utf-8').decode('utf-7', 'none') + ''|attr }}",
        "{{ [1]|first('a') }}",
    ],
)
def test_whatever_a_template_raises_is_one_sentence(template: str) -> None:
    with pytest.raises(PromptError, match=r"The chat template refused prompt 'a': .+ Check") as caught:
        encode_prompt(tokenizer(template), PROMPT)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("tools", [5, [5], "x"])
def test_tools_that_are_none(tools: Any) -> None:
    with pytest.raises(PromptError, match="The chat template refused prompt 'a'"):
        encode_prompt(tokenizer(CHATML), PROMPT, template={"tools": tools})


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_names_are_refused_from_python_and_from_the_command_line(name: str) -> None:
    with pytest.raises(PromptError, match=f"'{name}' is no variable of a chat template: moeprobe sets it itself"):
        encode_prompt(tokenizer(CHATML), PROMPT, template={name: True})
    with pytest.raises(PromptError, match=f"'{name}' is no variable"):
        parse_template((f"{name}=true",))


def test_every_argument_of_the_tokenizer_is_reserved_but_two() -> None:
    """A newer transformers may add arguments; each must be looked at."""
    import inspect

    taken = set(inspect.signature(tokenizer(CHATML).apply_chat_template).parameters) - {"self"}
    assert taken - RESERVED == {"tools", "documents"}


@pytest.mark.parametrize("value", [math.nan, object(), {1, 2}, b"x"])
def test_values_that_the_manifest_cannot_hold(value: Any) -> None:
    with pytest.raises(PromptError, match="'depth' cannot be written as JSON"):
        check_template({"depth": value})
    with pytest.raises(PromptError, match="cannot be written as JSON"):
        parse_template(("depth=NaN",))


def test_names_that_are_none() -> None:
    for name in ("a b", "", 3):
        with pytest.raises(PromptError, match="no variable of a chat template; write"):
            check_template({name: 1})  # type: ignore[dict-item]


def test_variables_reach_the_template() -> None:
    chip = tokenizer(QWEN3)
    options = parse_template(("enable_thinking=false",))
    assert options == {"enable_thinking": False}
    text = chip.decode(encode_prompt(chip, PROMPT, template=options))
    assert text.endswith("<think>\n\n</think>\n\n")
    assert "<think>" not in chip.decode(encode_prompt(chip, PROMPT))
