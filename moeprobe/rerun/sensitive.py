"""Where the gate-sensitive flags of a comparison come from: the run, or its rerun."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moeprobe.capture import ExpertsSite, Recorder
from moeprobe.capture.margin import MarginTap
from moeprobe.capture.signals import make_taps
from moeprobe.errors import CaptureError
from moeprobe.models import LoadedModel
from moeprobe.trace import Manifest

_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class FlagSource:
    """Which flags are used.

    Attributes:
        then: those of the run; else those of the rerun.
        what: what the rerun records to have some.
        note: what a reader of the numbers must know, or "".
    """

    then: bool
    what: tuple[str, ...] = ()
    note: str = ""


def choose_flags(
    manifest: Manifest, loaded: LoadedModel, sites: Sequence[ExpertsSite], *, compiled: bool
) -> FlagSource:
    """Choose the flags. Of two runs the one in the coarser number format decides: its rounding flips choices.

    Args:
        manifest: of the run.
        loaded: the model of the rerun.
        sites: what is recorded.
        compiled: decoding is compiled, so margins cannot be recorded.
    """
    then, now = _eps(manifest.engine.get("dtype")), float(torch.finfo(loaded.model.dtype).eps)
    names = {one.name for one in manifest.signals if one.kind == "flag" and one.width is None}
    kept = all(f"{info.name}.gate_sensitive" in names for info in manifest.layers)
    if kept and (then is None or then >= now):
        return FlagSource(True)
    if compiled:
        return FlagSource(False, (), "Gate-sensitive choices are not known: compiled decoding records no margins.")
    what = margins(loaded, sites)
    if not what:
        return FlagSource(False, (), "Gate-sensitive choices are not known: the model's top-k could not be seen.")
    note = ""
    if then is not None and then > now:
        note = (
            "Gate-sensitive is judged by the rerun's number format, which is finer than the run's: most flips will not "
            "count as gate-sensitive. Rerun in the run's own format, or record runs with --what margin."
        )
    return FlagSource(False, what, note)


def margins(loaded: LoadedModel, sites: Sequence[ExpertsSite]) -> tuple[str, ...]:
    """What to record for margins: "margin", or "margin:3" for each layer where it works. Tried on a few tokens."""
    if _works(loaded, sites, "margin"):
        return ("margin",)
    single = (f"margin:{number}" for number in sorted({site.layer for site in sites}))
    return tuple(what for what in single if _works(loaded, sites, what))


def _works(loaded: LoadedModel, sites: Sequence[ExpertsSite], what: str) -> bool:
    try:
        taps = make_taps(loaded.model, sites, (what,))
        with Recorder(loaded.model, sites, taps) as recorder:
            recorder.rehearse(loaded.pad_token)
    except CaptureError:
        return False
    return any(isinstance(tap, MarginTap) for tap in taps)


def _eps(dtype: object) -> float | None:
    """Machine epsilon of a number format as a manifest names it, or None for one that is not known."""
    return float(torch.finfo(_DTYPES[dtype]).eps) if isinstance(dtype, str) and dtype in _DTYPES else None
