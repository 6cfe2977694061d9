"""The title of a figure."""

from collections.abc import Mapping
from typing import Any

from moeprobe.visible import shortened

LONGEST = 60


def heading(name: str, findings: Mapping[str, Any]) -> str:
    """Question and model on one line, cut where they would run out of the figure."""
    return (
        f"{' '.join(shortened(name, LONGEST).split())}, {' '.join(shortened(findings['model']['id'], LONGEST).split())}"
    )
