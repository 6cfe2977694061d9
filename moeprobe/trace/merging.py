"""One trace out of several runs of the same model. Shards are read and written one at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import moeprobe
from moeprobe.errors import TraceError
from moeprobe.fields import Fields
from moeprobe.trace.generation import Generation
from moeprobe.trace.manifest import Manifest
from moeprobe.trace.reader import Trace, load_trace
from moeprobe.trace.same import check_not_read, difference, refuse_others
from moeprobe.trace.shard import COLUMNS, Routing, Shard, ShardData
from moeprobe.trace.writer import TraceWriter

# Two runs may differ in these and still draw from the same distribution; each source's own are kept in `merged`.
_DRAWS = ("seed", "samples", "batch_size")


def merge(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    allow_different_decoding: bool = False,
    prefix: bool = False,
    force: bool = False,
) -> Trace:
    """Put several runs of the same model into one trace; generations are numbered anew, in the order of the runs.

    A prompt that several runs share (same id, same text) gets their generations as further samples. Counts of the
    merge are the sums of the counts.

    Args:
        sources: two or more complete traces with the same model, tokenizer, layers and signals.
        out: the trace to write.
        allow_different_decoding: also when decoding parameters differ beyond seed, samples and batch size.
        prefix: put the run's name before every prompt and pair id, so that prompts of different runs never meet.
        force: replace a trace that stands at `out`.

    Memory: one shard, about 200 bytes for each prompt, and 8 for each run that had it.

    Raises:
        TraceError: the runs do not go together, or one of them is damaged; the message names it and the remedy.
        OutputError: `out` exists, or the disk refuses.
    """
    traces = [load_trace(source) for source in sources]
    if len(traces) < 2:
        raise TraceError("A merge needs at least two traces.")
    manifest = _merged_manifest(traces, allow_different_decoding=allow_different_decoding)
    check_not_read(out, [trace.path for trace in traces])
    named = list(zip(traces, _names(traces), strict=True))
    # All prompts first: a refusal should leave nothing on disk, and come before the copying.
    known = _Prompts()
    for trace, name in named:
        known.begin(trace)
        for one in trace.iter_generations():
            known.place(_renamed(one, name) if prefix else one)
    known = _Prompts()
    with TraceWriter(Path(out), force=force) as writer:
        for trace, name in named:
            known.begin(trace)
            for info, records in trace.pieces():
                first = writer.generations
                renamed = [_renamed(one, name) if prefix else one for one in records]
                numbered = [replace(known.place(one), index=first + place) for place, one in enumerate(renamed)]
                writer.add(_moved(trace.open(info), trace.manifest, first - records[0].index), numbered, manifest)
        writer.finish()
    return load_trace(out)


@dataclass(frozen=True)
class _Run:
    """A run as it was recorded: a source of the merge, or one of those that a source was merged from.

    Attributes:
        where: what to call it in a message.
        end: number of the first generation of its source that is not its own.
        drawn: tokens were drawn, not chosen (greedy, beams).
        seeds: of the draws; none where that is not known.
    """

    where: str
    end: int
    drawn: bool
    seeds: frozenset[int]


@dataclass
class _Prompts:
    """Which prompts were seen, with what text, how many samples they have, and which runs they are from."""

    seen: dict[str, tuple[bytes, int, tuple[int, ...]]] = field(default_factory=dict)
    runs: list[_Run] = field(default_factory=list)
    run: int = 0

    def begin(self, trace: Trace) -> None:
        self.run = len(self.runs)
        self.runs += _runs(trace)

    def place(self, one: Generation) -> Generation:
        """The generation with its number among the samples of its prompt; in the order of its source.

        Raises:
            TraceError: another prompt has the same id, or the same generation would be counted twice.
        """
        while one.index >= self.runs[self.run].end:
            self.run += 1
        run = self.runs[self.run]
        what = hashlib.sha256(repr((one.prompt_text, one.pair, one.label)).encode()).digest()
        before, samples, others = self.seen.get(one.prompt_id, (what, 0, ()))
        if before != what:
            raise TraceError(
                f"{run.where}: the prompt {one.prompt_id[:60]!r} has another text, pair or label than the "
                "one of the same id in an earlier run. Add --prefix to keep the prompts of each run apart."
            )
        if self.run not in others:
            for number in others:
                self._check_independent(one, self.runs[number], run)
            others = (*others, self.run)
        self.seen[one.prompt_id] = (what, samples + 1, others)
        return replace(one, sample=samples)

    @staticmethod
    def _check_independent(one: Generation, first: _Run, second: _Run) -> None:
        greedy = [run for run in (second, first) if not run.drawn]
        shared = sorted(first.seeds & second.seeds)
        unknown = [run for run in (second, first) if not run.seeds]
        if greedy:
            why = f"{greedy[0].where} was not drawn (greedy)"
        elif shared:
            why = f"both were drawn with the same seed {shared[0]}"
        elif unknown:
            why = f"{unknown[0].where} does not say its seed"
        else:
            return
        raise TraceError(
            f"The prompt {one.prompt_id[:60]!r} was run in {first.where} and in {second.where}, and {why}: the same "
            "text would count as two. Leave one run out, or record it with --sample and another --seed."
        )


def _runs(trace: Trace) -> list[_Run]:
    """The runs that a trace holds, in the order of their generations."""
    runs, end = [], 0
    for source in _sources(trace):
        end += source["generations"]
        decoding = source["decoding"]
        # A merge of merges made by an early moeprobe kept lists: any of these seeds may be that of a generation.
        sample, seed = ([value] if not isinstance(value, list) else value
                        for value in (decoding.get("sample"), decoding.get("seed")))  # fmt: skip
        seeds = frozenset(one for one in seed if type(one) is int)
        where = f"{source['name']} (part of {trace.path})" if trace.manifest.merged else str(trace.path)
        known = len(seeds) > 0 and all(type(one) is int for one in seed)
        runs.append(_Run(where, end, bool(sample) and all(sample), seeds if known else frozenset()))
    return runs


def _moved(shard: Shard, manifest: Manifest, by: int) -> ShardData:
    """The rows of a shard as they are stored, with other generation numbers."""
    columns = {name: getattr(shard, name) for name in COLUMNS}
    columns["generation"] = columns["generation"].astype(np.int64) + by
    routing = {
        info.name: Routing(shard.experts(info.name), shard.stored(f"{info.name}.weights"), shard.mask(info.name))
        for info in manifest.layers
    }
    return ShardData(columns, routing, {signal.name: shard.stored(signal.name) for signal in manifest.signals})


def _renamed(one: Generation, name: str) -> Generation:
    pair = None if one.pair is None else f"{name}/{one.pair}"
    return replace(one, prompt_id=f"{name}/{one.prompt_id}", pair=pair)


def _names(traces: list[Trace]) -> list[str]:
    """Names of the runs' folders, told apart by a number where they are the same."""
    names = [trace.path.resolve().name.removesuffix(".trace") for trace in traces]
    return [name if names.count(name) == 1 else f"{name}#{place + 1}" for place, name in enumerate(names)]


