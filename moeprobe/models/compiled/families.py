"""The five model families the compiled model can wear, and what each one's architecture asks of the weights.

Only transformers' own classes are used. A family differs in its config, in the norms of queries and keys, in whether a
norm's weight means `weight` or `1 + weight`, in an output gate on attention, and in shared experts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from moeprobe.errors import ModelError
from moeprobe.models.compiled.truth import TRUTH
from moeprobe.models.compiled.vocabulary import BOS, EOS, PAD, VOCABULARY

HIDDEN = 64
HEADS = 4
HEAD_DIM = HIDDEN // HEADS
EXPERT_WIDTH = 4

_ROPE_THETA = 1_000_000.0


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        config_class: transformers' config class.
        model_class: transformers' causal language model class.
        options: config entries beyond the common ones.
        norm_offset: what a norm adds to its weight (1 where the model multiplies by `1 + weight`).
        query_norm: number of features a query is normalised over, None where there is no such norm.
        key_norm: the same for a key.
        output_gate: whether attention's output is multiplied by sigmoid of a gate packed into the query projection.
        own_tokenizer: whether `AutoTokenizer` insists on the family's tokenizer whatever a directory says.
    """

    config_class: Callable[..., PreTrainedConfig]
    model_class: type[PreTrainedModel]
    options: dict[str, Any] = field(default_factory=dict)
    norm_offset: float = 0.0
    query_norm: int | None = None
    key_norm: int | None = None
    output_gate: bool = False
    own_tokenizer: bool = False


_SHARED = {"moe_intermediate_size": EXPERT_WIDTH, "shared_expert_intermediate_size": EXPERT_WIDTH}
_FAMILIES = {
    "qwen3_moe": Family(
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        {"moe_intermediate_size": EXPERT_WIDTH, "head_dim": HEAD_DIM, "norm_topk_prob": True, "mlp_only_layers": []},
        query_norm=HEAD_DIM,
        key_norm=HEAD_DIM,
    ),
    # The default of OLMoE, weights that do not sum to 1, is kept: a model with such weights has to be in the set.
    "olmoe": Family(OlmoeConfig, OlmoeForCausalLM, query_norm=HIDDEN, key_norm=HEAD_DIM),
    "mixtral": Family(MixtralConfig, MixtralForCausalLM, {"head_dim": HEAD_DIM}),
    "qwen2_moe": Family(Qwen2MoeConfig, Qwen2MoeForCausalLM, {**_SHARED, "mlp_only_layers": []}),
    "qwen3_5_moe": Family(
        Qwen3_5MoeTextConfig,
        Qwen3_5MoeForCausalLM,
        {**_SHARED, "head_dim": HEAD_DIM, "layer_types": ["full_attention"] * TRUTH.layers},
        norm_offset=1.0,
        query_norm=HEAD_DIM,
        key_norm=HEAD_DIM,
        output_gate=True,
        own_tokenizer=True,
    ),
}

FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
"""Names that `build` accepts."""


def family_named(name: str) -> Family:
    """Look a family up.

    Raises:
        ModelError: the compiled model has no such family; the message lists those it has.
    """
    if name not in _FAMILIES:
        raise ModelError(f"The compiled model has no family {name!r}. Choose one of: {', '.join(FAMILIES)}.")
    return _FAMILIES[name]


def empty_model(family: Family) -> PreTrainedModel:
    """The family's model with every norm neutral and every other parameter zero, in float32 on the CPU."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": _ROPE_THETA}
    if family.output_gate:
        rope["partial_rotary_factor"] = 0.25
    expert_count = "num_local_experts" if family.config_class is MixtralConfig else "num_experts"
    config = family.config_class(
        vocab_size=len(VOCABULARY),
        hidden_size=HIDDEN,
        num_hidden_layers=TRUTH.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=1,
        num_experts_per_tok=TRUTH.top_k,
        max_position_embeddings=2048,
        # A variance of exactly 4 stays 4 in float32 beside this, so normalised features are exact (see construction).
        rms_norm_eps=1e-8,
        tie_word_embeddings=False,
        rope_parameters=rope,
        pad_token_id=VOCABULARY[PAD],
        bos_token_id=VOCABULARY[BOS],
        eos_token_id=VOCABULARY[EOS],
        **{expert_count: TRUTH.experts, "intermediate_size": EXPERT_WIDTH, **family.options},
    )
    # grouped_mm and batched_mm are far slower on a CPU.
    model_class: Any = family.model_class  # _from_config has no annotations
    model: PreTrainedModel = model_class._from_config(config, experts_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = name.rsplit(".", 2)[-2].endswith("norm")
            parameter.fill_(1.0 - family.norm_offset if is_norm else 0.0)
    return model


def write_attention(
    family: Family, attention: torch.nn.Module, reads: int, marks: int, writes: dict[int, float]
) -> None:
    """Make head 0 look from the residual feature `reads` for positions that carry `marks`, and copy the mark.

    Every position asks with the same query; marked positions answer with a score 64 above the others, so that softmax
    gives them all the weight, exactly, in float32. The feature used is the last of the head: the slowest of the rotary
    pairs (or not rotated at all under partial rotation), which turns by less than 0.012 over 2,048 positions.

    Args:
        family: the architecture `attention` belongs to.
        attention: an all-zero attention module of the family.
        reads: residual index whose normalised value is 4 at every position.
        marks: residual index whose normalised value is 2 at marked positions and 0 elsewhere.
        writes: residual index -> what a marked context adds there.
    """
    parts: Any = attention
    last, strength = HEAD_DIM - 1, 16.0  # strength ** 2 / sqrt(HEAD_DIM) = 64
    parts.q_proj.weight[last, reads] = strength / 4
    parts.k_proj.weight[last, marks] = strength / 2
    # A norm over n features makes the only one that is not 0 equal to sqrt(n).
    if family.query_norm is not None:
        parts.q_norm.weight.fill_(strength / family.query_norm**0.5 - family.norm_offset)
    if family.key_norm is not None:
        parts.k_norm.weight.fill_(strength / family.key_norm**0.5 - family.norm_offset)
    parts.v_proj.weight[0, marks] = 1.0
    gate = 0.5 if family.output_gate else 1.0  # sigmoid(0), the gate's rows being 0
    for index, amount in writes.items():
        parts.o_proj.weight[index, 0] = amount / (2.0 * gate)
