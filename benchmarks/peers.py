"""Other tools doing the same job, where they are installed: in an environment of their own (docs/benchmarks.md)."""

import importlib.metadata
import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.ways import Routing, Way


class Nnsight(Way):
    """nnsight: one `trace` per forward, reading the inputs of every experts module (`tracer.cache` takes as long)."""

    name = "nnsight"
    records = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        import nnsight

        self.nnsight = nnsight
        self.traced = nnsight.NNsight(model)
        self.experts = [layer.mlp.experts for layer in self.traced.model.layers]
        self.kept: list[list[tuple[tuple[Tensor, ...], dict[str, Any]]]] = []

    def step(self, ids: Tensor, cache: Any) -> Any:
        options = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        experts, nnsight, traced = self.experts, self.nnsight, self.traced
        with traced.trace(input_ids=ids, **options) as tracer:
            seen = nnsight.save([one.inputs for one in experts])
            output = nnsight.save(tracer.result)
        self.kept.append(seen)
        return output.past_key_values

    def generate(self, ids: Tensor, tokens: int) -> object:
        experts, nnsight, traced = self.experts, self.nnsight, self.traced
        with traced.trace(ids, fn=self.model.generate, max_new_tokens=tokens, do_sample=False) as tracer:
            seen = nnsight.save([])
            for _ in tracer.iter[0:tokens]:
                seen.append([one.inputs for one in experts])
        self.kept.extend(seen)
        return self.finish()

    def finish(self) -> Routing:
        done: Routing = {}
        for layer, parts in enumerate(zip(*self.kept, strict=True)):
            ids = torch.cat([args[1] for args, _ in parts])
            weights = torch.cat([args[2] for args, _ in parts])
            done[layer] = (ids.cpu().numpy(), weights.float().cpu().numpy())
        self.kept.clear()
        return done


class TransformerLens(Way):
    """TransformerLens' bridge around the same weights, with its `hook_expert_indices` and `hook_expert_weights` (the
    latter is spread over all experts; the chosen ones are picked out at the end)."""

    name = "TransformerLens"
    records = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        self.bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
        self.layers = int(model.config.num_hidden_layers)
        self.kept: dict[str, list[Tensor]] = {}

    def __enter__(self) -> "TransformerLens":
        self.kept = {name: [] for name in self.names()}
        for name, parts in self.kept.items():
            self.bridge.add_hook(name, _keeps(parts))
        return self

    def __exit__(self, *error: object) -> None:
        self.bridge.reset_hooks()

    def names(self) -> list[str]:
        return [
            f"blocks.{layer}.mlp.gate.hook_expert_{kind}"
            for layer in range(self.layers)
            for kind in ("indices", "weights")
        ]

    def step(self, ids: Tensor, cache: Any) -> Any:
        options = {"logits_to_keep": 1, "use_cache": True}
        _, cache = self.bridge(ids, return_type="logits_and_cache", past_key_values=cache, **options)
        return cache

    def generate(self, ids: Tensor, tokens: int) -> object:
        # What its own hf_generate calls, which asks for a tokenizer.
        self.model.generate(ids, max_new_tokens=tokens, do_sample=False)
        return self.finish()

    def finish(self) -> Routing:
        done: Routing = {}
        for layer in range(self.layers):
            stem = f"blocks.{layer}.mlp.gate.hook_expert_"
            ids = torch.cat(self.kept[f"{stem}indices"]).cpu().numpy()
            weights = torch.cat(self.kept[f"{stem}weights"]).float().cpu().numpy()
            done[layer] = (ids, np.take_along_axis(weights, ids, axis=-1))
        for parts in self.kept.values():
            parts.clear()
        return done


class BareBridge(TransformerLens):
    """The bridge with nothing recorded: what its own attention and hook points take."""

    name = "TransformerLens, recording nothing"
    records = False

    def __enter__(self) -> "BareBridge":
        return self

    def finish(self) -> Routing:
        return {}


def _keeps(parts: list[Tensor]) -> Any:
    def take(tensor: Tensor, hook: object) -> None:
        del hook
        parts.append(tensor)

    return take


_MODULES = {Nnsight: "nnsight", TransformerLens: "transformer_lens", BareBridge: "transformer_lens"}


def found() -> tuple[list[type[Way]], list[str]]:
    """The peers that are installed, and a sentence about each one that is not."""
    present = {module: importlib.util.find_spec(module) is not None for module in dict.fromkeys(_MODULES.values())}
    absent = [
        f"{module} is not installed in this environment, so it is not measured (docs/benchmarks.md says how)."
        for module, there in present.items()
        if not there
    ]
    return [kind for kind, module in _MODULES.items() if present[module]], absent


def versions() -> dict[str, str]:
    """Versions of the peers that are installed."""
    names = {"nnsight": "nnsight", "transformer_lens": "transformer-lens"}
    return {
        package: importlib.metadata.version(package)
        for module, package in names.items()
        if importlib.util.find_spec(module) is not None
    }
