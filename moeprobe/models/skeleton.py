"""A model without its weights: built on the meta device from its config alone, in a second, whatever its size.

The skeleton has the modules that the loaded model would have, also those a quantised checkpoint puts in their place,
so that one can see what would be recorded before fetching 70 GB.
"""

import copy
import difflib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from moeprobe.errors import ModelError
from moeprobe.fields import parse_json
from moeprobe.models.limits import bounded_modules, check_counts
from moeprobe.models.load import DTYPES, _quiet_retries, auto_class, model_folder

_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True)
class Skeleton:
    """A model on the meta device.

    Attributes:
        model: in eval mode; every tensor is on the meta device.
        id: what the user asked for.
        weights: whether the weights are on this machine, so that the model could be run.
        loaded: the model with its weights, where building it took them (built-in models).
        problems: what stands against loading or running it here, as (what is wrong, what to do).
        notes: what one should know besides, one sentence each.
    """

    model: PreTrainedModel
    id: str
    weights: bool
    loaded: PreTrainedModel | None = None
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def build_skeleton(name: str, *, dtype: str = "auto", revision: str | None = None) -> Skeleton:
    """Build a model without weights. Code from a hub is never run (trust_remote_code stays off).

    Args:
        name: a folder that holds at least config.json, a hub id, or a built-in model, as for `load_model`.
        dtype: as for `load_model`; decides in which number format weights are handed to the experts.
        revision: branch, tag or commit of a hub model.

    Raises:
        ModelError: no such model, a config that is damaged or that transformers cannot build, a model that needs its
            own code.
    """
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}. Choose one of {', '.join(DTYPES)}.")
    if name.split(":")[0] in ("compiled", "smollm2"):
        return _built_in(name, dtype, revision)
    folder = model_folder(name)
    config = _read_config(name, folder, revision)
    problems: list[tuple[str, str]] = []
    auto = auto_class(config)
    if auto is None:
        what = f"transformers has no class for {config.model_type} that generates text and that moeprobe loads"
        if type(config) not in AutoModel._model_mapping:
            raise ModelError(f"{what} ({name!r}). Of a model with several parts, take the folder of its text part.")
        auto = AutoModel
        problems.append((what, "choose a model that generates"))
    model = _build(name, config, auto, dtype)
    trouble, notes = _quantise(model)
    return Skeleton(model, name, _weights_at_hand(name, folder, revision), None, (*problems, *trouble), notes)


