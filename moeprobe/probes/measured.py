"""A probe's record as findings carry it: the most trustworthy that it brings, or that on a file of labels."""

from dataclasses import dataclass
from pathlib import Path

from moeprobe.errors import ProbeError
from moeprobe.files import sha256
from moeprobe.probes.contract import checked
from moeprobe.probes.given import given_labels
from moeprobe.probes.probe import Probe
from moeprobe.probes.quality import Quality, best_quality, check_probe_quality, quality_json

OPTION = "--checked-on"


@dataclass(frozen=True)
class Measured:
    """How good a probe is, and on what that was measured.

    Attributes:
        quality: the figures.
        labels: name of the file of labels; None where the probe was measured on what it brings.
        digest: "sha256:..." of that file.
        left_out: how many of its labels were left out, since the probe knows their texts.
        notes: what a reader must know of the file, in sentences.
    """

    quality: Quality
    labels: str | None = None
    digest: str | None = None
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def on(self) -> str:
        """What it was measured on, in words."""
        return self.quality.on if self.labels is None else f"{self.quality.on} in {self.labels}"

    def to_json(self) -> dict[str, object]:
        """`questions[].quality` of findings.json (docs/findings.md)."""
        found = quality_json(self.quality)
        if self.labels is None:
            return found
        return found | {"labels": self.labels, "digest": self.digest, "left_out": self.left_out}


def measured_on_own(probe: Probe) -> Measured | None:
    """The record on what the probe brings (`best_quality`); None where it brings nothing.

    Raises:
        ProbeError: as `best_quality`.
    """
    found = best_quality(probe)
    return None if found is None else Measured(found)


def measured_on_labels(probe: Probe, path: str | Path) -> Measured:
    """The record on a file of labels, as `moeprobe probes check --labels` measures it.

    Args:
        probe: the probe.
        path: JSON Lines: `text`, `label` 0 or 1, optional `prompt` (`read_labels`).

    Raises:
        ProbeError: as `read_labels`; the labels are all alike, before or after those are left out whose texts the probe
            knows; the probe, or a part of it, drew the texts; or the file can be read only once.
    """
    judge, file = checked(probe), Path(path)
    given = given_labels(judge, file)
    given.check_drawn_without(judge.name, OPTION)
    trial = given.check_usable(judge.name, str(file))
    if not file.is_file():
        raise ProbeError(f"{file} is no plain file, so its SHA-256 cannot be kept. Save the labels as a file first.")
    quality = check_probe_quality(judge, trial.examples, trial.on)
    notes = tuple(f"Checked on {file.name}: {note}" for note in given.notes)
    return Measured(quality, file.name, f"sha256:{sha256(file)}", given.known, notes)
