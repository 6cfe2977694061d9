"""Loading a model and its tokenizer by name, from a folder or from the Hugging Face hub."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from moeprobe.errors import ModelError
from moeprobe.models.limits import bounded_modules, check_counts
from moeprobe.models.provenance import model_section

DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# In the order of preference: of a multimodal checkpoint the text model alone is enough where the library has one.
_CLASSES: tuple[tuple[Any, Any], ...] = (
    (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM),
    (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoModelForSeq2SeqLM),
    (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText),
)


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A model in eval mode with its tokenizer.

    Attributes:
        model: a language model that generates: causal, encoder-decoder, or multimodal (used on text alone).
        tokenizer: its tokenizer, padding on the left.
        id: what the user asked for.
        provenance: the manifest's `model` section: family, class, dtype, digests.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    id: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def end_tokens(self) -> set[int]:
        """Ids that end a generation: the model's own, or the tokenizer's where the model names none."""
        config = self.model.generation_config
        eos = self.tokenizer.eos_token_id if config is None or config.eos_token_id is None else config.eos_token_id
        return set() if eos is None else {int(eos)} if isinstance(eos, int) else {int(token) for token in eos}

    @property
    def positions(self) -> int | None:
        """Most positions the model was made for, where its config says."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) else None

    def __repr__(self) -> str:
        facts = self.provenance
        return f"<LoadedModel {self.id!r}: {facts['class']}, {facts['dtype']}, on {self.model.device}>"

    @property
    def pad_token(self) -> int:
        """Id that pads short prompts; `load_model` made sure there is one."""
        return int(self.tokenizer.pad_token_id)


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device_map: str | None = None,
    revision: str | None = None,
    hash_weights: bool = False,
) -> LoadedModel:
    """Load a model for tracing and interchange. Code from a hub is never run (trust_remote_code stays off).

    Args:
        name: a folder, a hub id, or a built-in demo model: "compiled", "compiled:FAMILY", "compiled:FAMILY:strict",
            "smollm2" or "smollm2:base". A folder of the same name is reached as "./compiled".
        dtype: "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
        device_map: as in transformers ("auto", "cpu", "cuda:0"; needs accelerate). Default: the first GPU, else CPU.
        revision: branch, tag or commit of a hub model.
        hash_weights: read every byte of the weight files for the provenance, not a sample.

    Raises:
        ModelError: no such model, not loadable without its own code, or an unknown dtype.
    """
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}. Choose one of {', '.join(DTYPES)}.")
    built_in = name.split(":")[0] in ("compiled", "smollm2")
    if built_in:
        if revision is not None:
            raise ModelError(f"{name} is built in and has no revisions. Leave --revision out.")
        model, tokenizer = _built_in(name, dtype)
        model = model if device_map is None else model.to(device_map)  # type: ignore[arg-type]  # a device name here
    else:
        model, tokenizer = _pretrained(name, dtype, device_map, revision)
    if device_map is None and torch.cuda.is_available():
        model = model.to("cuda:0")  # type: ignore[arg-type]  # transformers wraps .to with a narrower type
    model.train(False)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer of {name} has neither a pad nor an end token, so prompts can't be batched."
            )
        tokenizer.pad_token = tokenizer.eos_token
    folder = None if built_in else model_folder(name)
    return LoadedModel(model, tokenizer, name, model_section(name, model, revision, folder, whole=hash_weights))


def _built_in(name: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    kind, *options = name.split(":")
    if kind == "smollm2":
        from moeprobe.models import smollm2

        if options not in ([], ["base"]):
            raise ModelError(f"{name!r} is unknown. Write smollm2 or smollm2:base.")
        wanted = torch.bfloat16 if dtype == "auto" else DTYPES[dtype]
        return smollm2.build(wanted, base=bool(options))  # type: ignore[arg-type]  # "auto" is settled above
    from moeprobe.models import compiled

    family = options[0] if options else compiled.FAMILIES[0]
    if family not in compiled.FAMILIES or options[1:] not in ([], ["strict"]):
        raise ModelError(f"{name!r} is unknown. Write compiled or compiled:FAMILY[:strict], with FAMILY one of "
                         f"{', '.join(compiled.FAMILIES)}.")  # fmt: skip
    wanted = torch.float32 if dtype == "auto" else DTYPES[dtype]
    return compiled.build(family, strict=bool(options[1:]), dtype=wanted)  # type: ignore[arg-type]  # as above


def _pretrained(
    name: str, dtype: str, device_map: str | None, revision: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = model_folder(name)
    if folder is None and name.startswith((".", "/", "~")):
        raise ModelError(f"There is no folder {name}. Give a folder, a hub id, or one of: compiled, smollm2.")
    source = name if folder is None else str(folder)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "revision": revision or "main", "trust_remote_code": False}
    # Pickled weights can run code; safetensors cannot.
    options |= {"use_safetensors": True, "output_loading_info": True}
    if device_map is not None:
        options["device_map"] = device_map
    if not torch.cuda.is_available():
        # grouped_mm, the default, is much slower on CPU (CAPTURE: 15-60 times in training).
        options["experts_implementation"] = "eager"
    with _quiet_retries():
        try:
            check_counts(PreTrainedConfig.get_config_dict(source, revision=revision or "main")[0], name)
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
            config = AutoConfig.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
            with bounded_modules(name):
                result: Any = text_class(config).from_pretrained(source, **options)
        except ModelError:
            raise
        except Exception as problem:  # files of a model may hold anything, and its classes may fail in any way
            first = (str(problem).strip() or type(problem).__name__).split("\n")[0][:300]
            raise ModelError(
                f"Could not load {name!r}: {first} Check the name or folder; built in are compiled and smollm2."
            ) from problem
    model, loading = result
    # transformers fills missing tensors with random numbers and goes on; a routing of those means nothing.
    absent = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if absent:
        raise ModelError(
            f"The checkpoint {name!r} is not whole: {len(absent)} tensors are missing or of another shape, first "
            f"{absent[0]}. Fetch it again."
        )
    return model, tokenizer


def text_class(config: PreTrainedConfig) -> Any:
    """The auto class of transformers that loads a text generator for `config`: causal where there is one, else
    encoder-decoder, else multimodal.

    Raises:
        ModelError: there is none, for example for an encoder.
    """
    auto = auto_class(config)
    if auto is not None:
        return auto
    raise ModelError(
        f"transformers has no class that generates text from {config.model_type} "
        f"({type(config).__name__}). moeprobe needs a causal, encoder-decoder or multimodal language model."
    )


def auto_class(config: PreTrainedConfig) -> Any | None:
    """As `text_class`, with None where there is none."""
    return next((auto for mapping, auto in _CLASSES if type(config) in mapping), None)


def model_folder(name: str) -> Path | None:
    """The folder that `name` is, or None."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long for the file system, or an unknown home
        return None


class _quiet_retries:  # noqa: N801  # used like a function
    """Keep the hub client's retry log off the terminal; what matters is in the error we raise."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("huggingface_hub")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
