"""The 72 families of transformers 5.23 that route experts, each built tiny from its config alone.

`build(family)` shrinks the default config by one table of sizes, applied to every sub-config, and a small set of
changes per family where a default is missing, or where two sizes must fit each other.
"""

import warnings
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

LAYERS = 4
EXPERTS = 8
TOP_K = 2
VOCABULARY = 96
CONTEXT = 256

# Family -> the class that is built. For multimodal families without a causal class this is the whole model.
CLASSES = {
    "afmoe": "AfmoeForCausalLM",
    "aria": "AriaTextForCausalLM",
    "axk1": "AXK1ForCausalLM",
    "axk2": "AXK2ForCausalLM",
    "bailing_hybrid": "BailingHybridForCausalLM",
    "beam": "BeamForCausalLM",
    "cohere2_moe": "Cohere2MoeForCausalLM",
    "dbrx": "DbrxForCausalLM",
    "deepseek_ocr2": "DeepseekOcr2ForConditionalGeneration",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM",
    "deepseek_v4": "DeepseekV4ForCausalLM",
    "diffusion_gemma": "DiffusionGemmaForBlockDiffusion",
    "doge": "DogeForCausalLM",
    "dots1": "Dots1ForCausalLM",
    "dots3_note": "Dots3NoteForCausalLM",
    "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
    "ernie4_5_vl_moe": "Ernie4_5_VLMoeForConditionalGeneration",
    "exaone_moe": "ExaoneMoeForCausalLM",
    "flex_olmo": "FlexOlmoForCausalLM",
    "flint": "FlintForCausalLM",
    "gemma4": "Gemma4ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
    "glm4v_moe": "Glm4vMoeForConditionalGeneration",
    "glm5_next": "Glm5NextForConditionalGeneration",
    "glm_moe_dsa": "GlmMoeDsaForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM",
    "granitemoe_swa": "GraniteMoeSWAForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "granitemoeshared": "GraniteMoeSharedForCausalLM",
    "hunyuan_v1_moe": "HunYuanMoEV1ForCausalLM",
    "hy_v3": "HYV3ForCausalLM",
    "hy_v4": "HYV4ForCausalLM",
    "inkling": "InklingForCausalLM",
    "inkling2": "Inkling2ForCausalLM",
    "jamba": "JambaForCausalLM",
    "jetmoe": "JetMoeForCausalLM",
    "kimi_linear": "KimiLinearForCausalLM",
    "kolibri1": "Kolibri1ForCausalLM",
    "laguna": "LagunaForCausalLM",
    "lfm2_moe": "Lfm2MoeForCausalLM",
    "llama4": "Llama4ForCausalLM",
    "longcat_flash": "LongcatFlashForCausalLM",
    "mellum": "MellumForCausalLM",
    "mimo_v2_flash": "MiMoV2FlashForCausalLM",
    "minimax": "MiniMaxForCausalLM",
    "minimax_m2": "MiniMaxM2ForCausalLM",
    "minimax_m3_vl": "MiniMaxM3VLForCausalLM",
    "mistral4": "Mistral4ForCausalLM",
    "mistral_large4": "MistralLarge4ForConditionalGeneration",
    "mixtral": "MixtralForCausalLM",
    "muse_spark": "MuseSparkForConditionalGeneration",
    "nemotron_h": "NemotronHForCausalLM",
    "nllb_moe": "NllbMoeForConditionalGeneration",
    "olmoe": "OlmoeForCausalLM",
    "openai_privacy_filter": "OpenAIPrivacyFilterModel",
    "phimoe": "PhimoeForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_5_moe": "Qwen3_5MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen4_exp": "Qwen4ExpForCausalLM",
    "solar_open": "SolarOpenForCausalLM",
    "step3p7": "Step3p7ForConditionalGeneration",
    "switch_transformers": "SwitchTransformersForConditionalGeneration",
    "unlimited_ocr": "UnlimitedOcrForConditionalGeneration",
    "zaya": "ZayaForCausalLM",
}
FAMILIES = list(CLASSES)

_WIDTHS = ("hidden_size", "d_model", "intermediate_size", "ffn_hidden_size", "dense_intermediate_size", "d_ff",
           "intermediate_size_mlp", "encoder_ffn_dim", "decoder_ffn_dim", "out_hidden_size", "moe_hidden_size",
           "projector_hidden_size", "projection_intermediate_size", "output_dim", "downsample_hidden_size")  # fmt: skip
