"""`moeprobe info`."""

import json
from pathlib import Path
from typing import Any

import click

from moeprobe.cli.options import json_option
from moeprobe.cli.terminal import printable, table


@click.command(short_help="What a trace holds and how it was made.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Also compare every shard with its checksum.")
@json_option
def info(run: Path, verify: bool, as_json: bool) -> None:
    """Show what the trace RUN holds and how it was made."""
    from moeprobe.trace import load_trace

    trace = load_trace(run, incomplete=True)
    if verify:
        trace.verify()
    summary = _summary(trace)
    if as_json:
        click.echo(json.dumps(summary, indent=1))
        return
    state = "complete" if summary["complete"] else "INTERRUPTED: not all prompts were run"
    click.echo(printable(f"{run}: {state}{', checksums match' if verify else ''}"))
    sections = ("model", "decoding", "engine", "prompts", "versions")
    lines = [("generations", f"{summary['generations']:,}"), ("routed tokens", f"{summary['rows']:,}")]
    lines += [("stopped at", ", ".join(f"{key} {number}" for key, number in summary["stops"].items()))]
    lines += [("labels", ", ".join(f"{key} {number}" for key, number in summary["labels"].items()) or "none")]
    for name in sections:
        lines += [(f"{name} {key}", _short(value)) for key, value in summary[name].items() if value is not None]
    click.echo(table(("what", "value"), lines))
    layers = [
        (
            f"{i['stack'] and i['stack'] + '.'}L{i['layer']}",
            str(i["experts"]),
            str(i["k"]),
            f"{i['weight_sum']:.3g}",
            "yes" if i["shared"] else "no",
        )
        for i in summary["layers"]
    ]
    click.echo("\n" + table(("layer", "experts", "k", "weights sum to", "shared experts"), layers))


def _summary(trace: Any) -> dict[str, Any]:
    from collections import Counter

    body = json.loads(trace.manifest.to_json())
    body["path"], body["digest"] = str(trace.path), trace.digest
    stops: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for one in trace.iter_generations():
        stops[one.stop] += 1
        labels.update([] if one.label is None else [str(one.label)])
    body["stops"], body["labels"] = dict(stops), dict(labels)
    body["bytes"] = sum(path.stat().st_size for path in trace.path.rglob("*") if path.is_file())
    return dict(body)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
