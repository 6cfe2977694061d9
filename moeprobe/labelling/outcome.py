"""What labelled sheets say: how far labellers agree, and how their labels go with what the windows were drawn by."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from moeprobe.errors import LabelError
from moeprobe.labelling.answers import Answers
from moeprobe.labelling.association import Association, DecileShare, associate, decile_shares
from moeprobe.labelling.sheet import Key, KeyWindow
from moeprobe.probes.agreement import Agreement, cohens_kappa

Json = dict[str, Any]


@dataclass(frozen=True)
class Pairwise:
    """Agreement of two labellers, or of a labeller with the probe, on the windows that both answered."""

    first: str
    second: str
    agreement: Agreement


@dataclass(frozen=True)
class Outcome:
    """All that is said of a sheet.

    Attributes:
        key: what the windows are.
        answers: one for each labeller.
        labels: (windows,) what most labellers said; None where as many said 1 as 0, or nobody answered.
        pairwise: agreement of each two labellers.
        fleiss: Fleiss' kappa (1971) of three labellers or more over the windows that all answered; None for fewer
            labellers, or where all gave one answer.
        fleiss_windows: how many windows that is.
        with_probe: agreement of each labeller with the probe; empty where an expert drew the windows.
        association: of the labels with the value; None where all labels are the same.
        deciles: share labelled 1 in each decile.
    """

    key: Key
    answers: tuple[Answers, ...]
    labels: tuple[int | None, ...]
    pairwise: tuple[Pairwise, ...]
    fleiss: float | None
    fleiss_windows: int
    with_probe: tuple[Pairwise, ...]
    association: Association | None
    deciles: tuple[DecileShare, ...]

    def to_json(self) -> Json:
        """As `moeprobe labels read --json` prints it."""
        answered = [[one for one in given.by_id.values() if one is not None] for given in self.answers]
        return {
            "by": {"kind": self.key.kind, "name": self.key.name, "version": self.key.version},
            "question": self.key.question,
            "windows": len(self.key.windows),
            "labelled": sum(label is not None for label in self.labels),
            "labellers": [
                {"name": given.labeller, "labelled": len(said), "positive": sum(said)}
                for given, said in zip(self.answers, answered, strict=True)
            ],
            "agreement": [asdict(one) for one in self.pairwise],
            "fleiss": None if self.fleiss is None else {"value": self.fleiss, "windows": self.fleiss_windows},
            "with_probe": [asdict(one) for one in self.with_probe],
            "association": None if self.association is None else asdict(self.association),
            "deciles": [asdict(one) for one in self.deciles],
        }

    def lines(self) -> list[Json]:
        """Labels as JSON objects that `correlate --labels` and `probes check --labels` read; null is no answer.

        `sampled_by` says what drew the windows. A probe's record on windows that it drew itself tells only how often
        its yes and its no are right; its recall and specificity would be biased by the draw.
        """
        by = self.key.name if self.key.kind == "expert" else f"probe {self.key.name}"
        return [
            {
                "generation": one.generation,
                "prompt_id": one.prompt_id,
                "window": list(one.window),
                "text": one.text,
                "label": label,
                "sampled_by": by,
            }
            for one, label in zip(self.key.windows, self.labels, strict=True)
        ]


def judge_sheet(key: Key, answers: Sequence[Answers], *, draws: int = 10_000, seed: int = 0) -> Outcome:
    """Count agreement and association.

    Args:
        key: of the sheet.
        answers: of one or more labellers, of that sheet.
        draws, seed: of the permutation p.

    Raises:
        LabelError: no labeller, or two of one name.
    """
    names = [one.labeller for one in answers]
    if not names or len(set(names)) < len(names):
        raise LabelError(f"Labellers are told apart by the names of their files; {', '.join(names) or 'none'} given.")
    labels = tuple(_most([one.by_id[window.id] for one in answers]) for window in key.windows)
    fleiss, fleiss_windows = _fleiss(key.windows, answers)
    calls = {window.id: int(window.positive) for window in key.windows}
    probe = Answers(f"probe {key.name}", calls)
    return Outcome(
        key=key,
        answers=tuple(answers),
        labels=labels,
        pairwise=tuple(_pairwise(key.windows, one, other) for one, other in combinations(answers, 2)),
        fleiss=fleiss,
        fleiss_windows=fleiss_windows,
        with_probe=tuple(_pairwise(key.windows, one, probe) for one in answers) if key.kind == "probe" else (),
        association=_association(key.windows, labels, draws, seed),
        deciles=_deciles(key.windows, labels),
    )


def _most(said: Sequence[int | None]) -> int | None:
    ones, zeros = said.count(1), said.count(0)
    return None if ones == zeros else int(ones > zeros)


def _pairwise(windows: Sequence[KeyWindow], one: Answers, other: Answers) -> Pairwise:
    both = [
        (first, second, window.unit)
        for window in windows
        if (first := one.by_id[window.id]) is not None and (second := other.by_id[window.id]) is not None
    ]
    units = [unit for _, _, unit in both]
    found = cohens_kappa([said for said, _, _ in both], [said for _, said, _ in both], units)
    return Pairwise(one.labeller, other.labeller, found)


def _fleiss(windows: Sequence[KeyWindow], answers: Sequence[Answers]) -> tuple[float | None, int]:
    if len(answers) < 3:
        return None, 0
    from statsmodels.stats.inter_rater import fleiss_kappa

    rows = [[one.by_id[window.id] for one in answers] for window in windows]
    counts = np.array([(row.count(0), row.count(1)) for row in rows if None not in row], dtype=np.int64).reshape(-1, 2)
    if not counts.sum(axis=0).all():
        return None, len(counts)
    return float(fleiss_kappa(counts)), len(counts)


def _association(
    windows: Sequence[KeyWindow], labels: Sequence[int | None], draws: int, seed: int
) -> Association | None:
    known = [(one.value, label, one.unit) for one, label in zip(windows, labels, strict=True) if label is not None]
    values = np.array([value for value, _, _ in known], dtype=np.float64)
    said = np.array([label for _, label, _ in known], dtype=np.int64)
    if np.unique(said).size < 2:
        return None
    return associate(values, said, [unit for _, _, unit in known], draws, seed)


def _deciles(windows: Sequence[KeyWindow], labels: Sequence[int | None]) -> tuple[DecileShare, ...]:
    known = [(one.decile, label, one.unit) for one, label in zip(windows, labels, strict=True) if label is not None]
    if not known:
        return ()
    deciles = np.array([decile for decile, _, _ in known], dtype=np.int64)
    said = np.array([label for _, label, _ in known], dtype=np.int64)
    return decile_shares(deciles, said, [unit for _, _, unit in known])