_NARROW = ("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size", "q_lora_rank",
           "shared_intermediate_size", "kv_lora_rank", "shared_experts_intermediate_size", "o_lora_rank",
           "moe_shared_expert_intermediate_size", "share_expert_dim", "index_head_dim", "router_hidden_size",
           "ssm_state_size", "mamba_d_state")  # fmt: skip
_HEADS = ("num_attention_heads", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
          "swa_num_attention_heads", "linear_num_heads", "linear_num_value_heads", "num_sliding_attention_heads",
          "mamba_num_heads", "mamba_n_heads")  # fmt: skip
_FEW = ("num_key_value_heads", "swa_num_key_value_heads", "linear_num_key_heads", "index_n_heads", "o_groups",
        "kv_n_heads", "num_global_key_value_heads")  # fmt: skip
_EIGHT = ("head_dim", "d_kv", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_head_dim",
          "linear_key_head_dim", "linear_value_head_dim", "swa_head_dim", "mamba_head_dim", "kv_channels",
          "swa_v_head_dim", "global_head_dim")  # fmt: skip
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOICES = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k", "top_k_experts")
_DEPTHS = ("num_hidden_layers", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
SIZES: dict[str, int] = {
    **dict.fromkeys(_WIDTHS, 32),
    **dict.fromkeys(_NARROW, 16),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_FEW, 2),
    **dict.fromkeys(_EIGHT, 8),
    **dict.fromkeys(_COUNTS, EXPERTS),
    **dict.fromkeys(_CHOICES, TOP_K),
    **dict.fromkeys(_DEPTHS, LAYERS),
    "qk_head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "max_seq_len": CONTEXT,
    "model_max_length": CONTEXT,
    "index_topk": CONTEXT,
    "sliding_window": CONTEXT,
    "sliding_window_size": CONTEXT,
    "n_group": 2,
    "num_expert_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "depth": 1,
    "num_nextn_predict_layers": 0,
}
# Standard deviation of matrices. Nemotron-H's state-space layers and LongCat's scale of 6 amplify rounding.
GAIN, GAINS = 0.25, {"nemotron_h": 0.1, "longcat_flash": 0.15}
# Sizes that are set even where the default is None.
_ALWAYS = {"num_experts_per_tok", "top_k_experts", "num_experts", "moe_intermediate_size"}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": VOCABULARY - 1}

# Models with more than one stack of experts, beyond the 72: the whole of Dots 3 Note and Qwen3-Omni.
SEVERAL_STACKS: dict[str, dict[str, Any]] = {
    "Dots3NoteForConditionalGeneration": {
        "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    # The talker's config class lacks what its model reads.
    "Qwen3OmniMoeForConditionalGeneration": {
        "talker_config": {"spatial_merge_size": 2, "text_config": {"shared_expert_intermediate_size": 16}}
    },
}
_SPARSE = ["dense", *["sparse"] * (LAYERS - 1)]
_SAM = {"image_size": 64, "output_channels": 16, "downsample_channels": [16, 32], "global_attn_indexes": [0],
        "num_hidden_layers": 1}  # fmt: skip
_VIT = {"image_size": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": [0], "num_hidden_layers": 1,
        "layer_types": None, "pos_emb_height": 4, "pos_emb_width": 4}  # fmt: skip
_SLIDING = {"num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16,
            "head_dim": 16, "qk_nope_head_dim": 8, "v_head_dim": 8}  # fmt: skip
# Where a default is missing, sizes must fit one another, or a size goes by another name.
CHANGES: dict[str, dict[str, Any]] = {
    "cohere2_moe": {"num_shared_experts": 1},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0}},
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": _SPARSE},
        "vision_config": {"sam_config": _SAM, "encoder_config": {"num_hidden_layers": 1, "layer_types": None}},
    },
    "deepseek_v2": {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1},
    "diffusion_gemma": {"text_config": {"head_dim": 8, "global_head_dim": 8}, "canvas_length": 16},
    "doge": {"is_moe": True, "num_experts": 16},
    "dots1": {"n_routed_experts": EXPERTS, "n_shared_experts": 1},
    "dots3_note": {f"swa_{name}": size for name, size in _SLIDING.items()},
    "ernie4_5_vl_moe": {
        "text_config": {
            "moe_intermediate_size": [16, 8],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        }
    },
    "gemma4": {"enable_moe_block": True, "global_head_dim": 8, "vocab_size_per_layer_input": VOCABULARY,
               "hidden_size_per_layer_input": 8},
    "glm4v_moe": {
        "text_config": {
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
                                "mrope_section": [1, 1, 2]},
        }
    },
    "glm5_next": {"text_config": {"qk_rope_head_dim": 0, "index_kpool": 4}},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * (LAYERS // 2)},
    "hunyuan_v1_moe": {"moe_topk": 1, "head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 0, "mamba_dt_rank": 8},
    # Scales that some blocks apply after the experts stand at 1 by default.
    "laguna": {"moe_routed_scaling_factor": 1.5},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "longcat_flash": {"zero_expert_num": 4},
    "mistral4": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.1,
                            "original_max_position_embeddings": 256},
    },
    "muse_spark": {"audio_config": {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}},
    "nemotron_h": {"n_groups": 2, "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"]},
    "qwen3_omni_moe": {"vision_start_token_id": 92},
    "qwen4_exp": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64,
                  "indexer_compress_ratio": 4, "hc_lowrank": 8},
    "step3p7": {"vision_config": _VIT, "text_config": {"sliding_window": CONTEXT, "moe_router_scaling_factor": 1.5}},
    "unlimited_ocr": {"vision_config": {"sam_config": _SAM, "encoder_config": {"num_hidden_layers": 1}}},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
