"""A run with transformers: prompts + model -> trace."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import moeprobe
from moeprobe.capture import ExpertsSite, find_experts
from moeprobe.capture.discover import refusal
from moeprobe.chat.encode import Template, tokenizer_section
from moeprobe.engines.batch import assemble
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.jobs import Size, batches, check_disk, make_jobs, most_rows, size_of, widest
from moeprobe.engines.sequence import SequenceReader
from moeprobe.engines.session import Job, Session
from moeprobe.engines.signals import signal_infos
from moeprobe.errors import CaptureError, ModelError, PromptError
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.prompts import Prompt, digest
from moeprobe.trace import LayerInfo, Manifest, ShardData, Trace, TraceWriter, check_same_run, load_trace

# Called after each batch with (generations done, generations in all, tokens generated so far).
Progress = Callable[[int, int, int], None]
# Called once, before the first token, with how large the trace may become.
Announce = Callable[[Size], None]


def record(
    loaded: LoadedModel,
    prompts: list[Prompt],
    out: str | Path,
    *,
    decoding: Decoding | None = None,
    raw: bool = False,
    template: Template | None = None,
    source: str = "Python",
    force: bool = False,
    resume: bool = False,
    what: Sequence[str] = (),
    layers: Sequence[int] | None = None,
    assistant: LoadedModel | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Generate for every prompt, record each routing decision, and write the trace.

    Args:
        loaded: model and tokenizer from `moeprobe.load_model`.
        prompts: from `moeprobe.prompts.read_prompts`, or made by hand.
        out: directory of the trace.
        decoding: decoding parameters; greedy with 64 new tokens by default.
        raw: do not put plain prompts through the chat template.
        template: variables of the chat template, for example {"enable_thinking": False}.
        source: where the prompts came from, for the manifest.
        force: replace a trace that stands at `out`.
        what: signals beside experts and weights, for example ("margin", "residual:14"); moeprobe.capture.signals.NAMES.
        layers: record only these layers of the main stack (and of others of the same number); all by default.
        resume: go on with an interrupted run (`OUT.partial`) of the same prompts, model, decoding and versions; start
            one if there is none; leave a trace that is complete as it is.
        assistant: the model that drafts tokens, named in `decoding.assistant`; its own routing is not recorded.
        announce: called before the first token with the size of the trace.
        progress: called after each batch.

    Returns:
        The trace, opened.

    Raises:
        ModelError: no routed experts, or a context too short for prompt and answer.
        PromptError: no prompts, or a prompt that cannot be encoded.
        CaptureError: a layer did not record every row (the trace is not written).
        OutputError: `out` exists, the interrupted run was another one, or the disk is full.
    """
    decoding = decoding or Decoding()
    _check_prompts(prompts)
    _check_traceable(loaded)
    sites = choose_layers(find_experts(loaded.model), layers)
    tokenizer = tokenizer_section(loaded.tokenizer, raw=raw, template=template)
    engine = _engine(loaded, decoding, sites, assistant)
    base = _manifest(loaded, prompts, decoding, what, tokenizer, engine, source)
    finished = _finished(Path(out), base) if resume else None
    if finished is not None:
        return finished
    jobs = make_jobs(loaded, prompts, decoding, raw=raw, template=template)
    reader = SequenceReader(loaded, decoding, raw=raw, template=template)
    session = Session(
        loaded, sites, decoding, what, rows=most_rows(jobs, decoding), width=widest(jobs), assistant=assistant
    )
    size = size_of(loaded, [site.name for site in sites], jobs, decoding, what)
    if announce is not None:
        announce(size)
    with TraceWriter(Path(out), force=force, resume=resume) as writer, session:
        base = writer.continue_as(base)
        check_disk(Path(out), size, writer.generations)
        _write(writer, session, reader, jobs, lambda data: _described(base, sites, data), progress)
        writer.finish()
    return load_trace(out)


