"""What every design starts from: who could be compared, on how many tokens, with what held fixed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.held import Held

Ints = NDArray[np.int64]

# Why a generation is not used; every design names all reasons, most of them with 0.
REASONS = ("no_tokens", "no_covariate", "incomplete_pairs", "too_short", "one_kind", "extra_samples")


@dataclass(frozen=True, eq=False)
class Scope:
    """Generations before a design chooses among them.

    Attributes:
        names: (generations,) the unit of each, as `units.prompt_names`.
        member: (generations,) POSITIVE, NEGATIVE or LEFT_OUT.
        segment: which tokens are compared.
        lengths: (generations,) routed tokens of each generation in the segment.
        held: blocks and covariates.
        left_out: generations left out so far, by reason.
    """

    names: Sequence[str]
    member: Ints
    segment: str
    lengths: Ints
    held: Held
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def fixed(self) -> str:
        """What is held fixed, in words."""
        return ", ".join(self.held.words)

    def leaving(self, **more: int) -> dict[str, int]:
        """How many generations are left out for every reason."""
        return {**dict.fromkeys(REASONS, 0), **self.left_out, **more}

    def numbered(self, kept: Ints, keys: Sequence[object]) -> tuple[Ints, list[object]]:
        """Units of the kept generations: (generations,) numbers, -1 elsewhere, and the distinct keys in order."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        unit = np.full(self.lengths.size, -1, dtype=np.int64)
        unit[kept] = [numbers[key] for key in keys]
        return unit, list(numbers)