SEVERAL_STACKS["Dots3NoteForConditionalGeneration"]["text_config"] = CHANGES["dots3_note"]


def build(family: str) -> PreTrainedModel:
    """The family at tiny size: float32, eval mode, eager experts, the same weights every time."""
    return build_class(CLASSES[family], CHANGES.get(family, {}), GAINS.get(family, GAIN))


def build_class(name: str, changes: dict[str, Any], gain: float = GAIN) -> PreTrainedModel:
    """A model class of transformers at tiny size."""
    torch.manual_seed(20_000)
    cls = getattr(transformers, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = shrink(cls.config_class, changes)
        model: PreTrainedModel = cls._from_config(config, dtype=torch.float32, experts_implementation="eager")
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
    spread(model, gain)
    return model.eval()


def spread(model: PreTrainedModel, gain: float) -> None:
    """Make the untrained model's parts matter: at the default scale of 0.02 every layer is nearly the identity, all
    router scores nearly tie, and biases, scales and hash tables stand at 0 or 1, where a mistake cannot be seen."""
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("balancing_biases"):  # zaya: its last class, "skip", stands at -1 and would never win
                tensor.copy_(0.1 * torch.randn(len(tensor), generator=chance))
            elif name.endswith("tid2eid"):  # deepseek_v4: expert ids by token id, k different ones
                tensor.copy_(torch.rand(len(tensor), EXPERTS, generator=chance).argsort(1)[:, : tensor.shape[1]])
            elif not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            elif tensor.dim() >= 2 and 0 < float(tensor.std()) < 0.06:
                tensor.mul_(gain / tensor.std())
            elif isinstance(tensor, torch.nn.Parameter) or "bias" in name:
                first = tensor.flatten()[0]
                if float(first) in (0, 1) and bool((tensor == first).all()):
                    tensor.add_(torch.randn(tensor.shape, generator=chance), alpha=0.1)


def shrink(cls: type[PretrainedConfig], changes: dict[str, Any]) -> PretrainedConfig:
    """A config of class `cls` with the sizes above; `changes` has the last word, sub-configs by their name."""
    default = cls()
    facts = default.to_dict()
    small: dict[str, Any] = {
        name: size
        for name, size in SIZES.items()
        if name in facts and (name in _ALWAYS or isinstance(facts[name], int)) and not isinstance(facts[name], bool)
    }
    if facts.get("num_key_value_heads") == facts.get("num_attention_heads"):
        small["num_key_value_heads"] = SIZES["num_attention_heads"]
    small |= {name: token for name, token in TOKENS.items() if name in facts}
    depth = next((facts[name] for name in _DEPTHS if isinstance(facts.get(name), int)), None)
    for name, value in facts.items():
        if isinstance(value, list) and depth is not None and len(value) == depth and depth > LAYERS:
            small[name] = thin(name, value)
    changes = dict(changes)
    for name in getattr(cls, "sub_configs", {}):
        sub = getattr(default, name, None)
        if isinstance(sub, PretrainedConfig):
            small[name] = shrink(type(sub), changes.pop(name, {})).to_dict()
    return cls(**(small | changes))


def thin(name: str, values: list[Any]) -> list[Any]:
    """A list with one entry per layer, shortened to `LAYERS` so that every kind of layer still occurs."""
    kinds = list(dict.fromkeys(values))
    if name.startswith("mlp"):
        return [kinds[0], *[kinds[-1]] * (LAYERS - 1)]
    if name in ("moe_layers", "kv_source_layers"):
        return list(range(LAYERS))
    return [kinds[layer % len(kinds)] for layer in range(LAYERS)]
