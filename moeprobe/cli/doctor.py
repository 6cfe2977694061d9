"""`moeprobe doctor`."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from moeprobe.cli.options import json_option, model_options
from moeprobe.cli.terminal import printable, quiet_libraries, table

if TYPE_CHECKING:
    from moeprobe.doctor.selftest import SelfTest
    from moeprobe.doctor.survey import Survey, SurveyedSite
    from moeprobe.models.skeleton import Skeleton

RECORDED, NOT_RECORDED, UNSURE = "recorded", "not recorded", "unsure"


@click.command(short_help="Would all routing of a model be recorded?")
@click.argument("model", metavar="MODEL")
@click.option("--no-weights", is_flag=True, help="Look at the config only, even where the weights are here.")
@model_options
@json_option
def doctor(
    model: str, no_weights: bool, dtype: str, device_map: str | None, revision: str | None, as_json: bool
) -> None:
    """Say whether all routing of MODEL would be recorded, and what would not and why.

    MODEL is a folder, a hub id or a built-in model; a folder with nothing but config.json will do. The model is first
    built without weights, in seconds whatever its size. If its weights are on this machine, it is then loaded and runs
    a self-test: a dozen tokens, with and without recording.

    Exit status: 0 everything would be recorded, 1 something would not or the model cannot be used, 2 wrong usage.
    """
    quiet_libraries()
    from moeprobe.doctor.survey import survey
    from moeprobe.models.skeleton import build_skeleton

    skeleton = build_skeleton(model, dtype=dtype, revision=revision)
    seen = survey(skeleton.model)
    problems = [{"where": one.where, "why": one.why, "remedy": one.remedy} for one in seen.problems]
    problems += [{"where": "the model", "why": why, "remedy": remedy} for why, remedy in skeleton.problems]
    test: SelfTest | None = None
    if skeleton.weights and not no_weights and not problems:
        test = _tested(skeleton, dtype, device_map, revision)
        problems += [
            {"where": "self-test", "why": f"{one.name}: {one.found}", "remedy": ""}
            for one in test.checks
            if one.result == "failed"
        ]
    body = _body(skeleton, seen, test, problems)
    click.echo(json.dumps(body, indent=1) if as_json else _page(body, seen, test))
    raise click.exceptions.Exit(1 if body["verdict"] == NOT_RECORDED else 0)


def _tested(skeleton: "Skeleton", dtype: str, device_map: str | None, revision: str | None) -> "SelfTest":
    from moeprobe.doctor.selftest import self_test
    from moeprobe.models import load_model

    # A built-in model was built already; another device is a reason to place it anew.
    if skeleton.loaded is not None and device_map is None:
        return self_test(skeleton.loaded)
    return self_test(load_model(skeleton.id, dtype=dtype, device_map=device_map, revision=revision).model)


def _body(
    skeleton: "Skeleton", seen: "Survey", test: "SelfTest | None", problems: list[dict[str, str]]
) -> dict[str, Any]:
    from moeprobe.doctor.survey import bytes_per_token

    dtype = str(skeleton.model.dtype).removeprefix("torch.")
    verdict = NOT_RECORDED if problems else UNSURE if test is None and seen.doubts else RECORDED
    return {
        "model": skeleton.id,
        "family": seen.family,
        "class": seen.model_class,
        "dtype": dtype,
        "verdict": verdict,
        "sentence": _sentence(verdict, seen, test, skeleton.weights),
        "bytes_per_token": bytes_per_token(seen.sites, dtype=dtype) if seen.sites else None,
        "bytes_per_token_at_most": bytes_per_token(seen.sites, dtype=dtype, worst=True) if seen.sites else None,
        "problems": problems,
        "doubts": list(seen.doubts),
        "notes": [*skeleton.notes, *seen.notes, *_test_notes(test)],
        "sites": [dict(vars(site)) for site in seen.sites],
        "self_test": None if test is None else _plain(test),
    }


def _plain(test: "SelfTest") -> dict[str, Any]:
    sites = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in vars(site).items()}
        for site in test.sites
    ]
    return {"passed": test.passed, "checks": [dict(vars(check)) for check in test.checks], "sites": sites}


def _test_notes(test: "SelfTest | None") -> Iterator[str]:
    if test is not None:
        yield from (f"Self-test, {check.name}: {check.found}." for check in test.checks if check.result == "note")


def _sentence(verdict: str, seen: "Survey", test: "SelfTest | None", weights: bool) -> str:
    if verdict == NOT_RECORDED:
        return "Not everything would be recorded."
    if verdict == UNSURE:
        return (
            f"Nothing was found that would not be recorded, but only a run can tell. {' '.join(seen.doubts)} "
            "Run doctor again where the weights are."
        )
    if test is not None:
        return "Everything would be recorded."
    why = "they were left out" if weights else "they are not on this machine"
    return f"Everything would be recorded. (The self-test needs the weights; {why}.)"


def _page(body: dict[str, Any], seen: "Survey", test: "SelfTest | None") -> str:
    count = len(seen.sites)
    layers = f"{count or 'no'} layer{'' if count == 1 else 's'} of routed experts"
    parts = [printable(f"{body['model']}: {body['family']}, {body['class']}, {layers}")]
    if seen.sites:
        parts.append(table(("layers", "experts", "k", "shared", "routing", "router", "weights"), _rows(seen.sites)))
        size, most = body["bytes_per_token"], body["bytes_per_token_at_most"]
        most_text = f", {most:,} at most" if most > size else ""
        parts.append(f"A token takes {size:,} bytes in a trace{most_text}; a million tokens {size:,} MB.")
    if test is not None:
        checks = [(check.name, check.result, check.found) for check in test.checks]
        parts.append(table(("self-test", "result", "found"), checks))
    if body["notes"]:
        parts.append("\n".join(printable(f"Note: {note}") for note in body["notes"]))
    parts.append("\n".join([printable(body["sentence"]), *map(_problem, body["problems"])]))
    return "\n\n".join(parts)


def _problem(problem: dict[str, str]) -> str:
    remedy = f" {problem['remedy'][:1].upper()}{problem['remedy'][1:]}." if problem["remedy"] else ""
    return printable(f"  {problem['where']}: {problem['why'].rstrip('.')}.{remedy}").replace("\n", " ")


def _rows(sites: Sequence["SurveyedSite"]) -> Iterator[tuple[str, ...]]:
    """One line for each run of layers that differ in nothing but their number."""
    for facts, alike in groupby(sites, _facts):
        names = [site.name for site in alike]
        label = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)})"
        yield (label, *facts[1:])


def _facts(site: "SurveyedSite") -> tuple[str, ...]:
    router = "not seen"
    if site.router is not None:
        block = site.path.rpartition(".")[0]
        router = site.router.removeprefix(block[: block.rfind(".") + 1])
        router = ".".join(part for part in router.split(".") if not part.isdigit())
        router += {"identity": "", "derived": " (indirectly)", "hook": " (read on return)"}.get(site.router_by, "")
    k = "?" if site.k is None else str(site.k) + ("" if site.k_from == "run" else "*")
    shared = "yes" if site.shared else "no"
    kind = "text does not reach it" if site.silent else site.kind
    return (site.stack, str(site.experts), k, shared, kind, router, site.weights or "not seen")
