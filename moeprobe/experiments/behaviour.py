"""Behaviour as the metric: is the text that was written of the kind a probe looks for, with an edit and without?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.editing import Edit, find_places, generate_edited, layout_of
from moeprobe.editing.generating import Given
from moeprobe.engines import Decoding
from moeprobe.errors import InterchangeError
from moeprobe.judging.rates import Change, change
from moeprobe.models import LoadedModel
from moeprobe.pairs.pairs import label_members, select_pairs
from moeprobe.probes import CheckedProbe, Passage
from moeprobe.probes.probe import THRESHOLD
from moeprobe.prompts import Prompt
from moeprobe.sites import SiteSet, parse_sites

Floats = NDArray[np.float64]
# Called with (generations done, generations in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PromptPair:
    """A sensitive prompt, after which the behaviour appears, and its control."""

    id: str
    sensitive: Given
    control: Given


@dataclass(frozen=True)
class TextArm:
    """One way to generate for every pair.

    Attributes:
        name: for example "necessity".
        recipients: the prompts that are answered, one per pair.
        donors: whose values come in, one per pair; they also run beside an arm that takes nothing from them, so that
            all arms are computed in batches of one shape.
        edits: what is held at every step.
    """

    name: str
    recipients: tuple[Given, ...]
    donors: tuple[Given, ...]
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Answers:
    """What one arm wrote, pair by pair.

    Attributes:
        texts: one per pair.
        scores: (pairs,) the probe's, in [0, 1]; NaN where it abstained.
    """

    texts: tuple[str, ...]
    scores: Floats

    @property
    def shown(self) -> Floats:
        """(pairs,) 1 where the behaviour is there (score from 0.5 on), 0 where it is not, NaN where nobody can tell."""
        return np.where(np.isnan(self.scores), np.nan, (self.scores >= THRESHOLD).astype(float))

    def to_json(self) -> dict[str, Any]:
        """Texts and scores; null where the probe abstained."""
        return {"texts": list(self.texts), "scores": [None if np.isnan(x) else float(x) for x in self.scores]}


@dataclass(frozen=True)
class Behaviour:
    """A finished experiment on generated text.

    Attributes:
        pairs: their ids, in the order of all arrays.
        probe: name of the judge.
        sites: what was edited.
        prompts: of each pair the sensitive one and the control, empty where only token ids were given.
        answers: by arm; "sensitive" and "control" are unedited.
        effects: by arm, positive in the direction of the gap.
    """

    pairs: tuple[str, ...]
    probe: str
    sites: SiteSet
    prompts: tuple[tuple[str, str], ...]
    answers: Mapping[str, Answers]
    effects: Mapping[str, Change]

    def to_json(self) -> dict[str, Any]:
        """All of it, every text and score included."""
        return {
            "pairs": list(self.pairs),
            "probe": self.probe,
            "sites": str(self.sites),
            "prompts": prompts_json(self.prompts),
            "answers": {name: one.to_json() for name, one in self.answers.items()},
            "effects": {name: one.to_json() for name, one in self.effects.items()},
        }


def asked_of(pairs: Sequence[PromptPair]) -> tuple[tuple[str, str], ...]:
    """What was asked, sensitive and control, of each pair."""
    return tuple((_words(one.sensitive), _words(one.control)) for one in pairs)


def prompts_json(prompts: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Prompts of pairs as objects."""
    return [{"sensitive": first, "control": second} for first, second in prompts]


def prompt_pairs(prompts: Sequence[Prompt], positive: str) -> list[PromptPair]:
    """Pairs of a prompt file: the sensitive one has the label `positive`, the control another. Others are left out.

    Raises:
        InterchangeError: no pair has one of each.
    """
    numbers = [(place,) for place in range(len(prompts))]
    found = select_pairs(label_members(prompts, numbers, positive))
    return [PromptPair(one.id, prompts[one.sensitive[0]], prompts[one.control[0]]) for one in found]


