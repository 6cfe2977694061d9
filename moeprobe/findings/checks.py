"""Checks that all parts of a findings file share."""

import math
from collections.abc import Iterable

from moeprobe.errors import FindingsError
from moeprobe.fields import Fields
from moeprobe.sites import parse_expert

# Beyond these no number is honest, and squares and sums of such numbers leave the range of floats.
MOST, LARGEST, DEEPEST = 1e12, 1e100, 64
PROBABILITIES = ("p", "q", "fwer", "auc", "jsd", "jsd_p", "jsd_q", "entropy_p", "entropy_q", "p_holm")


def check_optional(fields: Fields, key: str) -> None:
    """A number or null that is there; probabilities lie in [0, 1]."""
    if key not in fields.data:
        raise FindingsError(f"{fields.where}: the field {key!r} is missing.")
    value = fields.optional_number(key)
    if key in PROBABILITIES and value is not None and not 0 <= value <= 1:
        raise FindingsError(f"{fields.where}: {key} is {value}, which is no probability.")


def check_interval(fields: Fields, key: str) -> None:
    """[low, high], or null."""
    if fields.data.get(key) is None:
        return
    interval = fields.items(key)
    if len(interval) != 2 or not all(is_number(end) for end in interval):
        raise FindingsError(f"{fields.where}: {key!r} must be [low, high].")


def check_ends(fields: Fields, key: str) -> None:
    """[low, high] that is there, in order."""
    if fields.data.get(key) is None:
        raise FindingsError(f"{fields.where}: the field {key!r} is missing.")
    check_interval(fields, key)
    low, high = fields.data[key]
    if low > high:
        raise FindingsError(f"{fields.where}: {key!r} must be [low, high].")


def check_unit(fields: Fields, key: str) -> None:
    """A probability that is there."""
    if not 0 <= fields.number(key) <= 1:
        raise FindingsError(f"{fields.where}: {key} is {fields.data[key]}, which is no probability.")


def check_texts(fields: Fields, key: str) -> list[str]:
    """A list of texts, each once."""
    texts = fields.items(key)
    if not all(isinstance(text, str) for text in texts) or len(set(texts)) < len(texts):
        raise FindingsError(f"{fields.where}: {key!r} must be a list of texts, each once.")
    return texts


def check_numbers(fields: Fields, key: str) -> None:
    """A list of finite numbers."""
    if not all(is_number(value) for value in fields.items(key)):
        raise FindingsError(f"{fields.where}: {key!r} must be a list of numbers.")


def check_sites(fields: Fields, key: str) -> None:
    """A list of experts by name."""
    for name in fields.items(key):
        parse_expert(name if isinstance(name, str) else repr(name))


def check_sizes(item: object, where: str) -> None:
    """No number beyond 1e100 in either direction, and nothing nested deeper than 64: both break what reads them."""
    waiting: list[tuple[object, int, object]] = [(item, 0, "")]
    while waiting:
        one, depth, key = waiting.pop()
        if depth > DEEPEST:
            raise FindingsError(f"{where}: nested deeper than {DEEPEST}.")
        if isinstance(one, dict):
            waiting += [(value, depth + 1, name) for name, value in one.items()]
        elif isinstance(one, list):
            waiting += [(value, depth + 1, key) for value in one]
        elif isinstance(one, int | float) and not -LARGEST <= one <= LARGEST:
            raise FindingsError(
                f"{where}: a number of {str(key)[:80]!r} is beyond {LARGEST:g}, which nothing measures."
            )


def check_range(where: str, key: str, values: Iterable[float | None], most: float = MOST) -> None:
    """Numbers from -most to most; null passes."""
    for value in values:
        if value is not None and not -most <= value <= most:
            raise FindingsError(f"{where}: {key} is {value:g}, beyond {most:g}.")


def is_number(value: object) -> bool:
    """A finite number, and no truth value."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


def check_choice(fields: Fields, key: str, choices: tuple[str, ...]) -> None:
    """One of some texts."""
    if fields.text(key) not in choices:
        raise FindingsError(f"{fields.where}: {key!r} is {fields.data[key]!r}, expected one of {', '.join(choices)}.")
