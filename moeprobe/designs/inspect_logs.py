"""Labels from the logs of inspect_ai (https://inspect.aisi.org.uk): the scores that a scorer gave to answers.

A log is untrusted input. An archive (.eval) is unpacked within bounds and written anew before inspect_ai's own reader
checks its form; nothing in it is run, and only ids, answers and scores are taken.
"""

import importlib
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

from moeprobe.designs.archives import rewritten
from moeprobe.designs.label_records import Labels, checked_records, label_record, read_label_records
from moeprobe.errors import LabelError
from moeprobe.fields import MAX_JSON_BYTES
from moeprobe.files import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

# The letters of inspect_ai's graders: correct, incorrect, partial, no answer.
_LETTERS = {"C": 1, "I": 0, "N": None}


def read_labels_of(path: Path, scorer: str | None = None) -> Labels:
    """Labels of a file of either kind: an inspect_ai log where it ends in .eval or .json, else JSON Lines.

    Raises:
        LabelError: as `read_label_records` and `read_inspect_log`, or a scorer of a file that has none.
    """
    if path.suffix.lower() in (".eval", ".json"):
        return read_inspect_log(path, scorer)
    if scorer is not None:
        raise LabelError(f"{path} is no log of inspect_ai (.eval or .json), so it has no scorer. Leave --scorer out.")
    return read_label_records(path)


def read_inspect_log(path: Path, scorer: str | None = None) -> Labels:
    """The scores of one scorer, one label for each sample of the log. Needs the extra `inspect`.

    A sample is matched by `generation`, or `prompt_id` (and `sample`), in its metadata; else by its answer, character
    by character (`output.completion`). Where it has both, the metadata decides, and the answer must be the same.
    C and true are 1, I and false 0, N and a missing score abstain; other texts stay texts. Numbers are scores.

    Args:
        path: a .eval or .json log.
        scorer: name of the scorer; None where the log has one.

    Raises:
        LabelError: inspect_ai is not installed or cannot read the log, there is no such scorer, or a value is no label.
    """
    samples = _samples(path)
    name = _scorer(samples, scorer, path)
    numeric = any(isinstance(_value(one, name), float) for one in samples)
    records = []
    for number, sample in enumerate(samples, 1):
        where = f"{path}, sample {number}"
        records.append(label_record({**_which(sample, where), **_said(_value(sample, name), numeric, where)}, where))
    return Labels(checked_records(records, str(path)), path.name, "sha256:" + sha256(path), name)


def _samples(path: Path) -> list[Any]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise LabelError(f"Could not read {path}: {error.strerror or error}.") from error
    if size > MAX_JSON_BYTES:
        raise LabelError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB. Split the log.")
    read = _reader()
    try:
        with TemporaryDirectory(prefix="moeprobe-") as folder:
            log = read(str(_safe(path, Path(folder))))
    except LabelError:
        raise
    except Exception as error:  # whatever their reader raises on a stranger's file
        first = (str(error).splitlines() or [""])[0][:200]
        raise LabelError(
            f"{path} cannot be read as a log of inspect_ai ({type(error).__name__}: {first}). Labels of your own are "
            "JSON Lines: call the file .jsonl."
        ) from error
    samples = list(log.samples or [])
    if not samples:
        raise LabelError(f"{path} holds no samples: the evaluation failed, or only its header was logged.")
    return samples


def _safe(path: Path, folder: Path) -> Path:
    """The log itself where it is no archive; else one that was written anew, in `folder`."""
    with path.open("rb") as file:
        looks_like = file.read(4) == b"PK\x03\x04"
    return rewritten(path, folder) if looks_like or path.suffix.lower() == ".eval" or is_zipfile(path) else path


def _reader() -> "Callable[[str], Any]":
    try:
        log = importlib.import_module("inspect_ai.log")  # no stub to check against where it is not installed
    except ImportError as error:
        raise LabelError(
            "A file that ends in .eval or .json is read as a log of inspect_ai, which is not installed: pip install "
            "'moeprobe[inspect]'. Labels of your own are JSON Lines: call the file .jsonl."
        ) from error
    reader: Callable[[str], Any] = log.read_eval_log
    return reader


def _scorer(samples: list[Any], scorer: str | None, path: Path) -> str:
    found = sorted({str(name) for one in samples for name in one.scores or {}})
    if not found:
        raise LabelError(f"{path} holds no scores. Run `inspect score` on it first.")
    if scorer is None and len(found) > 1:
        raise LabelError(f"{path} holds scores of {', '.join(found)}. Whose are the labels? Add --scorer NAME.")
    if scorer is not None and scorer not in found:
        raise LabelError(f"{path} holds no scores of {scorer!r}. It holds those of {', '.join(found)}.")
    return scorer or found[0]


def _value(sample: Any, scorer: str) -> Any:
    """The score: a truth value, an integer 0 or 1, a float, a text, or None; anything else as it is."""
    score = (sample.scores or {}).get(scorer)
    value = None if score is None else score.value
    if isinstance(value, float) and math.isnan(value):
        return None
    return int(value) if isinstance(value, float) and value in (0.0, 1.0) else value


def _said(value: Any, numeric: bool, where: str) -> dict[str, Any]:
    if isinstance(value, list | tuple | dict):
        raise LabelError(f"{where}: the score holds several values; labels need one. Use another scorer.")
    if numeric:
        value = _LETTERS.get(value, value) if isinstance(value, str) else value
        return {"score": float(value) if isinstance(value, bool | int) else value}
    return {"label": _LETTERS.get(value, value) if isinstance(value, str) else value}


def _which(sample: Any, where: str) -> dict[str, Any]:
    known = {
        key: sample.metadata[key] for key in ("generation", "prompt_id", "sample") if key in (sample.metadata or {})
    }
    answer = sample.output.completion if sample.output is not None else ""
    if not answer and not known:
        raise LabelError(f"{where}: no answer, and no generation or prompt_id in its metadata.")
    return {**known, **({"text": answer} if answer else {})}
