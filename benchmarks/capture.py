"""What recording costs: python benchmarks/capture.py [--quick] [--peers] [--phase decode] [--device cuda]

Each way of getting the chosen experts of every token and layer runs in pairs with the plain model, in the same process
and the same run. docs/benchmarks.md explains the figures.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: what is imported lies in the folder above, not in this one
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import transformers
from transformers import PreTrainedModel

from benchmarks import peers
from benchmarks.cases import Case, Line, run_case
from benchmarks.memory import Memory, measure
from benchmarks.models import qwen3_moe, qwen35
from benchmarks.ways import OWN, SIGNALS, Way

# What issue 3 promises for ids and weights on a CPU.
TARGETS = {"decode": 1.01, "prefill": 1.02}


@dataclass(frozen=True)
class Part:
    """Cases on one model."""

    model: str
    cases: tuple[Case, ...]
    kinds: tuple[type[Way], ...] = OWN


CPU = (
    Part(
        "Qwen3MoE, 8 layers, fp32",
        (
            Case("decode", 1, 256, pairs=250),
            Case("decode", 16, 64, pairs=40, warm=2),
            Case("prefill", 1, 512, pairs=16, warm=1),
            Case("prefill", 16, 32, pairs=12, warm=1),
            Case("generate", 1, 64, pairs=6, warm=1),
        ),
    ),
    Part("Qwen3MoE, 8 layers, bf16", (Case("decode", 1, 256, pairs=80),)),
    Part("Qwen3MoE, 40 layers, fp32", (Case("decode", 1, 64, pairs=50, warm=2),)),
    Part("Qwen3MoE, 8 layers, fp32", (Case("decode", 1, 256, pairs=50), Case("prefill", 1, 512, pairs=5)), SIGNALS),
)
CUDA = (
    Part(
        "Qwen3.5-35B-A3B, 40 layers, bf16",
        (
            Case("decode", 1, 256, pairs=150, warm=10),
            Case("decode", 16, 256, pairs=80, warm=10),
            Case("prefill", 1, 512, pairs=40, warm=5),
            Case("prefill", 16, 512, pairs=15, warm=3),
            Case("generate", 1, 64, pairs=8, warm=2),
        ),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the cases, print the tables. Returns 1 when moeprobe misses a target on a CPU."""
    options = _options(arguments)
    device = torch.device(options.device)
    torch.set_num_threads(1)
    began = time.monotonic()
    about = machine(device)
    print(" | ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    kinds, notes = peers.found() if options.peers else ([], [])
    print("\n".join(notes))
    # First, while the process is small.
    memory = [] if device.type == "cuda" else memories(quick=options.quick)
    print(memory_table(memory), flush=True)
    results: list[dict[str, Any]] = []
    for part in CUDA if device.type == "cuda" else CPU[:1] if options.quick else CPU:
        cases = [case for case in part.cases if options.phase in (None, case.phase)]
        model = built(part.model, device)
        for case in cases:
            own = [*part.kinds, *(kinds if part.kinds is OWN else ())]
            if results:  # said once is enough
                own = [kind for kind in own if kind is not peers.BareBridge]
            lines = run_case(case.scaled(0.1) if options.quick else case, model, own, device)
            print(table(f"{part.model}: {case}", lines), flush=True)
            results.append({"model": part.model, "case": str(case), **case.__dict__, "lines": lines})
        del model
    found, missed = verdicts(results)
    print("\n".join(found))
    print(f"{time.monotonic() - began:.0f} s in all")
    if options.json is not None:
        options.json.write_text(_json({"about": about, "memory": memory, "cases": results}), encoding="utf-8")
    return int(missed and device.type == "cpu")


def built(name: str, device: torch.device, *, small: bool = False) -> PreTrainedModel:
    """The model that a part names, on the device."""
    kind, layers, dtype = name.split(", ")
    if kind.startswith("Qwen3.5"):
        return qwen35(device, small=small)
    return qwen3_moe(int(layers.split()[0]), {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype], small=small)


def memories(*, quick: bool) -> list[Memory]:
    """Memory of a recording of prefill, and of single steps."""
    prefill, decode = (16384, 256) if quick else (131072, 1024)
    return [measure("prefill", tokens=prefill), measure("decode", tokens=decode)]


def table(title: str, lines: list[Line]) -> str:
    """A Markdown table of one case."""
    head = "| way | step, ratio to plain [95 % CI] | with arrays made | same ids |"
    rows = [f"\n### {title}\n", head, "|---|---|---|---|"]
    for line in lines:
        if line.step is None:
            rows.append(f"| {line.way} | {line.absent} | | |")
            continue
        whole = "" if line.whole is None else f"{line.whole:.4f}"
        same = "" if line.same is None else f"{line.same:.2%}"
        rows.append(f"| {line.way} | {line.step} | {whole} | {same} |")
    plain = next(line for line in lines if line.step is not None)
    return "\n".join([*rows, f"\nPlain step: {plain.plain_ms:.2f} ms; pairs: {plain.step.pairs if plain.step else 0}."])


def memory_table(found: list[Memory]) -> str:
    """A Markdown table of what a recording holds."""
    rows = [
        "\n### Memory, bytes per token and layer (k = 8)\n",
        "| phase | tokens | waiting for the next join | resident growth | of it Python objects | more while reading |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        reading = "not told" if one.reading is None else f"{one.reading:.0f}"
        rows.append(
            f"| {one.phase} | {one.tokens} | {one.waiting:.0f} | {one.resident:.0f} | {one.python:.1f} | {reading} |"
        )
    return "\n".join(rows)


def verdicts(results: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Sentences on the targets, and whether one was missed."""
    sentences, missed = ["\n### Targets\n"], False
    for result in results:
        found = {line.way: line for line in result["lines"] if line.step is not None}
        own, target = found.get("moeprobe"), TARGETS.get(result["phase"])
        if own is None or own.step is None:
            continue
        others = {
            name: line.step.median
            for name, line in found.items()
            if line.step is not None and (line.same is not None or result["phase"] == "generate")
        }
        rivals = [name for name in others if not name.startswith(("moeprobe", "null", "empty"))]
        least = min(rivals, key=others.__getitem__)
        met = target is None or own.step.median <= target
        missed |= not met
        aim = "" if target is None else f" (target {target}: {'met' if met else 'MISSED'})"
        sentences.append(
            f"- {result['model']}, {result['case']}: moeprobe {own.step.median:.4f}{aim}; null "
            f"{next(iter(found.values())).step.median:.4f}; cheapest other {least} {others[least]:.4f}"
            f"{'' if own.step.median < others[least] else ', WHICH IS LOWER'}."
        )
    return sentences, missed


def machine(device: torch.device) -> dict[str, str]:
    """Where and with what this was measured."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu}, 1 thread"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **peers.versions(),
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, default=lambda value: value.record())


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What recording costs, in pairs with the plain model.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs, 8 layers only; about a minute")
    parser.add_argument("--peers", action="store_true", help="nnsight and TransformerLens too, where installed")
    parser.add_argument("--phase", choices=("prefill", "decode", "generate"), help="only the cases of this kind")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; leave --device out to measure on the CPU")
    return options


if __name__ == "__main__":
    sys.exit(main())
