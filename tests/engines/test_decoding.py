"""Decoding parameters: each impossible combination has its sentence, and what is asked is what transformers gets."""

import json
import math

import pytest

from moeprobe.engines import Decoding
from moeprobe.errors import MoeprobeError
from moeprobe.models import LoadedModel

LEAST = "--max-new-tokens, --samples, --batch-size and --beams must be at least 1"
SEARCH = "--beams is a search of its own; leave --sample, --prompt-lookup, --assistant and --stop out"
DRAFTS = "Drafting needs the dynamic cache and a whole prompt at once"
IMPOSSIBLE = [
    ({"max_new_tokens": 0}, LEAST),
    ({"samples": 0}, LEAST),
    ({"batch_size": 0}, LEAST),
    ({"beams": 0}, LEAST),
    ({"prefill_chunk": -1}, "must not be negative"),
    ({"prompt_lookup": -1}, "must not be negative"),
    ({"seed": -1}, "must not be negative"),
    ({"samples": 2}, "Greedy decoding gives the same text each time; --samples above 1 needs --sample"),
    ({"temperature": 0.5}, "--temperature and --top-p only act when tokens are drawn; add --sample"),
    ({"top_p": 0.5}, "--temperature and --top-p only act when tokens are drawn; add --sample"),
    ({"sample": True, "temperature": 0}, r"--temperature must be at least 0\.001"),
    ({"sample": True, "temperature": 1e-320}, r"--temperature must be at least 0\.001"),
    ({"sample": True, "temperature": math.nan}, "--temperature must be a finite number, but it is nan"),
    ({"sample": True, "temperature": math.inf}, "--temperature must be a finite number, but it is inf"),
    ({"sample": True, "temperature": 10**5000}, "--temperature must be a finite number, but it is a large int"),
    ({"sample": True, "temperature": "0.7"}, "--temperature must be a finite number, but it is '0.7'"),
    ({"sample": True, "temperature": True}, "--temperature must be a finite number, but it is True"),
    ({"sample": True, "top_p": math.nan}, "--top-p must be a finite number, but it is nan"),
    ({"max_new_tokens": 2.5}, r"--max-new-tokens must be a whole number, but it is 2\.5"),
    ({"max_new_tokens": math.nan}, "--max-new-tokens must be a whole number"),
    ({"samples": True, "sample": True}, "--samples must be a whole number, but it is True"),
    ({"batch_size": "4"}, "--batch-size must be a whole number, but it is '4'"),
    ({"seed": 1.0}, r"--seed must be a whole number, but it is 1\.0"),
    ({"sample": "no"}, "sample must be True or False, but it is 'no'"),
    ({"assistant": None}, "--assistant must be a text, but it is None"),
    ({"stop": "abc"}, "stop must be a tuple of texts, but it is 'abc'"),
    ({"stop": ("a", 3)}, "stop must be a tuple of texts"),
    ({"sample": True, "top_p": 0}, r"--top-p in \(0, 1\]"),
    ({"sample": True, "top_p": 1.1}, r"--top-p in \(0, 1\]"),
    ({"stop": ("a", "")}, "--stop needs a text; an empty one would end every generation at once"),
    ({"cache": "paged"}, "There is no cache 'paged'. Choose one of dynamic, static"),
    ({"compile": True}, "--compile needs fixed shapes; add --cache static"),
    ({"beams": 2, "sample": True}, SEARCH),
    ({"beams": 2, "prompt_lookup": 3}, SEARCH),
    ({"beams": 2, "assistant": "small"}, SEARCH),
    ({"beams": 2, "stop": ("a",)}, SEARCH),
    ({"beams": 2, "cache": "static", "compile": True}, "compiles no beam search; leave --compile or --beams out"),
    ({"beams": 2, "samples": 3}, "2 beams give at most 2 samples; lower --samples"),
    ({"prompt_lookup": 3, "cache": "static"}, DRAFTS),
    ({"assistant": "small", "prefill_chunk": 4}, DRAFTS),
    ({"assistant": "small", "prompt_lookup": 3}, "Drafts come from --prompt-lookup or from --assistant, not from both"),
]


@pytest.mark.parametrize(("options", "message"), IMPOSSIBLE, ids=[ascii([*one[0]]) for one in IMPOSSIBLE])
def test_impossible_combinations(options: dict[str, object], message: str) -> None:
    with pytest.raises(MoeprobeError, match=message) as caught:
        Decoding(**options)  # type: ignore[arg-type]
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    "options",
    [
        {"sample": True, "samples": 3, "temperature": 0.7, "top_p": 0.9, "stop": ("a", "b")},
        {"sample": True, "temperature": 1e-3, "top_p": 1e-320},
        {"sample": True, "temperature": 2, "top_p": 1},
        {"beams": 3, "samples": 3, "prefill_chunk": 4},
        {"beams": 2, "cache": "static"},
        {"cache": "static", "compile": True, "sample": True, "prefill_chunk": 2},
        {"prompt_lookup": 3, "sample": True, "samples": 2, "stop": ("a",)},
        {"assistant": "small", "stop": ("a",)},
    ],
)
def test_possible_combinations(options: dict[str, object], compiled: LoadedModel) -> None:
    decoding = Decoding(**options)  # type: ignore[arg-type]
    assert json.loads(json.dumps(decoding.to_json())) == decoding.to_json()
    assert Decoding(**{**decoding.to_json(), "stop": tuple(decoding.stop)}) == decoding
    config = decoding.config(compiled)
    assert config.max_new_tokens == 64
    assert config.do_sample == decoding.sample
    assert config.eos_token_id == sorted(compiled.end_tokens)
    assert config.repetition_penalty == 1.0
    assert (config.num_beams or 1, config.num_return_sequences or 1) == (
        (decoding.beams, decoding.samples) if decoding.beams > 1 else (1, 1)
    )
    assert (config.cache_implementation == "static") == (decoding.cache == "static")
    assert config.prefill_chunk_size == (decoding.prefill_chunk or None)
    assert (config.prompt_lookup_num_tokens or 0) == decoding.prompt_lookup
    assert config.disable_compile == (not decoding.compile)
    if decoding.sample:
        assert (config.temperature, config.top_p, config.top_k) == (decoding.temperature, decoding.top_p, 0)


def test_ordinary_hooks_never_meet_compiled_code(compiled: LoadedModel) -> None:
    """On a GPU, transformers compiles decoding with a static cache by itself."""
    assert Decoding(cache="static").config(compiled).disable_compile is True
    asked = Decoding(cache="static", compile=True).config(compiled)
    assert asked.disable_compile is False
    assert asked.compile_config._compile_all_devices is True
