"""A function as a probe: `@probe(...)` gives it the facts that a class would hold."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moeprobe.errors import ProbeError
from moeprobe.probes.labels import read_labels
from moeprobe.probes.parameters import Scalar, chosen, declared
from moeprobe.probes.probe import Example, Level, Passage, Reading, Span

Judge = Callable[..., object]
Examples = Sequence[Example | tuple[str, int]] | Path


class FunctionProbe:
    """A judging function with its facts; made by `probe`, and itself a `Probe`. It can still be called as it was."""

    def __init__(self, judge: Judge, facts: Mapping[str, Any], parameters: Mapping[str, Scalar]) -> None:
        self.name: str = facts["name"]
        self.version: str = facts["version"]
        self.level: Level = facts["level"]
        self.definition: str = facts["definition"]
        self.outputs: tuple[str, ...] = tuple(facts["outputs"])
        self.parameters = dict(parameters)
        self.__wrapped__ = judge
        self.__module__ = judge.__module__
        self.__doc__ = judge.__doc__
        self._facts = facts
        self._whole = _takes_passage(judge)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the function says, as it says it."""
        return self.__wrapped__(*args, **options)

    def examples(self) -> list[Example]:
        """The examples of the decorator's call."""
        return _listed(self._facts["examples"])

    def held_out(self) -> list[Example]:
        """The held-out examples of the decorator's call; none where it gave none."""
        return _listed(self._facts["held_out"])

    def read(self, passage: Passage) -> Reading:
        """Ask the function, and turn what it says into a `Reading`."""
        said = self.__wrapped__(passage if self._whole else passage.text, **self.parameters)
        return _reading(said, self.name)

    def with_parameters(self, given: Mapping[str, object]) -> "FunctionProbe":
        """The same probe with other parameters.

        Raises:
            ProbeError: no such parameter, or a value of another type.
        """
        values = chosen(declared(self.__wrapped__), given, f"Probe {self.name}")
        return FunctionProbe(self.__wrapped__, self._facts, values)


def probe(
    *,
    name: str,
    version: str,
    level: Level,
    definition: str,
    examples: Examples,
    held_out: Examples = (),
    outputs: Sequence[str] = (),
) -> Callable[[Judge], FunctionProbe]:
    """Make a probe of a function of the text.

    The function takes the text (or, where its first argument is annotated `Passage` or called `passage`, the whole
    passage) and returns one of: a score in [0, 1], True or False, None (it abstains), a list of (start, end) or of
    `Span` (positive where it is not empty), or a `Reading`. Its keyword-only arguments with a default are the
    probe's parameters.

    Args:
        name, version, level, definition, outputs: as the members of `Probe`. Write them as literals in the call, so
            that they can be read without running the file.
        examples, held_out: `Example`s or pairs of text and label, or the `Path` of a JSONL file (docs/probes.md).
    """
    facts = {
        "name": name, "version": version, "level": level, "definition": definition, "examples": examples,
        "held_out": held_out, "outputs": outputs,
    }  # fmt: skip
    return lambda judge: FunctionProbe(judge, facts, declared(judge))


def _takes_passage(judge: Judge) -> bool:
    try:
        first = next(iter(inspect.signature(judge).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    return first is not None and (
        first.annotation in (Passage, "Passage") or (first.annotation is first.empty and first.name == "passage")
    )


def _listed(given: Examples) -> list[Example]:
    if isinstance(given, Path):
        return read_labels(given)
    return [Example(*one) if isinstance(one, tuple) and len(one) == 2 else one for one in given]


def _reading(said: object, name: str) -> Reading:
    if isinstance(said, Reading):
        return said
    if isinstance(said, bool):
        return Reading(1.0 if said else 0.0)
    if isinstance(said, list | tuple):
        spans = tuple(_span(one, name) for one in said)
        return Reading(1.0 if spans else 0.0, spans)
    return Reading(said)  # type: ignore[arg-type]  # a number or None; all else is found when it is checked


def _span(one: object, name: str) -> Span:
    if isinstance(one, Span):
        return one
    if isinstance(one, list | tuple) and len(one) == 2:
        return Span(one[0], one[1], 1.0, name)
    raise ProbeError(f"Probe {name} returned a list that holds {one!r:.80}. Give (start, end) or Span.")
