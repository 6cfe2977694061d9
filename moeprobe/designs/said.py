"""What a probe said of each generation, kept short in the findings, so that a probe that was changed since is noticed.

A name and a version say which probe was meant. They do not say that its file was not edited without raising the
version, nor that a module beside it, a trained probe's weights, or the way scores are combined stayed as they were.
"""

import hashlib
import json
from collections.abc import Sequence

from moeprobe.errors import StatsError
from moeprobe.fields import Fields
from moeprobe.probes import Reading

_DECIMALS = 6  # of a score: another machine may sum in another order


def said(member: Sequence[int], readings: Sequence[Reading]) -> dict[str, str | None]:
    """`members` and `readings` of docs/findings.md.

    Args:
        member: (generations,) 1 positive, 0 negative, -1 left out.
        readings: (generations,) what the probe answered; an abstention where it was not asked.
    """
    lines = [
        [
            code,
            None if reading.score is None else f"{reading.score:.{_DECIMALS}f}",
            sorted((span.start, span.end) for span in reading.spans),
        ]
        for code, reading in zip(member, readings, strict=True)
    ]
    digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()
    return {"members": "".join("-+."[code] for code in member), "readings": f"sha256:{digest}"}


def check_same_said(now: dict[str, str | None], asked: Fields) -> None:
    """Check that the probe says what it said when the question was asked; older findings do not tell.

    Args:
        now: what `said` gives now.
        asked: `grouping` of the question.

    Raises:
        StatsError: it sorts a generation otherwise, or gives other scores or marks.
        FindingsError: a field is no text.
    """
    before, digest = asked.optional_text("members"), asked.optional_text("readings")
    if before is None or digest is None or digest == now["readings"]:
        return
    after = str(now["members"])
    if len(before) != len(after):
        raise StatsError(
            f"{asked.where}: made from {len(before)} generations, but there are {len(after)}. "
            "Give the trace that the question was asked of."
        )
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    change = (
        f"It now sorts {moved} of {len(after)} generations otherwise"
        if moved
        else f"It sorts all {len(after)} generations as before, but with other scores or marks"
    )
    raise StatsError(
        f"{asked.where}: the probe is not what it was when the question was asked, though its name and version are. "
        f"{change}. Run correlate again, and raise a probe's version whenever its answers change."
    )
