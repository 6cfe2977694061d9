"""Labels given to measure a probe by: what may be said of it depends on how their texts were chosen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moeprobe.errors import ProbeError
from moeprobe.fields import Fields, json_lines
from moeprobe.probes.composing import ComposedProbe
from moeprobe.probes.contract import CheckedProbe
from moeprobe.probes.expressions import leaves_of, parse
from moeprobe.probes.labels import labelled
from moeprobe.probes.outputs import OutputProbe
from moeprobe.probes.probe import Example
from moeprobe.probes.quality import Quality, Trial
from moeprobe.probes.rates import NOTHING
from moeprobe.probes.trained.folds import example_groups


@dataclass(frozen=True)
class Given:
    """Labels of a file, without the texts that the probe brings itself.

    Attributes:
        trial: the texts to measure on; None where those left are not of both kinds.
        known: how many were left out, since they are (nearly) texts that the probe brings itself; for a trained probe
            also answers to prompts that it was trained on.
        drawn_by: what drew the texts, as `sampled_by` names it, in order.
        by_itself: the probe drew some of the texts.
        by_part: a probe drew some that it shares a part with: one that it is made of or an output of, or the other way
            round.
        notes: what a reader must know, in sentences.
    """

    trial: Trial | None
    known: int
    drawn_by: tuple[str, ...]
    by_itself: bool
    by_part: bool
    notes: tuple[str, ...]

    def check_usable(self, name: str, where: str) -> Trial:
        """The texts to measure on.

        Args:
            name: the probe's.
            where: the labels, for the message.

        Raises:
            ProbeError: those that the probe does not know are not of both kinds.
        """
        if self.trial is None:
            raise ProbeError(
                f"{where}: the probe {name}, or a part of it, brings {self.known} of the texts itself, or nearly. "
                "The others are not of both kinds, so nothing can be measured. Label texts that it does not know."
            )
        return self.trial

    def check_drawn_without(self, name: str, option: str) -> None:
        """Refuse texts that were chosen by the probe's own answers for `option`, which needs recall and specificity.

        Raises:
            ProbeError: the probe, or a part of it, drew some of the texts.
        """
        if self.by_itself or self.by_part:
            whose = "itself" if self.by_itself else f"by a part of its own ({', '.join(self.drawn_by)})"
            raise ProbeError(
                f"Probe {name} drew the windows of the labels given {whose}, so they do not tell its balanced "
                f"accuracy. Give labels of texts that were drawn without it, or leave out {option}."
            )


def given_labels(judge: CheckedProbe, path: Path) -> Given:
    """Read labels to measure `judge` by.

    Raises:
        ProbeError: as `read_labels`; or the labels are of one kind, before anything is left out.
    """
    lines = list(json_lines(path, ProbeError))  # once: what was drawn by the probe is not to be missed in a pipe
    examples = labelled(lines, path)
    if len({one.label for one in examples}) < 2:
        raise ProbeError(f"{path}: all labels are {examples[0].label}. To measure a probe there must be some of both.")
    unseen = _unseen(judge, examples)
    drawn_by = _drawn_by(lines)
    by_itself = f"probe {judge.name}" in drawn_by
    known = len(examples) - len(unseen)
    usable = len({one.label for one in unseen}) == 2
    return Given(
        trial=Trial("the labels given", judge, unseen) if usable else None,
        known=known,
        drawn_by=drawn_by,
        by_itself=by_itself,
        by_part=_shares_a_part(judge, [one.removeprefix("probe ") for one in drawn_by if one.startswith("probe ")]),
        notes=_notes(known, len(examples), usable, drawn_by, by_itself),
    )


def of_own_draw(quality: Quality) -> Quality:
    """Only what texts that were chosen by the probe's own answers can say: precision and negative predictive value.

    As many texts that it calls positive as it calls negative were drawn. So a register that is rare, or one that the
    probe mostly misses, looks common and well found: recall, specificity and all that is made of them are biased
    (verification bias: Begg & Greenes 1983, Biometrics 39, 207-215). What is right among its positives, and among its
    negatives, is not.
    """
    return replace(
        quality, balanced_accuracy=NOTHING, recall=NOTHING, specificity=NOTHING, f1=NOTHING, auc=NOTHING
    )  # fmt: skip


def _unseen(judge: CheckedProbe, examples: Sequence[Example]) -> list[Example]:
    """Those that are not near-copies of the own and held-out texts of the probe and of those that it is made of."""
    makers = list(_made_of(judge))
    brought = [text for one in makers for text in (*one.examples(), *one.held_out())]
    every = [*brought, *examples]
    if not any(callable(getattr(one.inner, "cross_validated", None)) for one in makers):
        # a rule knows no prompt by heart; what was fitted may know its topic
        every = [Example(one.text, one.label) for one in every]
    groups = example_groups(every).tolist()
    taken = set(groups[: len(brought)])
    return [one for one, group in zip(examples, groups[len(brought) :], strict=True) if group not in taken]


def _shares_a_part(judge: CheckedProbe, drew: Sequence[str]) -> bool:
    """Whether a probe of another name drew that is made of the same, by the names in its expression."""
    own = {base for one in _made_of(judge) for base in _bases(one.name)}
    return any(own & _bases(name) for name in drew if name != judge.name)


def _bases(name: str) -> set[str]:
    """A probe named ``refusal.safe-redirection and not mine(least=3)`` is made of ``refusal`` and ``mine``."""
    try:
        return {leaf.split(".")[0] for leaf in leaves_of(parse(name))}
    except ProbeError:  # the name of a probe that was never written as an expression
        return {name}


def _made_of(judge: CheckedProbe) -> Iterator[CheckedProbe]:
    """The probe, the parts of a composed one, and what an output is an output of; these, too, with theirs."""
    yield judge
    inner = judge.inner
    parts: list[CheckedProbe] = []
    if isinstance(inner, ComposedProbe):
        parts = [*inner.parts, *([inner.place] if isinstance(inner.place, CheckedProbe) else [])]
    elif isinstance(inner, OutputProbe):
        parts = [inner.whole]
    for one in parts:
        yield from _made_of(one)


def _drawn_by(lines: Sequence[Fields]) -> tuple[str, ...]:
    found = (fields.data.get("sampled_by") for fields in lines)
    return tuple(sorted({one for one in found if isinstance(one, str) and one}))


def _notes(known: int, given: int, usable: bool, drawn_by: Sequence[str], by_itself: bool) -> tuple[str, ...]:
    notes = []
    if known:
        notes.append(
            f"{known} of {given} labels given were left out: the probe brings these texts, or nearly these, itself. "
            "How it does on them is memory."
        )
    if not usable:
        notes.append("The others are not of both kinds, so nothing was measured on the labels given.")
    elif by_itself:
        notes.append(
            "The probe drew these windows itself, as many that it calls positive as it calls negative. So they say how "
            "often it is right when it says yes (precision) and when it says no (negative predictive value). Recall, "
            "specificity, balanced accuracy, F1 and AUC would be biased and are not given."
        )
    elif drawn_by:
        notes.append(
            f"The windows were drawn by {', '.join(drawn_by)}, not at random. Rates are those of this sheet; in the "
            "answers of a run they can be quite different."
        )
    return tuple(notes)
