"""Where the findings of a page come from, line by line."""

from collections.abc import Mapping
from typing import Any

from moeprobe.report import figures

Json = Mapping[str, Any]
_CHECKED = ("labels", "digest", "left_out")  # which file told how good the probe is


def origin(findings: Json) -> list[tuple[str, str]]:
    """What made the findings, a line each: its name and its value."""
    trace = findings["trace"]
    lines = [
        ("findings: schema", findings["schema"]),
        ("findings: written", f"{findings['created']} by moeprobe {findings['moeprobe']}"),
        ("trace: path", trace["path"]),
        ("trace: digest", trace["digest"]),
        ("trace: size", f"{int(trace['generations']):,} generations, {int(trace['rows']):,} rows (routed tokens)"),
        *((f"command {number}", line) for number, line in enumerate(findings["commands"], 1)),
        *_flat(trace["provenance"], ""),
    ]
    for asked in findings["questions"]:
        lines.append((f"question: {asked['name']}", f"{asked['kind']}, version {asked['version'] or figures.NONE}"))
        lines += _flat(asked.get("parameters") or {}, f"question: {asked['name']}: set to ")
        quality = asked["quality"] or {}
        lines += _flat(
            {key: quality[key] for key in _CHECKED if key in quality}, f"question: {asked['name']}: checked on."
        )
        grouping = asked.get("grouping") or {}  # `members` is as long as there are generations
        lines += _flat(
            {key: grouping[key] for key in grouping if key != "members"}, f"question: {asked['name']}: groups."
        )
    for index, run in enumerate(findings["interchange"], 1):
        name = f"interchange {index}"
        lines += [(f"{name}: seed", str(run["seed"])), (f"{name}: pairs", ", ".join(map(str, run["pair_ids"])))]
        lines += _flat(run.get("pairs_from") or {}, f"{name}: pairs from: ")
        for key in ("metric_options", "alignment_options", "engine"):
            lines += _flat(run[key], f"{name}: {key.removesuffix('_options')}.")
    return [(key, str(value)) for key, value in lines]


def _flat(tree: Any, prefix: str) -> list[tuple[str, str]]:
    """Turn nested objects into lines with dotted names."""
    lines: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", figures.NONE if value is None else str(value)))
    return lines