def skeleton_of(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a loaded `model` without its weights, in the same dtype. Modules replaced after loading are not."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    made: Any = type(model)
    with _quietly(), torch.device("meta"):
        built: PreTrainedModel = made._from_config(config, dtype=model.dtype)
    return _emptied(built)


def _built_in(name: str, dtype: str, revision: str | None) -> Skeleton:
    """The built-in models are small, and are built with their weights."""
    from moeprobe.models.load import _built_in as build

    if revision is not None:
        raise ModelError(f"{name} is built in and has no revisions. Leave --revision out.")
    model = build(name, dtype)[0]
    return Skeleton(skeleton_of(model), name, True, model)


def _read_config(name: str, folder: Path | None, revision: str | None) -> PreTrainedConfig:
    if folder is None and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(f"There is no folder {name}. Give a folder, a hub id, or one of: compiled, smollm2.")
    if folder is not None:
        _check_file(folder)
    source = name if folder is None else str(folder)
    options: dict[str, Any] = {"revision": revision or "main"}
    with _quietly():
        try:
            facts, _ = PreTrainedConfig.get_config_dict(source, **options)
        except (OSError, ValueError) as problem:
            raise ModelError(
                f"Could not read the config of {name!r}: {_first_line(problem)} Check the name; a folder needs a "
                "config.json; built in are compiled and smollm2."
            ) from problem
        _check_facts(facts, name)
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
        except Exception as problem:  # a config may hold anything, and its class may fail in any way
            raise ModelError(f"The config of {name!r} cannot be used: {_first_line(problem)}") from problem
    return config


def _check_file(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no config.json, so it is no model of transformers. Give the model's folder.")
    if path.stat().st_size > _CONFIG_BYTES:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes; no config is that large. It is damaged.")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ModelError(f"Could not read {path}: {_first_line(problem)} Fetch it again.") from problem
    if not isinstance(parse_json(text, str(path), ModelError), dict):
        raise ModelError(f"{path} is no JSON object. Fetch it again.")


def _check_facts(facts: dict[str, Any], name: str) -> None:
    kind = facts.get("model_type")
    own_code = facts.get("auto_map")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if own_code:
            raise ModelError(
                f"{name!r} brings its own code ({str(kind)[:60]!r}), which moeprobe never runs. Take a version of it "
                "that transformers knows, or a newer transformers."
            )
        if kind is None:
            raise ModelError(f'The config of {name!r} names no "model_type", so nobody can tell what model it is.')
        near = difflib.get_close_matches(str(kind)[:60], list(CONFIG_MAPPING), 1)
        hint = f" Did you mean {near[0]!r}?" if near else " A newer transformers may know it."
        raise ModelError(f"transformers does not know the model type {str(kind)[:60]!r} of {name!r}.{hint}")
    check_counts(facts, name)


def _build(name: str, config: PreTrainedConfig, auto: Any, dtype: str) -> PreTrainedModel:
    wanted = (getattr(config.get_text_config(), "dtype", None) or torch.float32) if dtype == "auto" else DTYPES[dtype]
    with _quietly():
        try:
            with torch.device("meta"), bounded_modules(name):
                model: PreTrainedModel = auto.from_config(config, dtype=wanted, trust_remote_code=False)
            return _emptied(model)
        except ModelError:
            raise
        except Exception as problem:  # a config with impossible sizes may fail anywhere in a model's code
            raise ModelError(
                f"transformers cannot build {config.model_type} from the config of {name!r}: {_first_line(problem)} "
                "Check the config."
            ) from problem


def _emptied(model: PreTrainedModel) -> PreTrainedModel:
    # Some models make small buffers on the CPU whatever the default device is.
    cast: Any = model.to("meta")  # type: ignore[arg-type]  # transformers wraps .to with a narrower type
    made: PreTrainedModel = cast.train(False)
    return made


def _quantise(model: PreTrainedModel) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Put the modules in place that a quantised checkpoint is loaded into.

    Returns:
        What would fail on this machine, as Skeleton.problems, and notes.
    """
    settings = getattr(model.config, "quantization_config", None)
    if settings is None:
        return (), ()
    from transformers.quantizers.auto import get_hf_quantizer
    from transformers.utils.quantization_config import QuantizationMethod

    method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", "")
    method = re.sub(r"[^\w.-]", "?", str(getattr(method, "value", method)))[:40]
    with _quietly():
        try:
            quantizer, _, _ = get_hf_quantizer(copy.deepcopy(model.config), None, None, True, {})
            if quantizer is None:
                return (), (
                    f"transformers ignores the checkpoint's quantisation, whose method it does not know: {method}.",
                )
            if getattr(quantizer.quantization_config, "dequantize", False):
                return (), (f"The checkpoint is quantised ({method}); on this machine it is dequantised when loaded.",)
            if quantizer.quantization_config.quant_method == QuantizationMethod.MXFP4:
                # Its own replacement fetches kernels from the hub; the modules are the same.
                _put_mxfp4(model)
            else:
                quantizer.preprocess_model(model=model, dtype=model.dtype, device_map=None, checkpoint_files=[])
        except Exception as problem:  # noqa: BLE001  # each of 20 methods fails in its own way
            what = (
                f"the checkpoint is quantised ({method}) and cannot be loaded on this machine: {_first_line(problem)}"
            )
            return ((what, "mend that, or take an unquantised checkpoint"),), ()
    return (), (f"The checkpoint is quantised ({method}); its experts are of class {_experts_class(model)}.",)


def _experts_class(model: PreTrainedModel) -> str:
    names = sorted({type(module).__name__ for module in model.modules() if type(module).__name__.endswith("Experts")})
    return ", ".join(names) or "not known"


def _put_mxfp4(model: PreTrainedModel) -> None:
    from transformers.integrations.mxfp4 import Mxfp4GptOssExperts, Mxfp4GptOssMLP
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP

    for path, module in list(model.named_modules()):
        if isinstance(module, GptOssMLP):
            with torch.device("meta"):
                model.set_submodule(path, Mxfp4GptOssMLP(module.router, Mxfp4GptOssExperts(model.config)))


def _weights_at_hand(name: str, folder: Path | None, revision: str | None) -> bool:
    """Whether safetensors lie in the folder, or in the hub's cache, all those that the index names."""
    names = ("model.safetensors", "model.safetensors.index.json")
    if folder is None:
        from huggingface_hub import try_to_load_from_cache

        with _quietly():
            try:
                found = [try_to_load_from_cache(name, file, revision=revision or "main") for file in names]
            except (ValueError, OSError):  # no name that a hub could have
                return False
        paths = [Path(path) for path in found if isinstance(path, str)]
    else:
        paths = [folder / file for file in names if (folder / file).is_file()]
    if not paths:
        return False
    if paths[0].name == names[0]:
        return True
    try:
        index = json.loads(paths[0].read_text("utf-8"))
        parts = {str(part) for part in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(parts) and all("/" not in part and (paths[0].parent / part).is_file() for part in parts)


class _quietly(_quiet_retries):  # noqa: N801  # used like a function
    """Keep advice and warnings of the libraries off the terminal; what matters is in the errors we raise."""

    def __enter__(self) -> None:
        super().__enter__()
        from transformers.utils import logging

        self._verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *problem: Any) -> None:
        from transformers.utils import logging

        self._warnings.__exit__(*problem)
        logging.set_verbosity(self._verbosity)
        super().__exit__(*problem)


def _first_line(problem: BaseException) -> str:
    """The gist of another library's message, as a sentence of at most 300 characters."""
    if isinstance(problem, KeyError):
        return f"it names {str(problem)[:100]}, which transformers does not know."
    lines = [line.strip() for line in str(problem).strip().splitlines() if line.strip()] or [type(problem).__name__]
    text = (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])[:300]
    return text if text.endswith((".", "!", "?")) else text + "."