def choose_layers(sites: list[ExpertsSite], layers: Sequence[int] | None) -> list[ExpertsSite]:
    """The sites of some layers, or all.

    Raises:
        CaptureError: a layer that has no routed experts.
    """
    if layers is None:
        return sites
    if not layers:
        raise CaptureError("No layer was chosen, so there is nothing to record. Name at least one.")
    missing = sorted(set(layers) - {site.layer for site in sites})
    if missing:
        have = ", ".join(site.name for site in sites)
        raise CaptureError(f"L{missing[0]} has no routed experts that could be recorded. They are in {have}.")
    return [site for site in sites if site.layer in set(layers)]


def _check_prompts(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise PromptError("There are no prompts to run.")
    repeated = [name for name, times in Counter(prompt.id for prompt in prompts).items() if times > 1]
    if repeated:
        raise PromptError(f"{len(repeated)} prompt ids stand twice, first {repeated[0]!r}. Give each its own.")


def _check_traceable(loaded: LoadedModel) -> None:
    reason = refusal(loaded.model)
    if reason is not None:
        raise ModelError(reason)


def _engine(
    loaded: LoadedModel, decoding: Decoding, sites: Sequence[ExpertsSite], assistant: LoadedModel | None
) -> dict[str, Any]:
    drafts = None if assistant is None else assistant.provenance
    engine = engine_section(loaded.model, cache=decoding.cache, assistant=drafts)
    # Which layers were asked for is known before the first batch: going on with others must be refused.
    return {**engine, "layers": [site.name for site in sites]}


def _write(
    writer: TraceWriter,
    session: Session,
    reader: SequenceReader,
    jobs: list[Job],
    described: Callable[[ShardData], Manifest],
    progress: Progress | None,
) -> None:
    """Generate and write all batches that the writer does not hold yet."""
    made = 0
    for number, batch in enumerate(batches(jobs, session.decoding)):
        if number < writer.batches:
            continue
        output = session.generate(batch, number=number)
        data, generations = assemble(reader, output, first_index=writer.generations)
        writer.add(data, generations, described(data))
        made += sum(generation.generated for generation in generations)
        if progress is not None:
            progress(writer.generations, len(jobs), made)


def _described(base: Manifest, sites: list[ExpertsSite], data: ShardData) -> Manifest:
    """The manifest with what the first batch shows: k, and the shape of each signal."""
    recorded = [site for site in sites if site.name in data.routing]
    several = len({site.stack for site in recorded}) > 1
    return replace(
        base,
        layers=tuple(layer_info(site, data) for site in recorded),
        signals=signal_infos(data, stacks=several),
    )


def layer_info(site: ExpertsSite, data: ShardData) -> LayerInfo:
    """What the manifest says of a layer; k is read from what was recorded, the weight sum is the writer's to fill."""
    name = site.name
    return LayerInfo(
        layer=site.layer,
        experts=site.experts,
        k=data.routing[name].experts.shape[-1],
        weight_sum=0.0,
        shared=site.shared,
        module=site.path,
        stack=site.stack,
    )


def _finished(out: Path, base: Manifest) -> Trace | None:
    """The complete trace of the same run, if it stands there already.

    Raises:
        OutputError: a trace of another run stands there.
    """
    if not (out / "run.json").is_file():
        return None
    trace = load_trace(out)
    check_same_run(trace.manifest, base, str(out))
    return trace


def _manifest(
    loaded: LoadedModel,
    prompts: list[Prompt],
    decoding: Decoding,
    what: Sequence[str],
    tokenizer: dict[str, Any],
    engine: dict[str, Any],
    source: str,
) -> Manifest:
    """The manifest without layers and shards, which are known once the first batch is recorded."""
    return Manifest(
        layers=(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        moeprobe=moeprobe.__version__,
        model=loaded.provenance,
        tokenizer=tokenizer,
        decoding={
            **decoding.to_json(),
            "end_tokens": sorted(loaded.end_tokens),
            "pad_token": loaded.pad_token,
        },
        engine=engine,
        versions=versions_section(),
        prompts={"source": source, "count": len(prompts), "digest": digest(prompts)},
        captured=tuple(dict.fromkeys(("experts", "weights", *what))),
    )
