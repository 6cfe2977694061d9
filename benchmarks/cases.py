"""What is measured: a kind of forward pass on a model, and each way of recording it in pairs with the plain model."""

import copy
import gc
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.models import VOCABULARY, skeleton
from benchmarks.pairs import Clock, Pairs, Ratio, clock, timed
from benchmarks.ways import Lists, Moeprobe, Routing, Way, agreement

GENERATED = 32
# Pairs of one way that follow each other. In real use one model runs again and again, so its code is warm; changing the
# way after each pair would make every hook look dearer than it is, and never changing would leave ways to the machine's
# moods.
BLOCK = 10


@dataclass(frozen=True)
class Case:
    """One workload.

    Attributes:
        phase: "prefill" (a fresh prompt), "decode" (one token after `tokens` cached ones) or "generate" (a call of
            generate: a prompt of `tokens` and 32 new tokens).
        batch, tokens: shape of the prompt.
        pairs: how many pairs each way gets.
        warm: pairs before them that do not count.
    """

    phase: str
    batch: int
    tokens: int
    pairs: int
    warm: int = 3

    def scaled(self, share: float) -> "Case":
        """The same with fewer pairs."""
        return replace(self, pairs=max(4, round(self.pairs * share)))

    def __str__(self) -> str:
        shape = f"batch {self.batch}"
        return {
            "prefill": f"prefill of {self.tokens} tokens, {shape}",
            "decode": f"decode step after {self.tokens} tokens, {shape}",
            "generate": f"generate: {self.tokens} + {GENERATED} tokens, {shape}",
        }[self.phase]


@dataclass(frozen=True)
class Line:
    """What was found for one way in one case.

    Attributes:
        step: ratio of the steps.
        whole: the same with what happens between and after the steps (joining, turning into arrays) shared out over
            them; None where nothing is recorded, or where it is inside the step already (generate).
        plain_ms: the plain step.
        same: share of expert ids equal to those of the naive hook; None where nothing is recorded.
        absent: why there is no figure.
    """

    way: str
    step: Ratio | None = None
    whole: float | None = None
    plain_ms: float | None = None
    same: float | None = None
    absent: str = ""

    def record(self) -> dict[str, object]:
        """As JSON."""
        return {**self.__dict__, "step": None if self.step is None else self.step.record()}


@dataclass
class _Side:
    """One model of a pair, with a cache of its own, so that both are at the same length in each pair."""

    way: Way
    case: Case
    ids: torch.Tensor
    cache: Any = None
    crops: bool = field(default=True)

    def prepare(self, cache: Any) -> None:
        if cache is not None:
            self.cache = copy.deepcopy(cache)
            # The state of linear attention cannot be taken back; then both sides grow, and stay equal in each pair.
            self.crops = bool(cache.is_croppable)

    def run(self) -> None:
        if self.case.phase == "generate":
            self.way.generate(self.ids, GENERATED)
        elif self.case.phase == "decode":
            self.cache = self.way.step(self.ids[:, :1], self.cache)
        else:
            self.way.step(self.ids, None)

    def restore(self) -> None:
        if self.cache is not None and self.crops:
            self.cache.crop(-1)


