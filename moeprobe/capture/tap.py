"""What a tap is: one more signal that a recorder takes besides expert ids and weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from moeprobe.capture.rows import Forward
from moeprobe.capture.tape import Tape

if TYPE_CHECKING:
    from moeprobe.capture.recorder import Recorder


class Removable(Protocol):
    """Something installed on a model, for example a hook's handle."""

    def remove(self) -> None:
        """Take it off again."""


class Tap:
    """Base of all taps. In each forward of its stack a tap puts one tensor (rows, ...) under each of its names.

    Attributes:
        stack: whose forwards it belongs to.
        names: what it puts on the tape.
    """

    stack: str = ""
    names: tuple[str, ...] = ()

    def attach(self, recorder: "Recorder") -> Sequence[Removable]:
        """Install hooks; called when recording begins, after the recorder's own."""
        del recorder
        return []

    def begin(self, forward: Forward) -> None:
        """A forward of the stack begins."""

    def end(self, forward: Forward, output: object) -> None:
        """A forward of the stack ends; the last moment to put rows on the tape."""

    def arrays(self, tape: Tape) -> dict[str, NDArray[np.generic]]:
        """What was recorded, by the name it has in a trace; (rows,) or (rows, width)."""
        return {name: tape.array(name) for name in self.names}

    def clear(self) -> None:
        """Forget state of the present call of generate."""
