"""A trained probe on disk: a folder with `probe.json`, `weights.safetensors` and `examples.jsonl`.

There is no code in it, and loading it runs none. It is untrusted input all the same: every file's size and digest,
every field and every number is checked before it is used.
"""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moeprobe.errors import OutputError, ProbeError
from moeprobe.fields import Fields, parse_json
from moeprobe.files import check_output, sync_folder
from moeprobe.probes.contract import checked
from moeprobe.probes.labels import read_labels
from moeprobe.probes.probe import Example
from moeprobe.probes.trained.model import Model, Recipe
from moeprobe.probes.trained.ngrams import ROOM, SCHEME, Ngrams
from moeprobe.probes.trained.text_probe import TextProbe
from moeprobe.probes.trained.vocabulary import Vocabulary

SCHEMA = "moeprobe.trained-probe/1"
FACTS, WEIGHTS, EXAMPLES = "probe.json", "weights.safetensors", "examples.jsonl"
_LARGEST = {FACTS: 64 << 20, WEIGHTS: 256 << 20, EXAMPLES: 256 << 20}
_DTYPES = {"columns": np.dtype("<i8"), "idf": np.dtype("<f8"), "coefficients": np.dtype("<f8")}
_LIMIT = 1e9  # of any number of a model; honest ones are below a thousand
_LONGEST_NGRAM = 12
_AGAIN = "Copy the folder again, or train the probe again."

Kind = TypeVar("Kind", bound=TextProbe)


def is_trained(folder: Path) -> bool:
    """Whether `folder` says that it holds a trained probe."""
    return (folder / FACTS).is_file()


