"""What is written down about a model and the machine that ran it, so that a run can be repeated."""

import hashlib
import json
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import transformers
from transformers import PreTrainedModel

import moeprobe
from moeprobe.files import sha256

# Weight files are listed by size: hashing 70 GB takes longer than most runs. A later issue hashes on request.
_HASHED_BYTES = 64 << 20


def model_section(name: str, model: PreTrainedModel, revision: str | None, folder: Path | None) -> dict[str, Any]:
    """The manifest's `model` section: what was loaded."""
    config = json.dumps(_settings(json.loads(model.config.to_json_string(use_diff=False))), sort_keys=True)
    text_config = model.config.get_text_config()
    return {
        "id": name,
        "revision": getattr(model.config, "_commit_hash", None) or revision,
        "family": model.config.model_type,
        "class": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "num_hidden_layers": text_config.num_hidden_layers,
        "config_digest": "sha256:" + hashlib.sha256(config.encode()).hexdigest(),
        "files": None if folder is None else _files(folder),
    }


def engine_section(model: PreTrainedModel) -> dict[str, Any]:
    """The manifest's `engine` section: how the model was executed."""
    config = model.config
    return {
        "name": "transformers",
        "dtype": str(model.dtype).removeprefix("torch."),
        "experts_implementation": getattr(config, "_experts_implementation", None) or "eager",
        "attn_implementation": getattr(config, "_attn_implementation", None),
        "cache": "dynamic",
        "device": str(model.device),
        "threads": torch.get_num_threads(),
    }


def versions_section() -> dict[str, str]:
    """The manifest's `versions` section."""
    return {
        "moeprobe": moeprobe.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "numpy": np.__version__,
    }


def _settings(config: Any) -> Any:
    """A config without what differs between two loadings of one model: where from, in which number format, by whom."""
    if isinstance(config, dict):
        skipped = {"dtype", "torch_dtype", "_name_or_path", "transformers_version"}
        return {key: _settings(value) for key, value in config.items() if key not in skipped}
    return [_settings(value) for value in config] if isinstance(config, list) else config


def _files(folder: Path) -> dict[str, str]:
    kept = re.compile(r"\.(json|safetensors|jinja|model)$")
    names = sorted(path for path in folder.iterdir() if path.is_file() and kept.search(path.name))
    return {
        path.name: f"sha256:{sha256(path)}" if path.stat().st_size <= _HASHED_BYTES else f"size:{path.stat().st_size}"
        for path in names
    }
