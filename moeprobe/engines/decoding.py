"""How text is generated: the decoding parameters, checked once."""

import math
from dataclasses import dataclass, fields
from typing import Any

from transformers import CompileConfig, GenerationConfig

from moeprobe.errors import MoeprobeError
from moeprobe.models import LoadedModel

CACHES = ("dynamic", "static")
# Scores are divided by the temperature; below this they may leave the range of 32-bit floats.
LEAST_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Decoding:
    """Decoding parameters. What stands here is what is used; a model's own sampling defaults are not.

    Attributes:
        max_new_tokens: most tokens to generate per sample.
        sample: draw from the distribution (True) or take the most likely token (False, greedy).
        temperature, top_p: only with `sample`; 1.0 leaves the model's distribution as it is. The temperature is at
            least LEAST_TEMPERATURE.
        samples: generations per prompt; more than one needs `sample` or `beams`.
        seed: of the random draws. Each batch draws from its own stream, (seed, batch number).
        batch_size: sequences per batch, padded on the left.
        beams: width of a beam search; 1 is none. The `samples` best beams are kept.
        prefill_chunk: tokens of a prompt that are forwarded at once; 0 is all of them.
        cache: "dynamic" or "static".
        compile: compile decoding (static cache only); hooks then write into buffers.
        continuous: transformers' continuous batching: packed rows without padding; greedy only.
        prompt_lookup: draft this many tokens at a time from the prompt itself; 0 is none. One sequence per batch.
        assistant: name of a smaller model that drafts tokens; "" is none. One sequence per batch.
        stop: texts that end a generation where they are complete, however they are cut into tokens.
        trim_loops: drop a verbatim loop at the end of a generation, from its second round on.

    Raises:
        MoeprobeError: a value of another type or out of range, or an impossible combination.
    """

    max_new_tokens: int = 64
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0
    batch_size: int = 16
    beams: int = 1
    prefill_chunk: int = 0
    cache: str = "dynamic"
    compile: bool = False
    continuous: bool = False
    prompt_lookup: int = 0
    assistant: str = ""
    stop: tuple[str, ...] = ()
    trim_loops: bool = True

    def __post_init__(self) -> None:
        self._check_types()
        if min(self.max_new_tokens, self.samples, self.batch_size, self.beams) < 1:
            raise MoeprobeError("--max-new-tokens, --samples, --batch-size and --beams must be at least 1.")
        if min(self.prefill_chunk, self.prompt_lookup, self.seed) < 0:
            raise MoeprobeError("--prefill-chunk, --prompt-lookup and --seed must not be negative.")
        if self.samples > 1 and not self.sample and self.beams == 1:
            raise MoeprobeError("Greedy decoding gives the same text each time; --samples above 1 needs --sample.")
        if not self.sample and (self.temperature != 1.0 or self.top_p != 1.0):
            raise MoeprobeError("--temperature and --top-p only act when tokens are drawn; add --sample.")
        if self.temperature < LEAST_TEMPERATURE or not 0 < self.top_p <= 1:
            raise MoeprobeError(f"--temperature must be at least {LEAST_TEMPERATURE} and --top-p in (0, 1].")
        if any(not text for text in self.stop):
            raise MoeprobeError("--stop needs a text; an empty one would end every generation at once.")
        if self.cache not in CACHES:
            raise MoeprobeError(f"There is no cache {self.cache!r}. Choose one of {', '.join(CACHES)}.")
        self._check_searches()

    def _check_types(self) -> None:
        """Each value is of the type of its default, also where Python sets it; an integer passes for a float."""
        for one in fields(self):
            value, option = getattr(self, one.name), "--" + one.name.replace("_", "-")
            if type(one.default) is float:
                if type(value) not in (int, float) or not _finite(value):
                    raise MoeprobeError(f"{option} must be a finite number, but it is {_shown(value)}.")
            elif type(one.default) is int and type(value) is not int:
                raise MoeprobeError(f"{option} must be a whole number, but it is {_shown(value)}.")
            elif type(one.default) is bool and type(value) is not bool:
                raise MoeprobeError(f"{one.name} must be True or False, but it is {_shown(value)}.")
            elif type(one.default) is str and not isinstance(value, str):
                raise MoeprobeError(f"{option} must be a text, but it is {_shown(value)}.")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise MoeprobeError(f"stop must be a tuple of texts, but it is {_shown(self.stop)}.")

    def _check_searches(self) -> None:
        if self.compile and self.cache != "static":
            raise MoeprobeError("--compile needs fixed shapes; add --cache static.")
        if self.beams > 1 and (self.sample or self.drafts or self.stop):
            raise MoeprobeError(
                "--beams is a search of its own; leave --sample, --prompt-lookup, --assistant and --stop out."
            )
        if self.beams > 1 and self.compile:
            raise MoeprobeError("transformers compiles no beam search; leave --compile or --beams out.")
        if self.samples > self.beams > 1:
            raise MoeprobeError(f"{self.beams} beams give at most {self.beams} samples; lower --samples.")
        if self.drafts and (self.cache == "static" or self.prefill_chunk):
            raise MoeprobeError("Drafting needs the dynamic cache and a whole prompt at once.")
        others = (self.sample, self.drafts, self.stop, self.prefill_chunk, self.beams > 1, self.cache != "dynamic")
        if self.continuous and any(others):
            raise MoeprobeError(
                "--continuous packs greedy requests (which tokens are drawn would depend on when they arrive); leave "
                "--sample, --beams, --stop, --cache, --prefill-chunk and drafting out."
            )
        if self.prompt_lookup and self.assistant:
            raise MoeprobeError("Drafts come from --prompt-lookup or from --assistant, not from both.")

    @property
    def drafts(self) -> bool:
        """Whether tokens are drafted and then checked, which works on one sequence at a time."""
        return bool(self.prompt_lookup or self.assistant)

    def to_json(self) -> dict[str, Any]:
        """The parameters as the manifest keeps them."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def config(self, loaded: LoadedModel) -> GenerationConfig:
        """transformers' form of these parameters, with the model's own end tokens."""
        more: dict[str, Any] = {}
        if self.sample:
            more |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        if self.beams > 1:
            # Scores are asked for because `beam_indices`, which tells rows apart, comes only with them.
            more |= {"num_beams": self.beams, "num_return_sequences": self.samples, "output_scores": True}
        if self.cache == "static":
            more["cache_implementation"] = "static"
        if self.prefill_chunk:
            more["prefill_chunk_size"] = self.prefill_chunk
        if self.prompt_lookup:
            more["prompt_lookup_num_tokens"] = self.prompt_lookup
        if self.compile:
            more["compile_config"] = _compilation(loaded)
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.sample,
            eos_token_id=sorted(loaded.end_tokens) or None,
            pad_token_id=loaded.pad_token,
            repetition_penalty=1.0,
            use_cache=True,
            return_dict_in_generate=True,
            # Ordinary hooks are skipped silently by compiled code; --compile records in another way.
            disable_compile=not self.compile,
            **more,
        )


def _compilation(loaded: LoadedModel) -> CompileConfig:
    # CUDA graphs, the default mode, are for GPUs. transformers' own annotations leave both None and bool out.
    config = CompileConfig() if loaded.model.device.type == "cuda" else CompileConfig(mode=None)  # type: ignore[arg-type]
    # Without it, transformers leaves the CPU out without a word.
    config._compile_all_devices = True  # type: ignore[assignment]
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a large {type(value).__name__}"
