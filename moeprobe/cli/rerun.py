"""`moeprobe rerun`."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import force_option, json_option, model_options
from moeprobe.cli.terminal import printable, progress_bar, quiet_libraries, table
from moeprobe.files import check_output

if TYPE_CHECKING:
    from moeprobe.models import LoadedModel
    from moeprobe.rerun.setting import Setting
    from moeprobe.rerun.verdict import Rerun
    from moeprobe.trace import Trace

# Lines about divergences that a person reads; --json has all.
_SHOWN = 5


@click.command(short_help="Repeat a run and say whether tokens and routing match.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("-m", "--model", metavar="MODEL", help="The model, where it is not the one the trace names.")
@click.option("--allow-other-model", is_flag=True, help="Compare even with other weights; -m means it too.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Repeat at least the first N generations.")
@click.option("--teacher-forced", is_flag=True, help="Feed the recorded tokens instead of generating.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="TRACE", help="Write the rerun as a trace.")
@model_options
@force_option
@json_option
def rerun(run: Path, **options: Any) -> None:
    """Repeat the run of the trace RUN and say, layer by layer, whether its tokens and routing come out again.

    Everything needed is in the trace: token ids of the prompts, decoding parameters, seeds, batches. The model is the
    one the trace names, in the number format it had then. What differs in the setting (versions, device, number format,
    implementation) is said first. Other weights are refused.

    A choice flips where the set of experts of a token differs. Only tokens with the same text before them are compared.
    Gate-sensitive choices are so close that rounding may flip them: where nearly all flips are, the setting explains
    them; where few are, something else differs.

    Exit status: 0 the run repeats (same tokens, same experts), 1 it does not or cannot be run, 2 wrong usage.
    """
    from moeprobe.trace import load_trace

    trace = load_trace(run, incomplete=True)
    out: Path | None = options["out"]
    if out is not None:
        check_output(out, force=options["force"], inputs=[run])
    result = _run(trace, options)
    click.echo(json.dumps(result.to_json(), indent=1) if options["as_json"] else _page(result))
    raise click.exceptions.Exit(0 if result.repeats else 1)


def _run(trace: "Trace", options: dict[str, Any]) -> "Rerun":
    from moeprobe.models import load_model
    from moeprobe.rerun.repeating import rerun as repeat
    from moeprobe.rerun.replay import as_run
    from moeprobe.rerun.setting import decoding_of

    # Before the model is loaded: a mistake should cost a second, not minutes.
    decoding = decoding_of(as_run(trace.manifest).decoding, str(trace.path))
    quiet_libraries()
    assistant = None
    if decoding.assistant and not options["teacher_forced"]:
        section = trace.manifest.engine.get("assistant")
        dtype = _then(section.get("dtype") if isinstance(section, dict) else None)
        assistant = load_model(decoding.assistant, dtype=dtype, device_map=options["device_map"])
    loaded = _load(trace, options)
    quiet = options["as_json"]
    total = min(options["limit"] or trace.manifest.generations, trace.manifest.generations)
    with progress_bar(total, "generation", "rerun") as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        def announce(setting: "Setting") -> None:
            with bar.external_write_mode() if not bar.disable else nullcontext():
                if not quiet:
                    click.echo(_setting(setting) + "\n")

        return repeat(
            trace, loaded, limit=options["limit"], teacher_forced=options["teacher_forced"], out=options["out"],
            force=options["force"], allow_other_model=options["allow_other_model"] or options["model"] is not None,
            assistant=assistant, announce=announce, progress=show,
        )  # fmt: skip


def _load(trace: "Trace", options: dict[str, Any]) -> "LoadedModel":
    """The model that a trace names, in the number format it had."""
    from moeprobe.errors import TraceError
    from moeprobe.models import load_model

    model = trace.manifest.model
    name = options["model"] or model.get("id")
    if not isinstance(name, str):
        raise TraceError(f"{trace.path} names no model. Give it by -m.")
    revision = options["revision"]
    if revision is None and options["model"] is None and isinstance(model.get("revision"), str):
        revision = model["revision"]
    return load_model(
        name,
        dtype=_then(trace.manifest.engine.get("dtype")) if options["dtype"] == "auto" else options["dtype"],
        device_map=options["device_map"],
        revision=revision,
    )


def _then(dtype: object) -> str:
    """The number format that a manifest names, as `load_model` takes it."""
    from moeprobe.models import DTYPES

    return dtype if isinstance(dtype, str) and dtype in DTYPES else "auto"


def _setting(setting: "Setting") -> str:
    weights = printable(f"Weights: {setting.weights} ({setting.why}).")
    if not setting.differences:
        return f"{weights}\nSetting: nothing that was written down differs."
    rows = [(one.field, _short(one.then), _short(one.now)) for one in setting.differences]
    return f"{weights}\n\n{table(('differs in', 'then', 'now'), rows)}"


def _page(result: "Rerun") -> str:
    compared = result.comparison
    head = (
        "layer",
        "tokens",
        "choices agree",
        "flips",
        "flip rate",
        "of these sensitive",
        "of all",
        "weights by at most",
    )
    parts = [table(head, _rows(result))]
    lines = list(_divergences(result))
    if compared.compared < compared.rows:
        lines.append(
            f"Compared: {compared.compared:,} of {compared.rows:,} tokens; the others had other text before them."
        )
    if result.prompts["other"]:
        lines.append(
            f"{result.prompts['other']} of {sum(result.prompts.values())} prompts would give other token ids with "
            "today's tokenizer and chat template; those of the trace were used."
        )
    if result.prompts["unknown"]:
        lines.append(
            f"For {result.prompts['unknown']} prompts it cannot be told whether they would give the same token ids "
            "today; those of the trace were used."
        )
    lines += [f"Note: {note}" for note in result.notes]
    parts += ["\n".join(map(printable, lines))] if lines else []
    return "\n\n".join([*parts, printable(result.sentence)])


def _rows(result: "Rerun") -> Iterator[tuple[str, ...]]:
    from moeprobe.rerun.verdict import percent

    layers = result.comparison.layers
    total = [result.comparison.total()] if len(layers) > 1 else []
    for layer in [*layers.values(), *total]:
        sensitive, flips = layer.sensitive, layer.sensitive_flips
        yield (
            layer.name,
            f"{layer.tokens:,}",
            percent(layer.agree, layer.selections),
            f"{layer.flips:,}",
            percent(layer.flips, layer.tokens),
            "-" if flips is None else percent(flips, layer.flips),
            "-" if sensitive is None else percent(sensitive, layer.tokens),
            f"{layer.weight_difference:.2g}",
        )


def _divergences(result: "Rerun") -> Iterator[str]:
    found = result.comparison.divergences
    for one in found[:_SHOWN]:
        then, now = ("no token" if token is None else f"token {token}" for token in (one.then, one.now))
        sample = f", sample {one.sample}" if one.sample else ""
        yield (
            f"Generation {one.index} (prompt {one.prompt_id[:60]!r}{sample}) differs from generated token {one.token} "
            f"on: {then} then, {now} now."
        )
    if len(found) > _SHOWN:
        yield f"And {len(found) - _SHOWN} more (--json lists all)."


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
