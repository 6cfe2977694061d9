"""Names of places inside a model: `L14.E114` is expert 114 of layer 14. Imports only errors."""

import re
from dataclasses import dataclass

from moeprobe.errors import MoeprobeError

_EXPERT = re.compile(r"L(\d{1,6})\.E(\d{1,6})")


@dataclass(frozen=True, order=True)
class ExpertSite:
    """One expert of one layer. The layer index is the model's own (dense layers count too)."""

    layer: int
    expert: int

    def __str__(self) -> str:
        return f"L{self.layer}.E{self.expert}"


def parse_expert(name: str) -> ExpertSite:
    """Read "L14.E114".

    Raises:
        MoeprobeError: the name has another form; a bare index names no expert.
    """
    match = _EXPERT.fullmatch(name.strip())
    if match is None:
        raise MoeprobeError(f"{name!r} names no expert: write layer and expert, for example L14.E114.")
    return ExpertSite(int(match[1]), int(match[2]))