def _merged_manifest(traces: list[Trace], *, allow_different_decoding: bool) -> Manifest:
    first = traces[0]
    held: dict[str, Path] = {}
    for trace in traces:
        for digest in dict.fromkeys((trace.digest, *(source["digest"] for source in _sources(trace)))):
            if digest in held:
                raise TraceError(f"{trace.path} holds the same run as {held[digest]}. Name each run once.")
            held[digest] = trace.path
    for trace in traces[1:]:
        _check_fits(first, trace)
        found = difference(_settings(first.manifest), _settings(trace.manifest), ("decoding",))
        if found is not None and not allow_different_decoding:
            raise TraceError(
                f"{trace.path} was not decoded like {first.path}: {found}. Rates of such runs mean different things; "
                "add --allow-different-decoding to merge them all the same."
            )
    manifests = [trace.manifest for trace in traces]
    sources = [source for trace in traces for source in _sources(trace)]
    prompts = hashlib.sha256("\n".join(str(one.prompts.get("digest")) for one in manifests).encode()).hexdigest()
    return replace(
        first.manifest,
        complete=False,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        resumed=(),
        moeprobe=moeprobe.__version__,
        decoding=_common([source["decoding"] for source in sources]),
        engine={**_common([source["engine"] for source in sources]), **_chosen_layers(traces)},
        versions=_common([source["versions"] for source in sources]),
        prompts={
            "source": "merge of " + ", ".join(_names(traces)),
            "count": sum(int(one.prompts.get("count") or 0) for one in manifests),
            "digest": f"sha256:{prompts}",
        },
        merged=tuple(sources),
    )


