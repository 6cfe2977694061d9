"""Choosing the design from the data, or taking the one that was asked for."""

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moeprobe.designs.design import MIN_UNITS, Design
from moeprobe.designs.groups import LEFT_OUT, NEGATIVE, POSITIVE, Groups
from moeprobe.designs.held import Held, hold
from moeprobe.designs.pairing import complete_pairs, enough_pairs, pair_lengths, paired
from moeprobe.designs.parts import marked_parts, within
from moeprobe.designs.scope import Scope
from moeprobe.designs.scoring import scored
from moeprobe.designs.two_groups import two_groups
from moeprobe.designs.units import prompt_names, same_text
from moeprobe.errors import StatsError
from moeprobe.gathering.inputs import TraceLike

Ints = NDArray[np.int64]

DESIGNS = ("auto", "groups", "pairs", "scores", "within")


def plan(
    trace: TraceLike,
    groups: Groups,
    segment: str,
    lengths: Ints,
    design: str = "auto",
    held: Held | None = None,
    unit: str | None = None,
) -> Design:
    """Plan the comparison.

    "auto": scores where the question is a numeric value; else pairs where enough are complete; else labels inside
    generations where the groups are too small for a test, but the probe marks tokens in enough generations; else
    two groups.

    Args:
        trace: the run.
        groups: who belongs where.
        segment: which tokens are compared.
        lengths: (generations,) routed tokens of each generation in the segment.
        design: one of DESIGNS.
        held: blocks and covariates; None for none.
        unit: what makes generations one unit, as `units.prompt_names`; pairs are units of their own.

    Raises:
        StatsError: no such design, a group is empty, or the design does not fit the data.
    """
    if design not in DESIGNS:
        raise StatsError(f"There is no design {design!r}. Choose one of {', '.join(DESIGNS)}.")
    held = held or hold(trace.generations, (), ())
    usable = (lengths > 0) & held.known
    member = np.where(usable, groups.member, LEFT_OUT)
    left_out = {
        "no_tokens": int(((groups.member != LEFT_OUT) & (lengths == 0)).sum()),
        "no_covariate": int(((groups.member != LEFT_OUT) & (lengths > 0) & ~held.known).sum()),
    }
    names = prompt_names(trace.generations, unit)
    repeated = _repeated(trace, names) if unit is None else ()
    scope = Scope(names, member, segment, lengths, held, left_out)
    if design == "scores" or (design == "auto" and groups.numeric):
        return replace(scored(scope, groups), notes=repeated)
    if design == "within":
        return _inside(trace, scope, groups, repeated)
    sizes = [int((member == code).sum()) for code in (NEGATIVE, POSITIVE)]
    if design == "auto" and min(sizes) < MIN_UNITS and not held.words:
        inside = marked_parts(trace, scope, groups)
        if inside is not None and inside.units >= MIN_UNITS:
            return _inside(trace, scope, groups, repeated)
    for code, size in enumerate(sizes):
        if not size:
            raise StatsError(_empty(groups, code, segment, left_out))
    pair = complete_pairs(trace.generations, member)
    keep = pair_lengths(lengths, member, pair)
    if design == "pairs" or (design == "auto" and held.blocks is None and enough_pairs(pair, keep, member)):
        return paired(trace, scope, pair, keep)
    return replace(two_groups(scope), notes=(*repeated, *_unused_pairs(trace, member, pair, unit)))


def _inside(trace: TraceLike, scope: Scope, groups: Groups, notes: tuple[str, ...]) -> Design:
    design = within(trace, scope, groups)
    return replace(design, notes=(*notes, *design.notes))


def _repeated(trace: TraceLike, names: list[str]) -> tuple[str, ...]:
    count = same_text(trace.generations, names)
    if not count:
        return ()
    first = "1 prompt repeats" if count == 1 else f"{count} prompts repeat"
    return (f"{first} the text of another prompt under its own id: prompts of one text count as one unit.",)


def _unused_pairs(trace: TraceLike, member: Ints, pair: Ints, unit: str | None) -> tuple[str, ...]:
    """What two groups do not use of the pairs that the prompts name."""
    complete = int(pair.max(initial=-1)) + 1
    notes = []
    if complete >= MIN_UNITS:
        words = "1 pair is" if complete == 1 else f"{complete} pairs are"
        notes.append(f"{words} complete and not used as such: two groups were compared. --design pairs compares them.")
    inside = [(one.pair, int(code), one.prompt_id) for one, code in zip(trace.generations, member, strict=True)]
    sides = Counter((name, code) for name, code, _ in set(inside) if name is not None and code != LEFT_OUT)
    # two prompts of a pair may well get one label from a probe; three or more are a family
    if unit is None and any(count > 2 for count in sides.values()):
        notes.append(
            "Several prompts of one group have the same `pair`, but count as independent. If they are variants of one "
            "prompt, say --unit pair."
        )
    return tuple(notes)


def _empty(groups: Groups, code: int, segment: str, left_out: dict[str, int]) -> str:
    side, words = ("positive", groups.positive) if code == POSITIVE else ("negative", groups.negative)
    if left_out["no_covariate"]:
        return (
            f"No generation of the {side} group ({words}) is left: {left_out['no_covariate']} lack a value that should "
            "be held fixed. Fill it in, or leave it out."
        )
    if (groups.member == code).any():
        return (
            f"No generation of the {side} group ({words}) has a token in segment {segment!r}. "
            "Choose another segment, or record longer generations."
        )
    return (
        f"No generation is {side} ({words}) for {groups.name}: there is nothing to compare. "
        "Add prompts of the other kind, or choose another probe or label."
    )