def save(probe: TextProbe, folder: Path, *, force: bool = False) -> None:
    """Write `probe` into a new folder: under a temporary name, flushed, then renamed, so that no half of it is seen.

    Raises:
        OutputError: the folder exists (and not `force`, or it holds no trained probe), or cannot be written.
        ProbeError: the probe breaks the contract, for example by its name.
    """
    from safetensors.numpy import save as as_bytes

    checked(probe)
    folder = folder.absolute()
    check_output(folder, force=force)
    if (folder.exists() or folder.is_symlink()) and (folder.is_symlink() or not is_trained(folder)):
        raise OutputError(f"{folder} exists and is no trained probe, so it is not replaced. Choose another name.")
    model = probe.model_
    arrays = {"columns": model.vocabulary.columns, "idf": model.vocabulary.idf, "coefficients": model.coefficients}
    files = {
        WEIGHTS: as_bytes({name: np.ascontiguousarray(array, _DTYPES[name]) for name, array in arrays.items()}),
        EXAMPLES: "".join(json.dumps(_line(one)) + "\n" for one in probe.examples_).encode("ascii"),
    }
    files[FACTS] = (json.dumps(_facts(probe, files), indent=1) + "\n").encode("ascii")
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        for name, content in files.items():
            with (temporary / name).open("xb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
        sync_folder(temporary)
        _put(temporary, folder)
    except OSError as error:
        raise OutputError(f"Could not write {folder}: {error.strerror or error}. Nothing was changed there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Path, kind: type[Kind]) -> Kind:
    """Read a trained probe.

    Raises:
        ProbeError: a file is missing, too large, altered or malformed; the message names it.
    """
    text = _bytes(folder / FACTS).decode("utf-8", "replace")
    facts = Fields(parse_json(text, str(folder / FACTS), ProbeError), str(folder / FACTS), ProbeError)
    schema = facts.text("schema")
    if schema != SCHEMA:
        raise ProbeError(
            f"{facts.where}: this is {schema[:60]!r}, but this moeprobe reads {SCHEMA}. Use the moeprobe that wrote it."
        )
    weights, _ = (_unaltered(folder / name, facts) for name in (WEIGHTS, EXAMPLES))
    recipe, training = _recipe(facts), _section(facts, "training")
    # not `kind(...)`: a subclass may have arguments of its own
    probe = kind.__new__(kind)
    TextProbe.__init__(
        probe, facts.text("name"), level=_level(facts), definition=facts.text("definition"),
        folds=recipe.folds, seed=recipe.seed, recipe=recipe,
    )  # fmt: skip
    probe.model_ = _model(_section(facts, "model"), _tensors(weights, folder / WEIGHTS))
    probe.examples_ = tuple(read_labels(folder / EXAMPLES))
    _set_folds(probe, training)
    checked(probe, str(folder))
    if facts.text("version") != probe.version:
        raise ProbeError(f"{facts.where}: the version is not that of its content. {_AGAIN}")
    return probe


def _facts(probe: TextProbe, files: dict[str, bytes]) -> dict[str, Any]:
    recipe, model = probe.recipe, probe.model_
    return {
        "schema": SCHEMA,
        "name": probe.name,
        "version": probe.version,
        "level": probe.level,
        "definition": probe.definition,
        "features": {
            "hash": SCHEME,
            "room": ROOM,
            "words": list(recipe.ngrams.words),
            "characters": list(recipe.ngrams.characters),
            "least": recipe.least,
        },
        "model": {
            "penalty": model.penalty, "intercept": model.intercept, "slope": model.slope, "offset": model.offset,
        },
        "training": {
            "folds": recipe.folds,
            "seed": recipe.seed,
            "penalties": list(recipe.penalties),
            "group_of": probe.groups_.tolist(),
            "fold_of": probe.folds_.tolist(),
            "out_of_fold": [None if np.isnan(one) else one for one in probe.out_of_fold_.tolist()],
        },
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }  # fmt: skip


def _line(example: Example) -> dict[str, Any]:
    optional = {"prompt": example.prompt, "note": example.note, "prompt_id": example.unit}
    return {"text": example.text, "label": example.label} | {key: value for key, value in optional.items() if value}


def _put(temporary: Path, folder: Path) -> None:
    """Rename into place. A probe that stands there is moved aside first, and back if the new one cannot follow."""
    if not folder.exists():
        temporary.rename(folder)
    else:
        aside = folder.with_name(f"{temporary.name}.old")
        folder.rename(aside)
        try:
            temporary.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(folder.parent)


def _bytes(path: Path) -> bytes:
    """A plain file of bounded size; a link could make us read, and then show, another file of this machine."""
    try:
        if path.is_symlink() or not path.is_file():
            raise ProbeError(f"{path} is missing or no plain file. {_AGAIN}")
        if path.stat().st_size > _LARGEST[path.name]:
            raise ProbeError(f"{path} has {path.stat().st_size:,} bytes; at most {_LARGEST[path.name]:,} are read.")
        return path.read_bytes()
    except OSError as error:
        raise ProbeError(f"Could not read {path}: {error.strerror or error}.") from error


def _unaltered(path: Path, facts: Fields) -> bytes:
    content = _bytes(path)
    if hashlib.sha256(content).hexdigest() != _section(facts, "sha256").text(path.name):
        raise ProbeError(f"{path} was altered since {FACTS} was written. {_AGAIN}")
    return content


def _section(facts: Fields, key: str) -> Fields:
    return Fields(facts.section(key), f"{facts.where}, {key}", ProbeError)


def _level(facts: Fields) -> Any:
    level = facts.text("level")
    if level not in ("sentence", "generation"):
        raise ProbeError(f"{facts.where}: the level {level[:40]!r} is neither sentence nor generation.")
    return level


def _recipe(facts: Fields) -> Recipe:
    features, training = _section(facts, "features"), _section(facts, "training")
    if features.text("hash") != SCHEME or features.integer("room") != ROOM:
        raise ProbeError(f"{features.where}: it hashes by {features.text('hash')[:40]!r}, this moeprobe by {SCHEME!r}.")
    penalties = training.items("penalties")
    if not 1 <= len(penalties) <= 100 or not all(_is_number(one) and one > 0 for one in penalties):
        raise ProbeError(f"{training.where}: the penalties must be 1 to 100 numbers above 0.")
    return Recipe(
        ngrams=Ngrams(_range(features, "words"), _range(features, "characters")),
        least=features.integer("least", 1),
        penalties=tuple(float(one) for one in penalties),
        folds=training.integer("folds", 2, 100),
        seed=training.integer("seed", 0, 2**32 - 1),
    )


def _range(features: Fields, key: str) -> tuple[int, int]:
    given = features.items(key)
    plain = len(given) == 2 and all(type(one) is int for one in given)
    if not plain or not 1 <= given[0] <= given[1] <= _LONGEST_NGRAM:
        raise ProbeError(f"{features.where}: {key} must be two whole numbers from 1 to {_LONGEST_NGRAM}, rising.")
    return given[0], given[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LIMIT


def _model(numbers: Fields, tensors: dict[str, NDArray[Any]]) -> Model:
    found = {key: numbers.number(key) for key in ("penalty", "intercept", "slope", "offset")}
    if not all(abs(one) < _LIMIT for one in found.values()) or found["penalty"] <= 0 or found["slope"] <= 0:
        raise ProbeError(f"{numbers.where}: its numbers {found} are those of no trained model. {_AGAIN}")
    vocabulary = Vocabulary(tensors["columns"], tensors["idf"])
    return Model(vocabulary, tensors["coefficients"], **found)


def _tensors(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        found = from_bytes(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ProbeError(f"{path} is no safetensors file of numbers ({error}). {_AGAIN}") from error
    shapes = {name: f"{array.dtype} {array.shape}" for name, array in found.items()}
    if set(found) != set(_DTYPES) or any(found[name].dtype != dtype for name, dtype in _DTYPES.items()):
        raise ProbeError(f"{path} holds {str(shapes)[:200]}; expected columns (int64), idf and coefficients (float64).")
    columns = found["columns"]
    if columns.ndim != 1 or not columns.size or any(array.shape != columns.shape for array in found.values()):
        raise ProbeError(f"{path} holds {str(shapes)[:200]}; all must be (features,) with one feature or more.")
    if columns[0] < 0 or columns[-1] >= 2 * ROOM or (np.diff(columns) <= 0).any():
        raise ProbeError(f"{path}: the columns must rise strictly from 0 to below {2 * ROOM}. {_AGAIN}")
    for name in ("idf", "coefficients"):
        if not (np.abs(found[name]) < _LIMIT).all():  # NaN compares as false
            raise ProbeError(f"{path}: {name} holds numbers that are not finite or beyond {_LIMIT:g}. {_AGAIN}")
    return found


def _set_folds(probe: TextProbe, training: Fields) -> None:
    """Groups, folds and scores out of fold: one for each example."""
    size = len(probe.examples_)
    whole = {}
    for key, most in (("group_of", size), ("fold_of", probe.folds)):
        given = training.items(key)
        if len(given) != size or not all(type(one) is int and 0 <= one < most for one in given):
            raise ProbeError(f"{training.where}: {key} must be {size} whole numbers from 0 to {most - 1}.")
        whole[key] = np.array(given, dtype=np.int64)
    scores = training.items("out_of_fold")
    if len(scores) != size or not all(one is None or (_is_number(one) and 0 <= one <= 1) for one in scores):
        raise ProbeError(f"{training.where}: out_of_fold must be {size} numbers in [0, 1] or null.")
    probe.groups_, probe.folds_ = whole["group_of"], whole["fold_of"]
    probe.out_of_fold_ = np.array([np.nan if one is None else one for one in scores], dtype=np.float64)
