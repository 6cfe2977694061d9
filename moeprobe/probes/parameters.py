"""A probe's parameters: keyword-only arguments with a default, which a user may set and findings record."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from moeprobe.errors import ProbeError

Scalar = int | float | str | bool
"""What a parameter may be."""


def is_scalar(value: object) -> bool:
    """Whether `value` may stand in JSON as it is: text, a truth value, or a finite number."""
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def declared(maker: Callable[..., Any]) -> dict[str, Scalar]:
    """The keyword-only arguments of a class or function that have a scalar default, in their order."""
    try:
        arguments = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # no Python function
        return {}
    return {one.name: one.default for one in arguments if one.kind is one.KEYWORD_ONLY and is_scalar(one.default)}


def chosen(defaults: Mapping[str, Scalar], given: Mapping[str, object], who: str) -> dict[str, Scalar]:
    """All parameters with their values: those of `given` checked, the others at their defaults.

    Args:
        defaults: as `declared` gives them; a value must have its default's type (a whole number may stand for a float).
        given: what the user wrote.
        who: the probe, for messages.

    Raises:
        ProbeError: no such parameter (with the nearest name), or a value of another type.
    """
    values = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise ProbeError(_unknown(key, list(defaults), who))
        kind = type(defaults[key])
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not is_scalar(value):
            example = defaults[key] if kind is not bool else "true or false"
            raise ProbeError(f"{who}: the parameter {key} is {value!r}; give {_KINDS[kind]}, such as {example}.")
        values[key] = value
    return values


def spelled(values: Mapping[str, Scalar]) -> str:
    """For example "(every=2, strict=true)"; "" for none. `parse_spec` reads it back."""
    if not values:
        return ""
    return "(" + ", ".join(f"{key}={_value(value)}" for key, value in values.items()) + ")"


_KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a text", bool: "a truth value"}


def _value(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _unknown(key: str, known: list[str], who: str) -> str:
    if not known:
        return f"{who} has no parameters, so {key}=... cannot be set."
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
    return f"{who} has no parameter {key!r}. {advice}"
