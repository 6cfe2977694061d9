"""One of a probe's further outputs, as a probe of its own."""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moeprobe.errors import ProbeError
from moeprobe.probes.contract import CheckedProbe
from moeprobe.probes.probe import Example, Level, Passage, Reading, Span

if TYPE_CHECKING:
    from moeprobe.probes.parameters import Scalar


class OutputProbe:
    """The probe "NAME.OUTPUT": its score is that output, its spans are those labelled with it.

    A label fits when it is the output's name, with hyphens or spaces. Where no span of the probe's is labelled with
    any of its outputs, they are all kept. The examples are those whose right answer for this output is known; none
    where they are all of one kind, since nothing could be measured on them.
    """

    def __init__(self, whole: CheckedProbe, output: str) -> None:
        self.whole, self.output_name = whole, output
        self.name = f"{whole.name}.{output}"
        self.version: str = whole.version
        self.level: Level = whole.level
        self.definition = f"The output {output!r} of the probe {whole.name}: {whole.definition}"
        self.reads_segments = whole.reads_segments
        self.held_out_read = whole.held_out_read
        self.parameters: dict[str, Scalar] = whole.parameters

    @property
    def __wrapped__(self) -> object:
        """What is asked in the end; its parameters are this probe's."""
        return getattr(self.whole.inner, "__wrapped__", type(self.whole.inner))

    def examples(self) -> Sequence[Example]:
        """Examples of the probe that say what this output should be."""
        return self._asked(self.whole.examples())

    def held_out(self) -> Sequence[Example]:
        """Held-out examples of the probe that say what this output should be."""
        return self._asked(self.whole.held_out())

    def read(self, passage: Passage) -> Reading:
        """The probe's reading, seen from this output."""
        reading = self.whole.read_once(passage)
        return Reading(reading.outputs[self.output_name], self._own(reading.spans))

    def _own(self, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        labels = {span.label.replace(" ", "-") for span in spans}
        if not labels & set(self.whole.outputs):
            return spans
        return tuple(span for span in spans if span.label.replace(" ", "-") == self.output_name)

    def _asked(self, examples: Sequence[Example]) -> Sequence[Example]:
        known = [one for one in examples if self.output_name in one.outputs]
        asked = [replace(one, label=one.outputs[self.output_name], outputs={}) for one in known]
        return asked if len({one.label for one in asked}) == 2 else []


def output_of(whole: CheckedProbe, output: str) -> CheckedProbe:
    """The probe of one output.

    Raises:
        ProbeError: there is no such output (with the nearest name).
    """
    if output not in whole.outputs:
        near = difflib.get_close_matches(output, whole.outputs, n=1)
        known = f"It has {', '.join(whole.outputs)}." if whole.outputs else "It has only its main score."
        advice = f"Did you mean {whole.name}.{near[0]}?" if near else known
        raise ProbeError(f"The probe {whole.name} has no output {output!r}. {advice}")
    return CheckedProbe(OutputProbe(whole, output))
