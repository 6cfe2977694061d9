"""A run with transformers: prompts + model -> trace."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import moeprobe
from moeprobe.capture import ExpertsSite, LayerRouting, find_experts
from moeprobe.engines.batch import Job, assemble, generate_batch
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.encode import encode_prompt, tokenizer_section
from moeprobe.errors import ModelError, PromptError
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.prompts import Prompt, digest
from moeprobe.trace import LayerInfo, Manifest, ShardData, Trace, TraceWriter, load_trace

# Called after each batch with (generations done, generations in all, tokens generated so far).
Progress = Callable[[int, int, int], None]


def record(
    loaded: LoadedModel,
    prompts: list[Prompt],
    out: str | Path,
    *,
    decoding: Decoding | None = None,
    raw: bool = False,
    source: str = "Python",
    force: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """Generate for every prompt, record each routing decision, and write the trace.

    Args:
        loaded: model and tokenizer from `moeprobe.load_model`.
        prompts: from `moeprobe.prompts.read_prompts`, or made by hand.
        out: directory of the trace.
        decoding: decoding parameters; greedy with 64 new tokens by default.
        raw: do not put plain prompts through the chat template.
        source: where the prompts came from, for the manifest.
        force: replace a trace that stands at `out`.
        progress: called after each batch.

    Returns:
        The trace, opened.

    Raises:
        ModelError: no routed experts, or a context too short for prompt and answer.
        PromptError: no prompts, or a prompt that cannot be encoded.
        CaptureError: a layer did not record every row (the trace is not written).
        OutputError: `out` exists, or the disk is full.
    """
    decoding = decoding or Decoding()
    if not prompts:
        raise PromptError("There are no prompts to run.")
    sites = find_experts(loaded.model)
    jobs = _jobs(loaded, prompts, decoding, raw)
    made, sums, base = 0, WeightSums(), _manifest(loaded, prompts, decoding, raw=raw, source=source)
    with TraceWriter(Path(out), force=force) as writer:
        for number, batch in enumerate(_batches(jobs, decoding.batch_size)):
            tokens, routing = generate_batch(loaded, sites, batch, decoding, number=number)
            data, generations = assemble(
                loaded, batch, tokens, routing, first_index=writer.generations, shard=len(writer.shards)
            )
            sums.add(data)
            layers = tuple(layer_info(site, routing[site.layer], sums) for site in sites)
            writer.add(data, generations, replace(base, layers=layers))
            made += sum(generation.generated for generation in generations)
            if progress is not None:
                progress(writer.generations, len(jobs), made)
        writer.finish()
    return load_trace(out)


@dataclass
class WeightSums:
    """Mean over recorded tokens of the sum of a token's gate weights, by layer, batch after batch."""

    total: dict[int, float] = field(default_factory=dict)
    rows: int = 0

    def add(self, data: ShardData) -> None:
        """Add the rows of one shard."""
        self.rows += data.rows
        for layer, routing in data.routing.items():
            self.total[layer] = self.total.get(layer, 0.0) + float(routing.weights.sum(dtype=np.float64))

    def mean(self, layer: int) -> float:
        """The mean so far."""
        return round(self.total[layer] / self.rows, 6)


def layer_info(site: ExpertsSite, routing: LayerRouting, sums: WeightSums) -> LayerInfo:
    """What the manifest says of a layer; k and the weight sum are read from what was recorded."""
    return LayerInfo(
        layer=site.layer,
        experts=site.experts,
        k=routing.experts.shape[-1],
        weight_sum=sums.mean(site.layer),
        shared=site.shared,
        module=site.path,
    )


def _jobs(loaded: LoadedModel, prompts: list[Prompt], decoding: Decoding, raw: bool) -> list[Job]:
    limit = loaded.positions
    jobs: list[Job] = []
    for prompt in prompts:
        ids = encode_prompt(loaded.tokenizer, prompt, raw=raw)
        if limit is not None and len(ids) + decoding.max_new_tokens > limit:
            raise ModelError(
                f"Prompt {prompt.id!r} has {len(ids)} tokens; with {decoding.max_new_tokens} new ones that is more "
                f"than the model's {limit} positions. Shorten it or lower --max-new-tokens."
            )
        jobs.extend(Job(prompt, sample, ids) for sample in range(decoding.samples))
    return jobs


def _batches(jobs: list[Job], size: int) -> Iterator[list[Job]]:
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def _manifest(loaded: LoadedModel, prompts: list[Prompt], decoding: Decoding, *, raw: bool, source: str) -> Manifest:
    """The manifest without layers and shards, which are known once the first batch is recorded."""
    return Manifest(
        layers=(),
        shards=(),
        generations=0,
        rows=0,
        generations_sha256="",
        complete=False,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        moeprobe=moeprobe.__version__,
        model=loaded.provenance,
        tokenizer=tokenizer_section(loaded.tokenizer, raw=raw),
        decoding={**decoding.to_json(), "end_tokens": sorted(loaded.end_tokens)},
        engine=engine_section(loaded.model),
        versions=versions_section(),
        prompts={"source": source, "count": len(prompts), "digest": digest(prompts)},
    )