def _check_fits(first: Trace, other: Trace) -> None:
    a, b = first.manifest, other.manifest
    engine = [{"dtype": one.engine.get("dtype")} for one in (a, b)]
    for name, old, new in (
        ("model", a.model, b.model), ("tokenizer", a.tokenizer, b.tokenizer), ("engine", engine[0], engine[1]),
    ):  # fmt: skip
        found = difference(old, new, (name,))
        if found is not None:
            raise TraceError(f"{other.path} does not go with {first.path}: {found}. Only runs of one model can merge.")
    if a.segments != b.segments:
        raise TraceError(f"{other.path} has other segments than {first.path}. Record it again with this moeprobe.")
    for what in ("layers", "signals"):
        refuse_others(a, b, what, f"{other.path} does not go with {first.path}: it", TraceError)


def _chosen_layers(traces: list[Trace]) -> dict[str, Any]:
    """What the runs were asked to record, where they say it: {"layers": names} or nothing.

    Raises:
        TraceError: they were asked for other layers.
    """
    known = [trace for trace in traces if trace.manifest.engine.get("layers") is not None]
    for other in known[1:]:
        found = difference(known[0].manifest.engine["layers"], other.manifest.engine["layers"], ("engine", "layers"))
        if found is not None:
            raise TraceError(
                f"{other.path} does not go with {known[0].path}: {found}. Record one of them again, with the layers "
                "of the other."
            )
    return {"layers": known[0].manifest.engine["layers"]} if known else {}


def _settings(manifest: Manifest) -> dict[str, Any]:
    return {key: value for key, value in manifest.decoding.items() if key not in _DRAWS}


def _common(sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Values that all share; a list of them, in the order of the runs, where they differ."""
    keys = dict.fromkeys(key for section in sections for key in section)
    values = {key: [section.get(key) for section in sections] for key in keys}
    return {key: each[0] if all(one == each[0] for one in each) else each for key, each in values.items()}


def _sources(trace: Trace) -> list[dict[str, Any]]:
    """What the manifest of a merge keeps of each run; of a trace that is a merge itself, what it kept.

    Raises:
        TraceError: what it kept is no list of its runs.
    """
    manifest = trace.manifest
    if not manifest.merged:
        return [_source(trace)]
    for number, item in enumerate(manifest.merged):
        fields = Fields(item, f"{trace.path}, merged[{number}]", TraceError)
        fields.integer("generations", 1)
        for key in ("name", "digest"):
            fields.text(key)
        for key in ("decoding", "engine", "versions"):
            fields.section(key)
    kept = sum(item["generations"] for item in manifest.merged)
    if kept != manifest.generations:
        raise TraceError(
            f"{trace.path} holds {manifest.generations} generations, but lists runs with {kept}. Merge those anew."
        )
    return list(manifest.merged)


def _source(trace: Trace) -> dict[str, Any]:
    manifest = trace.manifest
    return {
        "name": trace.path.resolve().name,
        "digest": trace.digest,
        "created": manifest.created,
        "generations": manifest.generations,
        "rows": manifest.rows,
        "decoding": manifest.decoding,
        "engine": manifest.engine,
        "versions": manifest.versions,
        "prompts": manifest.prompts,
    }