class _Contest:
    """One way against the plain model."""

    def __init__(self, way: Way, plain: Way, case: Case, ids: torch.Tensor, now: Clock, seed: int) -> None:
        self.way, self.case, self.now = way, case, now
        self.sides = [_Side(plain, case, ids), _Side(way, case, ids)]
        first, second = self.sides
        self.pairs = Pairs(first.run, second.run, now, after=(first.restore, second.restore), seed=seed)
        self.extra = 0

    def warm(self, cache: Any) -> None:
        for side in self.sides:
            side.prepare(cache)
        for _ in range(self.case.warm):
            self.pairs.run()
        self.pairs.forget()
        if self.case.phase != "generate":
            self.way.finish()

    def run(self, pairs: int) -> None:
        for _ in range(pairs):
            self.pairs.run()
            if self.case.phase != "generate":
                self.extra += timed(self.now, self.way.settle)

    def line(self, reference: Routing) -> Line:
        step, plain = self.pairs.ratio(), self.pairs.plain_ms()
        if self.case.phase == "generate" or not self.way.records:
            return Line(self.way.name, step, None, plain)
        routing: list[Routing] = []
        self.extra += timed(self.now, lambda: routing.append(self.way.finish()))
        whole = step.median + self.extra / 1e6 / len(self.pairs.times[1]) / plain
        # Every pair ran the same input; where a cache grows, the first of them is the one the reference ran too.
        one = {layer: (ids[: len(reference[layer][0])], w) for layer, (ids, w) in routing[0].items()}
        counted = {layer: len(ids) for layer, (ids, _) in routing[0].items()}
        wanted = {layer: len(ids) * len(self.pairs.times[1]) for layer, (ids, _) in reference.items()}
        if counted != wanted:
            raise ValueError(f"{self.way.name} gave {counted} rows by layer where {wanted} were forwarded")
        return Line(self.way.name, step, whole, plain, agreement(one, reference))


def run_case(case: Case, model: PreTrainedModel, kinds: list[type[Way]], device: torch.device) -> list[Line]:
    """Measure `kinds` against the plain model, and the plain model against itself, all in turn.

    Args:
        case: what to run.
        model: its weights are shared by all; it is not changed.
        kinds: ways of recording.
        device: where the model is.

    Returns:
        A line per way, the null comparison first; with a reason instead of figures for one that fails.
    """
    ids = torch.randint(VOCABULARY, (case.batch, case.tokens), generator=torch.Generator().manual_seed(1)).to(device)
    now = clock(device)
    kinds = [Way, *(kind for kind in kinds if kind.generates or case.phase != "generate")]
    absent: list[Line] = []
    with torch.inference_mode(), ExitStack() as stack:
        cache = Way(model).step(ids, None) if case.phase == "decode" else None
        reference = _reference(case, model, ids, cache) if case.phase != "generate" else {}
        contests = []
        for seed, kind in enumerate(kinds):
            try:
                way = kind(skeleton(model))
                # In generate a way opens itself, as its users do.
                if case.phase != "generate" or not isinstance(way, (Moeprobe, Lists)):
                    stack.enter_context(way)
                # A plain model of its own too: one that all shared would run more often than the others, so it would
                # be found in the CPU's caches more often, and look cheaper than it is.
                contest = _Contest(way, Way(skeleton(model)), case, ids, now, seed)
                contest.warm(cache)
            except Exception as error:
                # A peer may fail in any way; the others are still measured.
                if kind.__module__.endswith("ways"):
                    raise
                absent.append(Line(kind.name, absent=f"failed: {type(error).__name__}: {str(error)[:200]}"))
                continue
            contests.append(contest)
        _run(contests, case.pairs)
        lines = [contest.line(reference) for contest in contests]
    lines[0] = replace(lines[0], way="null (plain against plain)")
    return lines + absent


def _run(contests: list[_Contest], pairs: int) -> None:
    order = torch.Generator().manual_seed(2)
    gc.collect()
    # A full collection walks every object of ten models: none of the ways is to blame for that.
    gc.freeze()
    try:
        for done in range(0, pairs, BLOCK):
            for index in torch.randperm(len(contests), generator=order).tolist():
                contests[index].run(min(BLOCK, pairs - done))
    finally:
        gc.unfreeze()


def _reference(case: Case, model: PreTrainedModel, ids: torch.Tensor, cache: Any) -> Routing:
    with Lists(skeleton(model)) as way:
        side = _Side(way, case, ids)
        side.prepare(cache)
        for _ in range(case.warm + 1):
            way.finish()
            side.run()
            side.restore()
        return way.finish()
