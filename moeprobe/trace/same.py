"""Whether two runs are the same, field by field: for going on with one, for merging, and for what may be replaced."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moeprobe.errors import MoeprobeError, OutputError, TraceError
from moeprobe.trace.manifest import Manifest

# Where things lie and what they are called does not change what is computed. Weights and settings have digests.
_IGNORED = {("model", "id"), ("model", "path"), ("prompts", "source")}
# Of the versions, these can change a token or a gate weight.
_VERSIONS = ("moeprobe", "torch", "transformers", "tokenizers")
_RESUMED = ("model", "tokenizer", "decoding", "engine", "prompts")
_REMEDY = "Run the same command as before, or add --force to start over."


def check_same_run(before: Manifest, now: Manifest, where: str) -> None:
    """Refuse to go on with a run that was another one.

    Raises:
        OutputError: naming the first field that differs, and both values.
    """
    sections = {name: (getattr(before, name), getattr(now, name)) for name in _RESUMED}
    versions = [{key: one.versions.get(key) for key in _VERSIONS} for one in (before, now)]
    sections["versions"] = (versions[0], versions[1])
    for name, (old, new) in sections.items():
        found = difference(old, new, (name,))
        if found is not None:
            raise OutputError(f"The run in {where} had {found}. {_REMEDY}")
    for name in ("captured", "segments"):
        if getattr(before, name) != getattr(now, name):
            raise OutputError(f"The run in {where} had other {name}. {_REMEDY}")
    # Both may be known only when the first batch was recorded; `TraceWriter.add` compares them then.
    if now.layers:
        refuse_others(before, now, "layers", where, OutputError)
    if now.layers or now.signals:
        refuse_others(before, now, "signals", where, OutputError)


def check_not_read(out: str | Path, sources: Iterable[Path]) -> None:
    """Refuse to write a trace over one that is being read, or over its unfinished folder (`OUT.partial`).

    Raises:
        OutputError: `out` is one of them.
    """
    path = Path(out).resolve()
    if {path, path.with_name(path.name + ".partial")} & {source.resolve() for source in sources}:
        raise OutputError(f"{out} is what is being read, so it cannot be the output. Choose another name.")


def check_same_layers(before: Manifest, now: Manifest, where: str) -> None:
    """Refuse a batch with other layers or signals than the batches before it.

    Raises:
        TraceError: naming the first that differs.
    """
    for what in ("layers", "signals"):
        refuse_others(before, now, what, where, TraceError)


def refuse_others(before: Manifest, now: Manifest, what: str, where: str, error: type[MoeprobeError]) -> None:
    """Compare layers or signals.

    Raises:
        MoeprobeError: of class `error`, naming the first that differs.
    """
    old, new = ([_plain(one) for one in getattr(manifest, what)] for manifest in (before, now))
    if old != new:
        first = next((pair for pair in zip(old, new, strict=False) if pair[0] != pair[1]), (len(old), len(new)))
        raise error(f"{where} holds other {what}: {_short(first[0])} before, {_short(first[1])} now. {_REMEDY}")


def _plain(item: Any) -> dict[str, Any]:
    return {key: value for key, value in item.to_json().items() if key != "weight_sum"}


def difference(old: Any, new: Any, place: tuple[str, ...]) -> str | None:
    """The first difference in words, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            here = (*place, str(key))
            found = None if here in _IGNORED else difference(old.get(key), new.get(key), here)
            if found is not None:
                return found
        return None
    if list(old) == list(new) if isinstance(old, list | tuple) and isinstance(new, list | tuple) else old == new:
        return None
    return f"another {'.'.join(place)}: {_short(old)} then, {_short(new)} now"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
