"""Making a recorded run again, from the trace alone, and saying whether it repeats."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import moeprobe
from moeprobe.capture import ExpertsSite, Recorder, find_experts
from moeprobe.capture.signals import ALWAYS, make_taps
from moeprobe.chat.encode import tokenizer_section
from moeprobe.engines.batch import assemble
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.jobs import batches
from moeprobe.engines.recording import layer_info
from moeprobe.engines.sequence import SequenceReader
from moeprobe.engines.session import Job, Session
from moeprobe.engines.signals import signal_infos
from moeprobe.errors import CaptureError, ModelError, TraceError
from moeprobe.files import check_output
from moeprobe.models import LoadedModel, engine_section, versions_section
from moeprobe.rerun.repeats import Comparison, Divergence, Ints, LayerRows, first_difference
from moeprobe.rerun.replay import (
    BatchRows,
    Encoding,
    RecordedBatch,
    as_run,
    jobs_of,
    layer_rows,
    recorded_batches,
    same_ids_today,
    vocabulary,
)  # fmt: skip
from moeprobe.rerun.sensitive import FlagSource, choose_flags
from moeprobe.rerun.setting import Setting, compare_setting, decoding_of, put_back, token_ids
from moeprobe.rerun.verdict import Rerun
from moeprobe.trace import Generation, Manifest, ShardData, Trace, TraceWriter
from moeprobe.trace.same import check_not_read

# Called after each batch with (generations done, generations in all).
Progress = Callable[[int, int], None]
# Called once, before anything runs, with how today's setting compares.
Announce = Callable[[Setting], None]


def rerun(
    trace: Trace,
    loaded: LoadedModel,
    *,
    limit: int | None = None,
    teacher_forced: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    allow_other_model: bool = False,
    assistant: LoadedModel | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> Rerun:
    """Make a recorded run again and compare tokens and routing.

    Prompts are taken as token ids from the trace. Decoding parameters, seeds, batches and their padding are those of
    the run, so on the same machine and versions the run repeats exactly. A live rerun compares, in each generation,
    the rows up to the first token that differs: later ones saw other text.

    Args:
        trace: the run; an interrupted one is compared as far as it goes.
        loaded: the model.
        limit: compare at least this many generations, the first ones; whole batches are run.
        teacher_forced: do not generate; feed the tokens of each generation in one forward and compare every row.
        out: write the rerun as a trace of its own.
        force: replace a trace that stands at `out`.
        allow_other_model: run although the weights are known to be others.
        assistant: the model that drafts tokens, where the run had one.
        announce: called with the setting before anything runs.
        progress: called after each batch.

    Raises:
        TraceError: the trace cannot be repeated (merged runs, unknown decoding parameters, damage).
        ModelError: another model, unless allowed; or one whose layers cannot be compared at all.
        CaptureError: a layer did not record every row.
        OutputError: `out` cannot be written.
    """
    where = str(trace.path)
    _check_asked(trace, teacher_forced, out, force)
    manifest = as_run(trace.manifest)
    decoding = decoding_of(manifest.decoding, where)
    sites = matching_sites(loaded, manifest)
    _check_tokens(loaded, manifest, where)
    with put_back(loaded, manifest, where):
        setting = compare_setting(loaded, manifest, assistant)
        if announce is not None:
            announce(setting)
        if setting.weights == "other" and not allow_other_model:
            raise ModelError(
                f"{loaded.id!r} has other weights than the model of {where}: {setting.why}. Give the right one by -m, "
                "or add --allow-other-model to compare anyway."
            )
        flags = choose_flags(manifest, loaded, sites, compiled=decoding.compile)
        run = _Run(trace, loaded, decoding, sites, limit, assistant, flags)
        run = _run_through(run, teacher_forced, out, force, progress)
    return Rerun(
        trace=where, model=loaded.id, setting=setting, comparison=run.comparison, prompts=run.prompts,
        teacher_forced=teacher_forced, notes=(run.flags.note,) if run.flags.note else (),
    )  # fmt: skip


def matching_sites(loaded: LoadedModel, manifest: Manifest) -> list[ExpertsSite]:
    """The sites of the layers that a trace holds.

    Raises:
        ModelError: the model has no such layer, or another number of experts in it.
    """
    present = {site.name: site for site in find_experts(loaded.model)}
    for info in manifest.layers:
        site = present.get(info.name)
        if site is None:
            raise ModelError(
                f"The trace holds {info.name}, but {loaded.id!r} has no experts there. It is of another model; give "
                "the right one by -m."
            )
        if site.experts != info.experts:
            raise ModelError(
                f"{info.name} had {info.experts} experts, but in {loaded.id!r} it has {site.experts}. The trace is of "
                "another model; give the right one by -m."
            )
    return [present[info.name] for info in manifest.layers]


class _Run:
    """One rerun: what to record, and what has been compared so far."""

    def __init__(
        self,
        trace: Trace,
        loaded: LoadedModel,
        decoding: Decoding,
        sites: Sequence[ExpertsSite],
        limit: int | None,
        assistant: LoadedModel | None,
        flags: FlagSource,
    ) -> None:
        self.trace, self.loaded, self.decoding, self.sites = trace, loaded, decoding, sites
        self.limit, self.assistant = limit, assistant
        self.encoding = Encoding.of(loaded, trace.manifest, str(trace.path))
        self.comparison = Comparison.of(trace.manifest.layers)
        self.prompts = {"same": 0, "other": 0, "unknown": 0}
        self.flags, self.what = flags, flags.what
        self.writing = False
        self._tokenizer = tokenizer_section(loaded.tokenizer, raw=self.encoding.raw, template=self.encoding.template)

    def without_margins(self, problem: CaptureError) -> "_Run":
        """The same rerun, to be made anew without what it could not record."""
        flags = FlagSource(False, (), f"Gate-sensitive choices are not known. {problem}")
        return _Run(self.trace, self.loaded, self.decoding, self.sites, self.limit, self.assistant, flags)

    def compare(self, teacher_forced: bool, out: str | Path | None, force: bool, progress: Progress | None) -> None:
        """Fill `comparison`."""
        if teacher_forced:
            self.forced(progress)
        else:
            self.live(out, force, progress)

    def live(self, out: str | Path | None, force: bool, progress: Progress | None) -> None:
        """Generate again, batch by batch as then."""
        reader = SequenceReader(self.loaded, self.decoding, raw=self.encoding.raw, template=self.encoding.template)
        extra = self._captured() if out is not None else ()
        width, decoding = self._width(), self.decoding
        session = Session(
            self.loaded, self.sites, self.decoding, tuple(dict.fromkeys((*extra, *self.what))),
            rows=max(decoding.batch_size, decoding.beams) * (width + decoding.max_new_tokens), width=width,
            assistant=self.assistant,
        )  # fmt: skip
        with ExitStack() as stack:
            writer = None if out is None else stack.enter_context(TraceWriter(Path(out), force=force))
            self.writing = writer is not None
            stack.enter_context(session)
            for batch in self._batches(progress):
                jobs = self._jobs(batch)
                output = session.generate(jobs, number=batch.number)
                data, generations = assemble(reader, output, first_index=batch.generations[0].index)
                self._compare(batch, self._recorded(data, generations))
                if writer is not None:
                    writer.add(data, generations, self._manifest(data, extra))
            if writer is not None:
                writer.finish()

    def forced(self, progress: Progress | None) -> None:
        """Feed the recorded tokens of each generation in one forward."""
        if self.encoding.start_token:
            raise TraceError(f"{self.trace.path} is of an encoder-decoder model; leave --teacher-forced out.")
        taps = make_taps(self.loaded.model, self.sites, self.what)
        with Recorder(self.loaded.model, self.sites, taps) as recorder:
            for batch in self._batches(progress):
                self._count_prompts(jobs_of(batch, self.encoding))
                for place in range(len(batch.generations)):
                    now = self._forward(recorder, batch.ids(place))
                    start, rows = int(batch.starts[place]), batch.generations[place].rows
                    self._check_choices(now)
                    then = {name: self._then(layer) for name, layer in batch.layers.items()}
                    self.comparison.add(then, now, (start + np.arange(rows), np.arange(rows)))
                    self.comparison.rows += rows

    def _forward(self, recorder: Recorder, ids: Ints) -> dict[str, LayerRows]:
        recorder.clear()
        tokens = torch.from_numpy(ids)[None].to(self.loaded.model.device)
        with torch.inference_mode():
            self.loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
        recording = recorder.recording()
        found = {}
        for site in recording.sites:
            rows = recording.stacks[site.stack].grid[0]
            layer, flags = recording.layers[site.name], recording.signals.get(f"{site.name}.gate_sensitive")
            sensitive = None if flags is None else flags[rows].astype(np.bool_)
            found[site.name] = LayerRows(layer.experts[rows], layer.weights[rows], sensitive)
        return found

    def _batches(self, progress: Progress | None) -> Iterator[RecordedBatch]:
        total = self.trace.manifest.generations
        total = total if self.limit is None else min(total, self.limit)
        for batch in recorded_batches(self.trace, limit=self.limit, vocabulary=vocabulary(self.loaded)):
            yield batch
            self.comparison.generations += len(batch.generations)
            if progress is not None:
                progress(self.comparison.generations, max(total, self.comparison.generations))

    def _jobs(self, batch: RecordedBatch) -> list[Job]:
        jobs = jobs_of(batch, self.encoding)
        if len(list(batches(jobs, self.decoding))) != 1:
            raise TraceError(
                f"{self.trace.path}: batch {batch.number} holds {len(jobs)} generations, more than its decoding "
                "parameters give. It cannot be repeated batch by batch; add --teacher-forced."
            )
        self._count_prompts(jobs)
        return jobs

    def _count_prompts(self, jobs: Sequence[Job]) -> None:
        """Whether today's tokenizer and template would give the same ids; reported, not used."""
        kept, now = self.trace.manifest.tokenizer, self._tokenizer
        for job in jobs:
            if job.sample == 0:
                if same_ids_today(self.encoding, job):
                    self.prompts["same"] += 1
                    continue
                # The same tokenizer, yet other ids for a text read back from tokens: the text was not read right.
                doubtful = job.prompt.messages is None and all(
                    kept.get(key) == now[key] for key in ("digest", "template_digest")
                )
                self.prompts["unknown" if doubtful else "other"] += 1

    def _recorded(self, data: ShardData, generations: list[Generation]) -> BatchRows:
        token = np.asarray(data.columns["token_id"], dtype=np.int64)
        layers = {}
        for name, routing in data.routing.items():
            flags = data.signals.get(f"{name}.gate_sensitive")
            layers[name] = layer_rows(routing, None if flags is None else np.asarray(flags, dtype=np.bool_))
        return BatchRows(generations, token, layers)

    def _compare(self, then: RecordedBatch, now: BatchRows) -> None:
        self._check_choices(now.layers)
        old: list[Ints] = []
        new: list[Ints] = []
        for place, (before, after) in enumerate(zip(then.generations, now.generations, strict=True)):
            answers = then.answer(place), now.answer(place)
            differs = first_difference(*answers)
            kept = min(before.answer_rows, after.answer_rows)
            rows = np.arange(before.prompt_rows + (kept if differs is None else min(kept, differs)))
            old.append(int(then.starts[place]) + rows)
            new.append(int(now.starts[place]) + rows)
            self.comparison.rows += before.rows
            if differs is not None:
                tokens = [known[differs] if differs < len(known := answer.known) else None for answer in answers]
                self.comparison.divergences.append(
                    Divergence(before.index, before.prompt_id, before.sample, differs, tokens[0], tokens[1])
                )
        layers = {name: self._then(layer) for name, layer in then.layers.items()}
        self.comparison.add(layers, now.layers, (np.concatenate(old), np.concatenate(new)))

    def _then(self, layer: LayerRows) -> LayerRows:
        return layer if self.flags.then else replace(layer, sensitive=None)

    def _check_choices(self, layers: Mapping[str, LayerRows]) -> None:
        for info in self.trace.manifest.layers:
            k = layers[info.name].experts.shape[1]
            if k != info.k:
                raise ModelError(f"{info.name} chose {info.k} experts per token, now {k}. It is of another model.")

    def _captured(self) -> tuple[str, ...]:
        return tuple(name for name in self.trace.manifest.captured if name not in ALWAYS)

    def _width(self) -> int:
        """Tokens of the longest prompt: compiled decoding pads all to it."""
        if not self.decoding.compile:
            return 0
        return max(one.prompt_rows for one in self.trace.iter_generations()) - self.encoding.start_token

    def _manifest(self, data: ShardData, extra: tuple[str, ...]) -> Manifest:
        """The manifest of the rerun: that of the run, with today's setting and a pointer to the run."""
        before, loaded = self.trace.manifest, self.loaded
        recorded = [site for site in self.sites if site.name in data.routing]
        return replace(
            before,
            layers=tuple(layer_info(site, data) for site in recorded),
            signals=signal_infos(data, stacks=len({site.stack for site in recorded}) > 1),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            moeprobe=moeprobe.__version__,
            model=loaded.provenance,
            tokenizer=self._tokenizer,
            engine={
                **engine_section(
                    loaded.model, cache=self.decoding.cache,
                    assistant=None if self.assistant is None else self.assistant.provenance,
                ),
                **({"layers": before.engine["layers"]} if "layers" in before.engine else {}),
            },
            versions=versions_section(),
            prompts={**before.prompts, "rerun_of": self.trace.digest, "limit": self.limit},
            captured=tuple(dict.fromkeys((*ALWAYS, *extra, *self.what))),
            complete=False, shards=0, generations=0, rows=0, shards_sha256="", generations_sha256="", resumed=(),
        )  # fmt: skip


