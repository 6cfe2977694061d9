"""One trace out of several runs of the same model. Shards are read and written one at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import moeprobe
from moeprobe.errors import OutputError, TraceError
from moeprobe.trace.generation import Generation
from moeprobe.trace.manifest import Manifest
from moeprobe.trace.reader import Trace, load_trace
from moeprobe.trace.same import difference, refuse_others
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

    Memory: one shard, and about 200 bytes for each prompt.

    Raises:
        TraceError: the runs do not go together, or one of them is damaged; the message names it and the remedy.
        OutputError: `out` exists, or the disk refuses.
    """
    traces = [load_trace(source) for source in sources]
    if len(traces) < 2:
        raise TraceError("A merge needs at least two traces.")
    manifest = _merged_manifest(traces, allow_different_decoding=allow_different_decoding)
    if Path(out).resolve() in {trace.path.resolve() for trace in traces}:
        raise OutputError(f"{out} is what is being read, so it cannot be the output. Choose another name.")
    known = _Prompts()
    with TraceWriter(Path(out), force=force) as writer:
        for trace, name in zip(traces, _names(traces), strict=True):
            known.begin(trace)
            for info, records in trace.pieces():
                first = writer.generations
                renamed = [_renamed(one, name) if prefix else one for one in records]
                numbered = [replace(known.place(one), index=first + place) for place, one in enumerate(renamed)]
                writer.add(_moved(trace.open(info), trace.manifest, first - records[0].index), numbered, manifest)
        writer.finish()
    return load_trace(out)


@dataclass
class _Prompts:
    """Which prompts were seen, with what text, and how many samples they have."""

    seen: dict[str, tuple[bytes, int, int]] = field(default_factory=dict)
    runs: list[Trace] = field(default_factory=list)

    def begin(self, trace: Trace) -> None:
        self.runs.append(trace)

    def place(self, one: Generation) -> Generation:
        """The generation with its number among the samples of its prompt.

        Raises:
            TraceError: another prompt has the same id, or the same generation would be counted twice.
        """
        run = len(self.runs) - 1
        what = hashlib.sha256(repr((one.prompt_text, one.pair, one.label)).encode()).digest()
        before, samples, latest = self.seen.get(one.prompt_id, (what, 0, run))
        if before != what:
            raise TraceError(
                f"{self.runs[run].path}: the prompt {one.prompt_id[:60]!r} has another text, pair or label than the "
                "one of the same id in an earlier run. Add --prefix to keep the prompts of each run apart."
            )
        if latest != run:
            self._check_independent(one, self.runs[latest], self.runs[run])
        self.seen[one.prompt_id] = (what, samples + 1, run)
        return replace(one, sample=samples)

    @staticmethod
    def _check_independent(one: Generation, first: Trace, second: Trace) -> None:
        seeds = [trace.manifest.decoding.get("seed") for trace in (first, second)]
        drawn = all(trace.manifest.decoding.get("sample") for trace in (first, second))
        if not drawn or seeds[0] == seeds[1]:
            why = f"drawn with the same seed {seeds[0]}" if drawn else "not drawn (greedy)"
            raise TraceError(
                f"The prompt {one.prompt_id[:60]!r} was run in {first.path} and in {second.path}, and the second is "
                f"{why}: the same text would count as two. Leave one run out, or record it with --sample and "
                "another --seed."
            )


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
    digests: dict[str, Path] = {}
    for trace in traces:
        if trace.digest in digests:
            raise TraceError(f"{trace.path} is the same run as {digests[trace.digest]}. Name each run once.")
        digests[trace.digest] = trace.path
    for trace in traces[1:]:
        _check_fits(first, trace)
        found = difference(_settings(first.manifest), _settings(trace.manifest), ("decoding",))
        if found is not None and not allow_different_decoding:
            raise TraceError(
                f"{trace.path} was not decoded like {first.path}: {found}. Rates of such runs mean different things; "
                "add --allow-different-decoding to merge them all the same."
            )
    manifests = [trace.manifest for trace in traces]
    prompts = hashlib.sha256("\n".join(str(one.prompts.get("digest")) for one in manifests).encode()).hexdigest()
    return replace(
        first.manifest,
        complete=False,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        resumed=(),
        moeprobe=moeprobe.__version__,
        decoding=_common([one.decoding for one in manifests]),
        engine=_common([one.engine for one in manifests]),
        versions=_common([one.versions for one in manifests]),
        prompts={
            "source": "merge of " + ", ".join(_names(traces)),
            "count": sum(int(one.prompts.get("count") or 0) for one in manifests),
            "digest": f"sha256:{prompts}",
        },
        merged=tuple(_source(trace) for trace in traces),
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


def _settings(manifest: Manifest) -> dict[str, Any]:
    return {key: value for key, value in manifest.decoding.items() if key not in _DRAWS}


def _common(sections: list[dict[str, Any]]) -> dict[str, Any]:
    """Values that all share; a list of them, in the order of the runs, where they differ."""
    keys = dict.fromkeys(key for section in sections for key in section)
    values = {key: [section.get(key) for section in sections] for key in keys}
    return {key: each[0] if all(one == each[0] for one in each) else each for key, each in values.items()}


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
