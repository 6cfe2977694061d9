"""In what setting a run was made, what of it can be put back, and what differs today."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch

from moeprobe.chat.encode import tokenizer_section
from moeprobe.engines.decoding import Decoding
from moeprobe.errors import MoeprobeError, TraceError
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.models.fingerprints import hub_folder, is_weights, weight_hashes
from moeprobe.models.load import model_folder
from moeprobe.trace import Manifest

# Beside the parameters of Decoding; both are the model's.
_TOKENS = ("end_tokens", "pad_token")
_ALWAYS = {"max_new_tokens", "sample", "temperature", "top_p", "samples", "seed", "batch_size"}
# Compared as weights, or no part of what is computed.
_SKIPPED = {("model", "id"), ("model", "files"), ("model", "weights_sha256"), ("model", "hub"), ("model", "memory"),
            ("model", "dtype")}  # fmt: skip
# Shown whole: single entries of these say little.
_WHOLE = {("engine", "dtypes"), ("engine", "devices")}


@dataclass(frozen=True)
class Difference:
    """One thing that differs between then and now; `field` is its place in the manifest, "versions.torch"."""

    field: str
    then: Any
    now: Any

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Setting:
    """How today's setting compares with that of a run.

    Attributes:
        weights: "same", "other", or "unknown" where nothing comparable was kept.
        why: what `weights` rests on, in words.
        differences: everything else that differs.
    """

    weights: str
    why: str
    differences: tuple[Difference, ...]


def decoding_of(section: Mapping[str, Any], where: str) -> Decoding:
    """The decoding parameters that a manifest keeps.

    Raises:
        TraceError: a parameter that this moeprobe does not know, one of another type, or an impossible combination.
    """
    known = {field.name: field.default for field in fields(Decoding)}
    unknown = sorted(set(section) - set(known) - set(_TOKENS))
    if unknown:
        raise TraceError(
            f"{where} was decoded with {unknown[0][:60]!r}, which this moeprobe does not know. A newer moeprobe wrote "
            "it: upgrade with `pip install --upgrade moeprobe`."
        )
    missing = sorted(_ALWAYS - set(section))
    if missing:
        raise TraceError(f"{where} does not say its {missing[0]!r} of decoding, so it cannot be repeated.")
    # A parameter that came later defaults to what was done before it came.
    options = {
        name: _typed(section[name], known[name], f"{where}: decoding {name}") for name in known if name in section
    }
    try:
        return Decoding(**options)
    except MoeprobeError as problem:
        raise TraceError(f"{where} names decoding parameters that cannot be: {problem}") from problem


def token_ids(section: Mapping[str, Any], name: str, where: str) -> list[int] | None:
    """The end tokens (or the pad token) that a manifest keeps under `name`, or None where it keeps none.

    Raises:
        TraceError: no list of token ids.
    """
    found = section.get(name)
    if found is None:
        return None
    ids = found if isinstance(found, list) else [found]
    if not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise TraceError(f"{where}: {name} must be token ids. Copy the trace again, or record it again.")
    return list(ids)


@contextmanager
def put_back(loaded: LoadedModel, manifest: Manifest, where: str) -> Iterator[None]:
    """What of a run's setting can be put back, for a while: threads, precision switches of the CPU, experts and
    attention implementation on the same kind of device, end tokens and pad token. All is as before afterwards."""
    engine, model = manifest.engine, loaded.model
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    config, tokenizer = model.generation_config, loaded.tokenizer
    ends, pad = None if config is None else config.eos_token_id, tokenizer.pad_token_id
    names = {kind: getattr(model.config, f"_{kind}", None) for kind in _IMPLEMENTATIONS}
    try:
        _put_numbers(engine)
        if str(engine.get("device")).partition(":")[0] == model.device.type:
            _put_implementations(loaded, engine)
        wanted = token_ids(manifest.decoding, "end_tokens", where)
        if config is not None and wanted:
            config.eos_token_id = wanted
        for token in token_ids(manifest.decoding, "pad_token", where) or []:
            tokenizer.pad_token_id = token
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)
        torch.use_deterministic_algorithms(deterministic)
        _put_implementations(loaded, {kind: name for kind, name in names.items() if name})
        if config is not None:
            config.eos_token_id = ends
        tokenizer.pad_token_id = pad


def compare_setting(loaded: LoadedModel, manifest: Manifest, assistant: LoadedModel | None = None) -> Setting:
    """Compare today's setting with that of a run; `assistant` is the model that drafts tokens today."""
    decoding = manifest.decoding
    drafts = manifest.engine.get("assistant")
    if isinstance(drafts, dict) and assistant is not None:
        drafts = assistant.provenance
    now = {
        "model": loaded.provenance,
        "tokenizer": _tokenizer(loaded, manifest.tokenizer),
        "engine": engine_section(loaded.model, cache=manifest.engine.get("cache", ""), assistant=drafts),
        "versions": versions_section(),
        "decoding": {"end_tokens": sorted(loaded.end_tokens)},
    }
    then = {
        "model": manifest.model,
        "tokenizer": manifest.tokenizer,
        "engine": manifest.engine,
        "versions": manifest.versions,
        "decoding": {"end_tokens": decoding.get("end_tokens")},
    }
    weights, why = compare_weights(manifest.model, loaded)
    files = _files(manifest.model, loaded.provenance)
    return Setting(weights, why, (*_differences(then, now, ()), *files))


