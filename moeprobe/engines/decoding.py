"""How text is generated: the decoding parameters, checked once."""

from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

from moeprobe.errors import MoeprobeError
from moeprobe.models import LoadedModel


@dataclass(frozen=True)
class Decoding:
    """Decoding parameters. What stands here is what is used; a model's own sampling defaults are not.

    Attributes:
        max_new_tokens: most tokens to generate per sample.
        sample: draw from the distribution (True) or take the most likely token (False, greedy).
        temperature, top_p: only with `sample`; 1.0 leaves the model's distribution as it is.
        samples: generations per prompt; more than one needs `sample`.
        seed: of the random draws. Each batch draws from its own stream, (seed, batch number).
        batch_size: sequences per batch, padded on the left.

    Raises:
        MoeprobeError: an impossible combination.
    """

    max_new_tokens: int = 64
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.samples < 1 or self.batch_size < 1:
            raise MoeprobeError("--max-new-tokens, --samples and --batch-size must be at least 1.")
        if self.samples > 1 and not self.sample:
            raise MoeprobeError("Greedy decoding gives the same text each time; --samples above 1 needs --sample.")
        if not self.sample and (self.temperature != 1.0 or self.top_p != 1.0):
            raise MoeprobeError("--temperature and --top-p only act when tokens are drawn; add --sample.")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise MoeprobeError("--temperature must be above 0 and --top-p in (0, 1].")

    def to_json(self) -> dict[str, Any]:
        """The parameters as the manifest keeps them."""
        return dict(vars(self))

    def config(self, loaded: LoadedModel) -> GenerationConfig:
        """transformers' form of these parameters, with the model's own end tokens."""
        drawn: dict[str, Any] = (
            {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0} if self.sample else {}
        )
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.sample,
            eos_token_id=sorted(loaded.end_tokens) or None,
            pad_token_id=loaded.pad_token,
            repetition_penalty=1.0,
            use_cache=True,
            # Hooks are skipped silently by compiled code.
            disable_compile=True,
            **drawn,
        )
