"""One batch of pairs: the unedited runs of all prompts involved, once, and edited runs on demand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moeprobe.editing import Seen, reading, rerouting, writing
from moeprobe.editing.resuming import Resuming, holds
from moeprobe.errors import InterchangeError
from moeprobe.interchange.arms import ARMS, OTHER
from moeprobe.interchange.jobs import Job, chunks, reroutes_of, writes_of
from moeprobe.interchange.lab import Givers, Lab
from moeprobe.pairs.alignment import Span
from moeprobe.pairs.batch import Side as Batch
from moeprobe.pairs.batch import forward, pad_left, rows_between
from moeprobe.pairs.pairs import SIDES, TokenPair

Floats = NDArray[np.float64]
# A group of runs: ("sensitive", "own") are the pairs' own sensitive prompts; ("sensitive", "placebo") the runs that
# give to sensitive recipients as placebo donors.
Group = tuple[str, str]


@dataclass
class Run:
    """Runs of one group, one for each pair of the batch.

    Attributes:
        prompts: token ids of each run's prompt.
        spans: of each prompt, where pairs name spans.
        batch: what is computed.
        seen: what stood at the places that were read.
        logits: (runs, n, vocabulary) at the read-outs.
        score: (runs,) the metric.
    """

    prompts: list[tuple[int, ...]]
    spans: list[Span | None]
    batch: Batch
    seen: Seen
    logits: Tensor
    score: Floats


class Trial:
    """All unedited runs of a batch of pairs.

    Args:
        lab: what all runs share.
        pairs: all pairs of the experiment; donors may be prompts of any.
        batch: indices of the pairs of this batch.
        givers: from `givers_of`.
        wanted: (layer, kind) of the sites that will be edited.
        whole: layers whose forwards cannot be resumed; found out here, and added to.
    """

    def __init__(
        self,
        lab: Lab,
        pairs: Sequence[TokenPair],
        batch: Sequence[int],
        givers: Mapping[Group, Givers],
        wanted: Sequence[tuple[int, str]],
        whole: set[int],
    ) -> None:
        self.lab, self.whole, self.wanted = lab, whole, wanted
        self.pairs = [pairs[place] for place in batch]
        self.forced = lab.metric.prepare(lab.loaded, self.pairs)
        sources: dict[Group, list[tuple[TokenPair, str]]] = {
            (side, "own"): [(pair, side) for pair in self.pairs] for side in SIDES
        }
        for group, given in givers.items():
            sources[group] = [(pairs[given.pairs[place]], given.sides[place]) for place in batch]
        prompts = {group: [pair.side(side) for pair, side in found] for group, found in sources.items()}
        runs = {
            group: [self.forced.run(ids, place) for place, ids in enumerate(found)] for group, found in prompts.items()
        }
        # One width for all: a token that stands in several runs is then computed in the same column.
        self.width = max(len(run) for group in runs.values() for run in group)
        starts = {layer for layer, _ in wanted}
        self.resuming = {side: Resuming(lab.places, starts - whole, len(batch)) for side in SIDES}
        self.runs: dict[Group, Run] = {}
        for group, found in runs.items():
            spans = [pair.span(side) for pair, side in sources[group]]
            self.runs[group] = self._unedited(group, found, prompts[group], spans)
        self._maps: dict[tuple[Group, Group], Tensor] = {}

    def own(self, side: str) -> Run:
        """The pairs' own runs of one side."""
        return self.runs[side, "own"]

    def donor(self, arm: str) -> tuple[Run, Tensor]:
        """The runs that give in an arm, and the donor's row (rows,) for each row of the recipients; -1 for none."""
        one = ARMS[arm]
        group: Group = (OTHER[one.recipient], "own")
        if one.source in ("placebo", "random", "resample"):
            group = (one.recipient, one.source)
        key: tuple[Group, Group] = ((one.recipient, "own"), group)
        if key not in self._maps:
            self._maps[key] = self._map(self.runs[key[0]], self.runs[key[1]])
        return self.runs[group], self._maps[key]

    def scores(self, side: str, jobs: Sequence[Job]) -> Floats:
        """The metric (jobs,) of edited runs of one side."""
        result = np.empty(len(jobs))
        for places in chunks(jobs, self.lab.batch_size):
            result[places] = self._together(side, [jobs[place] for place in places])
        return result

    def edited_logits(self, side: str, jobs: Sequence[Job]) -> Tensor:
        """Logits (jobs, n, vocabulary) at the read-outs of edited runs that fit one forward."""
        run = self.own(side)
        elements = torch.tensor([job.run for job in jobs])
        batch = Batch(run.batch.ids[elements], run.batch.mask[elements])
        with (
            writing(self.lab.places, writes_of(jobs)),
            rerouting(self.lab.places, reroutes_of(jobs, self.lab.places, self.width)),
            self.resuming[side].starting(jobs[0].first_layer, elements),
        ):
            return forward(self.lab.loaded.model, batch, readouts=self.forced.tokens.shape[1])

    def _together(self, side: str, jobs: Sequence[Job]) -> Floats:
        elements = torch.tensor([job.run for job in jobs])
        return self._score(self.edited_logits(side, jobs), elements)

    def _unedited(
        self,
        group: Group,
        runs: Sequence[tuple[int, ...]],
        prompts: list[tuple[int, ...]],
        spans: list[Span | None],
    ) -> Run:
        lab, places = self.lab, self.lab.places
        batch = pad_left(runs, lab.loaded.pad_token, self.width)
        readouts = self.forced.tokens.shape[1]

        def unedited() -> Tensor:
            return forward(lab.loaded.model, batch, readouts=readouts)

        resuming = self.resuming[group[0]] if group[1] == "own" else None
        if resuming is None:
            with reading(places, self.wanted) as seen:
                logits = unedited()
        else:
            with resuming.recording(), reading(places, self.wanted) as seen:
                logits = unedited()
            for start in list(resuming.results):
                if not holds(resuming, start, logits, unedited):
                    resuming.forget(start)
                    self.whole.add(start)
        return Run(prompts, spans, batch, seen, logits, self._score(logits, torch.arange(len(runs))))

    def _score(self, logits: Tensor, elements: Tensor) -> Floats:
        scores = self.lab.metric.score(logits, self.forced.tokens[elements], self.forced.counted[elements])
        result: Floats = scores.cpu().numpy()
        if not np.isfinite(result).all():
            raise InterchangeError(
                "The model gives a metric that is NaN or infinite on these prompts. Try --dtype float32."
            )
        return result

    def _map(self, recipient: Run, donor: Run) -> Tensor:
        prompts, spans = (recipient.prompts, donor.prompts), (recipient.spans, donor.spans)
        forced = self.forced.tokens.shape[1] - 1
        rows = rows_between(recipient.batch, donor.batch, prompts, spans, self.lab.alignment, forced)
        return rows.to(self.lab.loaded.model.device)