def _check_asked(trace: Trace, teacher_forced: bool, out: str | Path | None, force: bool) -> None:
    if trace.manifest.merged and not teacher_forced:
        raise TraceError(
            f"{trace.path} was merged from {len(trace.manifest.merged)} runs, whose batches can no longer be told "
            "apart. Rerun those, or add --teacher-forced, which needs no batches."
        )
    if teacher_forced and out is not None:
        raise TraceError("--teacher-forced generates nothing, so there is no run to write. Leave --out out.")
    if out is not None:
        # Before anything runs: what stands there is replaced only on request, and what is read never.
        check_output(Path(out), force=force)
        check_not_read(out, [trace.path])


def _run_through(
    run: _Run, teacher_forced: bool, out: str | Path | None, force: bool, progress: Progress | None
) -> _Run:
    """The run once it is compared: `run` itself, or one without margins where those could not be recorded."""
    try:
        run.compare(teacher_forced, out, force, progress)
    except CaptureError as problem:
        if not run.what:
            raise
        # Margins are an extra; what was tried on a few tokens may fail on others (experts that are full).
        again = run.without_margins(problem)
        # What the first attempt left in OUT.partial is its own, and may go; nothing else may.
        again.compare(teacher_forced, out, force or run.writing, progress)
        return again
    return run


def _check_tokens(loaded: LoadedModel, manifest: Manifest, where: str) -> None:
    for name in ("end_tokens", "pad_token"):
        ids = token_ids(manifest.decoding, name, where) or []
        if ids and max(ids) >= vocabulary(loaded):
            raise TraceError(f"{where}: {name} names token {max(ids)}, but the model knows {vocabulary(loaded)}.")
