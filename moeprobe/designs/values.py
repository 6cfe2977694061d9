"""Labels and metadata of generations as text or numbers. Nothing that comes from routing may be a label."""

import math
import re

from moeprobe.errors import StatsError
from moeprobe.gathering.inputs import GenerationLike
from moeprobe.prompts import label_text

# A label made from the routing finds the routing it was made from.
_ROUTING = re.compile(
    r"(?<![a-z])(?:l\d+[._-]?e\d+|layer[_-]?\d+|e\d{2,}|experts?|rout(?:ers?|ing|ed|es?)|gates?|gating|moe|"
    r"top[_-]?(?:\d+|k)|activations?)(?![a-z])",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_EXPERT = re.compile(r"(?:[a-z]+\.)?L\d+\.?E\d+", re.IGNORECASE)


def value_of(one: GenerationLike, by: str) -> str | None:
    """The label (`by="label"`) or a metadata value (`by="metadata.KEY"`) as text; None where there is none.

    Raises:
        StatsError: `by` is neither, names experts or routing, or the value is no text, number or truth value.
    """
    value = _raw(one, by)
    return None if value is None else label_text(value)


def number_of(one: GenerationLike, by: str) -> float:
    """The same as a number; NaN where there is none.

    Raises:
        StatsError: as `value_of`, or the value is no finite number.
    """
    value = _raw(one, by)
    if value is None:
        return math.nan
    if isinstance(value, str) or not math.isfinite(value):
        raise StatsError(
            f"{by} of prompt {one.prompt_id} is {value!r}, not a finite number. Use numbers, or leave the value out."
        )
    return float(value)


def is_number(one: GenerationLike, by: str) -> bool:
    """Whether the value is a number (truth values are not)."""
    value = _raw(one, by)
    return value is not None and not isinstance(value, str | bool)


def names_routing(key: str) -> bool:
    """Whether a name is one that a person would give to what the router did."""
    return bool(_ROUTING.search(key) or _ROUTING.search(_CAMEL.sub("_", key)))


def is_expert_name(value: str) -> bool:
    """Whether a value is the name of an expert, such as L18.E5."""
    return bool(_EXPERT.fullmatch(value.strip()))


def _raw(one: GenerationLike, by: str) -> str | int | float | bool | None:
    key = by.removeprefix("metadata.")
    if by != "label" and (key == by or not key):
        raise StatsError(f"Cannot group by {by!r}. Use label, or metadata.KEY with a key of the prompts' metadata.")
    if by != "label" and names_routing(key):
        raise StatsError(
            f"{by!r} names experts or routing. A label that comes from the routing finds the experts it was made from. "
            "Label the text without looking at the routing; rename the key if it has nothing to do with it."
        )
    value = one.label if by == "label" else one.metadata.get(key)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise StatsError(f"Cannot group by {by!r}: prompt {one.prompt_id} holds a {type(value).__name__} there.")
    if isinstance(value, str) and is_expert_name(value):
        raise StatsError(
            f"The value {value!r} of {by} of prompt {one.prompt_id} names an expert: it comes from the routing."
        )
    return value