def behaviour(
    loaded: LoadedModel,
    pairs: Sequence[PromptPair],
    sites: SiteSet | str,
    probe: CheckedProbe,
    decoding: Decoding | None = None,
    *,
    placebo: Sequence[int] | None = None,
    swap: str = "swap",
    bootstrap: int = 10_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Behaviour:
    """Swap and knock out sites at every step of the generation, and count how often the behaviour appears.

    Arms: necessity (the sensitive prompt with the control's values), sufficiency (the control with the sensitive
    one's), knockout (the sensitive one with the sites' contributions at 0), and the placebos of both swaps, whose donor
    is a prompt of the recipient's own class, from another pair.

    Args:
        loaded: a decoder-only model.
        pairs: at least two.
        sites: what is edited, all of it at once; text as in `parse_sites`.
        probe: judges each text. Where it abstains, the pair is left out of the effects that need it.
        decoding: greedy with 64 new tokens by default; one sample.
        placebo: for each pair the number of the pair its placebo donors come from; by default the next one.
        swap: "swap", "swap-output" or "swap-routing".
        bootstrap, seed: draws over pairs, and their seed.
        progress: called after each batch.

    Raises:
        InterchangeError: fewer than two pairs, or placebo donors that are the pair itself.
    """
    chosen = site_set(loaded, sites)
    others = placebo_pairs(len(pairs), placebo)
    ill, well = tuple(one.sensitive for one in pairs), tuple(one.control for one in pairs)
    exchange, hole = (Edit(swap, chosen),), (Edit("zero", chosen),)
    arms = [
        TextArm("sensitive", ill, well),
        TextArm("control", well, ill),
        TextArm("necessity", ill, well, exchange),
        TextArm("sufficiency", well, ill, exchange),
        TextArm("knockout", ill, well, hole),
        TextArm("placebo_necessity", ill, tuple(ill[other] for other in others), exchange),
        TextArm("placebo_sufficiency", well, tuple(well[other] for other in others), exchange),
    ]
    answers = run_arms(loaded, arms, probe, decoding, progress)
    gap = answers["sensitive"].shown - answers["control"].shown
    if not np.isnan(gap).all() and not np.nansum(np.abs(gap)):
        raise InterchangeError(
            f"{probe.name!r} judges the answers to both prompts of every pair alike, so there is nothing to move. Take "
            "prompts of which one side shows the behaviour, or another probe."
        )
    effects = {
        arm.name: effect(
            answers, arm.name, "control" if "sufficiency" in arm.name else "sensitive", gap, bootstrap, seed
        )
        for arm in arms[2:]
    }
    return Behaviour(tuple(one.id for one in pairs), probe.name, chosen, asked_of(pairs), answers, effects)


def run_arms(
    loaded: LoadedModel,
    arms: Sequence[TextArm],
    probe: CheckedProbe,
    decoding: Decoding | None,
    progress: Progress | None,
) -> dict[str, Answers]:
    """Generate and judge every arm. A probe that reads within thinking or within the answer is told which is which.

    Raises:
        InterchangeError: more than one sample per prompt was asked for, or such a probe found nothing to read.
    """
    decoding = decoding or Decoding()
    if decoding.samples > 1:
        raise InterchangeError("Behaviour is judged on one answer per prompt; leave samples at 1.")
    total, done, answers = sum(len(arm.recipients) for arm in arms), 0, {}
    for arm in arms:

        def show(made: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + made, total)

        made = generate_edited(loaded, arm.recipients, arm.edits, decoding, donors=arm.donors, progress=show)
        scores = [probe.read(Passage(one.text, _asked(one.prompt), one.segments)).score for one in made]
        numbers = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
        answers[arm.name] = Answers(tuple(one.text for one in made), numbers)
        done += len(made)
    if probe.reads_segments and all(np.isnan(one.scores).all() for one in answers.values()):
        raise InterchangeError(
            f"{probe.name!r} had nothing to read in any answer: the part that it looks at is not there. A model that "
            "does not think, or whose thinking is not over after so few tokens, has only one of thinking and answer."
        )
    return answers


def effect(
    answers: Mapping[str, Answers], arm: str, base: str, gap: Floats | None, bootstrap: int, seed: int
) -> Change:
    """What an edit did to the share of texts with the behaviour, positive in the direction of the gap: fewer of the
    sensitive ones, more of the others."""
    sign = -1 if base == "sensitive" else 1
    return change(answers[base].shown, answers[arm].shown, sign=sign, gap=gap, draws=bootstrap, seed=seed)


def site_set(loaded: LoadedModel, sites: SiteSet | str) -> SiteSet:
    """Sites as they were given, or read from text and held against the model."""
    return parse_sites(sites, layout_of(find_places(loaded.model))) if isinstance(sites, str) else sites


def placebo_pairs(pairs: int, chosen: Sequence[int] | None) -> list[int]:
    """For each pair the pair its placebo donor comes from.

    Raises:
        InterchangeError: fewer than two pairs, a number that is no pair, or a pair that would be its own placebo.
    """
    if pairs < 2:
        raise InterchangeError(f"A placebo donor comes from another pair, and there are {pairs}.")
    others = [(place + 1) % pairs for place in range(pairs)] if chosen is None else [int(one) for one in chosen]
    if len(others) != pairs or not all(0 <= other < pairs for other in others):
        raise InterchangeError(f"Placebo donors are {pairs} numbers from 0 to {pairs - 1}, one for each pair.")
    same = next((place for place, other in enumerate(others) if place == other), None)
    if same is not None:
        raise InterchangeError(f"Pair {same} is its own placebo donor; take another pair's prompt.")
    return others


def _asked(prompt: Prompt) -> str:
    """The question as a probe sees it: the last message of a chat."""
    return str(prompt.prompt if prompt.messages is None else prompt.messages[-1].get("content", ""))


def _words(given: Given) -> str:
    """The question of what may be a text, a prompt, or token ids (of which nothing is shown)."""
    if isinstance(given, str):
        return given
    return _asked(given) if isinstance(given, Prompt) else ""