def compare_weights(then: Mapping[str, Any], loaded: LoadedModel) -> tuple[str, str]:
    """Whether a loaded model has the weights that the `model` section of a manifest names.

    Returns:
        "same", "other" or "unknown", and why.
    """
    now = loaded.provenance
    for key in ("family", "class", "num_hidden_layers"):
        if then.get(key) != now.get(key):
            return "other", f"{key} was {then.get(key)!r}, now {now.get(key)!r}"
    if then.get("config_digest") != now.get("config_digest"):
        return "other", "its config differs"
    if then.get("memory") is not None and then.get("dtype") == now.get("dtype"):
        return _agree({"weights": then["memory"]}, {"weights": now.get("memory")}, "every number in memory")
    whole = then.get("weights_sha256")
    if isinstance(whole, dict) and whole:
        return _agree(whole, now.get("weights_sha256") or _whole(loaded), "every byte of the weight files")
    files = then.get("files")
    weights = {name: value for name, value in files.items() if is_weights(name)} if isinstance(files, dict) else {}
    if weights:
        present = {name: value for name, value in (now.get("files") or {}).items() if is_weights(name)}
        parts = any(str(value).startswith("sampled:") for value in weights.values())
        return _agree(weights, present, "the headers and samples of all tensors" if parts else "every byte")
    if then.get("memory") is not None and then.get("id") != now.get("id"):
        return "other", f"it was {str(then.get('id'))[:60]!r}"
    return "unknown", "nothing was kept that can be compared with this model; its config is the same"


_IMPLEMENTATIONS = ("experts_implementation", "attn_implementation")


def _put_numbers(engine: Mapping[str, Any]) -> None:
    threads, precision = engine.get("threads"), engine.get("precision")
    if type(threads) is int and 1 <= threads <= 1024:
        torch.set_num_threads(threads)
    if isinstance(precision, dict):
        if precision.get("matmul") in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision["matmul"])
        torch.use_deterministic_algorithms(precision.get("deterministic") is True)


def _put_implementations(loaded: LoadedModel, engine: Mapping[str, Any]) -> None:
    """Choose the implementations of a run where the model has them; otherwise the difference is reported."""
    model = loaded.model
    for kind, known in zip(_IMPLEMENTATIONS, (("eager", "batched_mm", "grouped_mm"), ("eager", "sdpa")), strict=True):
        wanted = engine.get(kind)
        if wanted in known and wanted != getattr(model.config, f"_{kind}", None):
            choose: Any = getattr(model, f"set_{kind}", None)
            try:
                if choose is not None:
                    choose(wanted)
            except (ValueError, ImportError, RuntimeError):
                continue


def _typed(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(default, float) and type(value) in (int, float):
        return float(value)
    elif type(value) is type(default):
        return value
    raise TraceError(f"{where} is {str(value)[:60]!r}, which it cannot be. Record the run again.")


def _tokenizer(loaded: LoadedModel, then: Mapping[str, Any]) -> dict[str, Any]:
    """Today's tokenizer; what the user chose (raw, template options) is taken over from the run."""
    now = tokenizer_section(loaded.tokenizer, raw=bool(then.get("raw", not then.get("chat_template"))))
    return {**now, "template_options": then.get("template_options")}


def _whole(loaded: LoadedModel) -> dict[str, str]:
    folder = model_folder(loaded.id) or hub_folder(loaded.id, loaded.provenance.get("revision"))
    return {} if folder is None else weight_hashes(folder)


def _agree(then: Mapping[str, Any], now: Mapping[str, Any], what: str) -> tuple[str, str]:
    for name in sorted({*then, *now}, key=str):
        if name not in now or name not in then:
            return "other", f"{str(name)[:80]} is {'missing now' if name in then else 'new'}"
        if then[name] != now[name]:
            kinds = [str(one[name]).partition(":")[0] for one in (then, now)]
            if kinds[0] != kinds[1]:
                return "unknown", f"{str(name)[:80]} was fingerprinted in another way ({kinds[0]} then, {kinds[1]} now)"
            return "other", f"{str(name)[:80]} has another digest"
    return "same", f"checked: {what}"


def _files(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Files other than weights that differ; config.json has a digest of its own that ignores its layout."""
    before, after = (
        {name: value for name, value in files.items() if not is_weights(name) and name != "config.json"}
        if isinstance(files := section.get("files"), dict)
        else {}
        for section in (then, now)
    )
    names = sorted({*before, *after}) if before and after else []
    return [
        Difference(f"model.files.{name}", before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _differences(then: Any, now: Any, place: tuple[str, ...]) -> Iterator[Difference]:
    if place in _SKIPPED:
        return
    if isinstance(then, Mapping) and isinstance(now, Mapping) and place not in _WHOLE:
        for key in then:  # what was not written down then cannot be told to differ
            yield from _differences(then.get(key), now.get(key), (*place, str(key)))
    elif then != now:
        yield Difference(".".join(place), then, now)
