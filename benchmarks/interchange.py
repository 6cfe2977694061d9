"""What exact screening of a layer's experts costs: moeprobe, a loop of full forwards, and nnsight, with equal numbers.

    python benchmarks/interchange.py                                      # compiled, tiny, smollm2 in bf16 and fp32
    python benchmarks/interchange.py --peers /path/to/venv/bin/python     # with nnsight, installed there
    python benchmarks/interchange.py --cases tiny --repeats 10 --out table.md
    python benchmarks/interchange.py --cases --folder MODEL --layer 18    # another model
    python benchmarks/interchange.py --cases --screen MODEL               # screening by gradients against exact swaps

Every way does the same work: necessity and sufficiency of every expert of a layer for every pair. Times are CPU
seconds of the process that works, with one thread; ways take turns in random order, and ratios are medians within
turns. The command exits with 1 where numbers differ by more than rounding, or the screen misses its bar.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

if not __package__:  # run as a file: what is imported lies in the folder above, not in this one
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.pairs import Ratio, paired_ratio
from benchmarks.screening import demo_pairs
from benchmarks.swap_ways import ARMS, CASES, Bench, Case, Effects, Naive, Own, Peer, Server, Way, bench, growth
from moeprobe.interchange.lab import lab
from moeprobe.interchange.measure import measure
from moeprobe.interchange.screening import screen
from moeprobe.models import load_model
from moeprobe.sites import SiteSet

# Largest difference of an effect, in nats per token, that rounding explains. A logit of bf16 near 16 is known to 0.06.
TOLERANCE = {"torch.float32": 1e-4, "torch.bfloat16": 0.1}
# A difference of more than this share of the largest effect is pointed out, though rounding explains it.
COARSE = 0.2
SCREEN_BAR = 10.0
SIZES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Line:
    """A way's cost.

    Attributes:
        name: of the way.
        seconds: CPU seconds per expert, for all pairs of the case.
        ratio: to moeprobe's time in the same turns.
        difference: largest difference of an effect to moeprobe's, in nats per token.
        largest: largest effect, to see a difference against.
    """

    name: str
    seconds: float
    ratio: Ratio
    difference: float
    largest: float


def compare(one: Bench, ways: Sequence[Way], repeats: int, seed: int = 0) -> list[Line]:
    """Let ways take turns; the first is what the others are compared with."""
    for way in ways:
        way.run(0, 1)  # kernels and hooks are warm before the first turn
    generator = np.random.default_rng(seed)
    times: list[list[int]] = [[] for _ in ways]
    differences, largest = [0.0] * len(ways), 0.0
    for _ in range(repeats):
        for start in range(0, one.case.pairs, one.case.turn):
            stop = min(start + one.case.turn, one.case.pairs)
            found: dict[int, Effects] = {}
            for place in generator.permutation(len(ways)):
                found[int(place)], took = ways[place].run(start, stop)
                times[place].append(took)
            largest = max([largest, *(float(np.abs(found[0][arm]).max()) for arm in ARMS)])
            for place, effects in found.items():
                worst = max(float(np.abs(effects[arm] - found[0][arm]).max()) for arm in ARMS)
                differences[place] = max(differences[place], worst)
    turns = one.case.pairs / one.case.turn
    return [
        Line(
            way.name,
            float(np.median(times[place])) * turns / one.experts / 1e9,
            paired_ratio(times[0], times[place]),
            differences[place],
            largest,
        )
        for place, way in enumerate(ways)
    ]


def table(one: Bench, lines: Sequence[Line], repeats: int) -> str:
    """The lines of a case in markdown."""
    case, longest = one.case, max(max(len(pair.sensitive), len(pair.control)) for pair in one.pairs)
    head = f"### {case.name}: L{case.layer}, {one.experts} experts, {case.pairs} pairs of up to {longest} tokens"
    columns = "| way | CPU s per expert | times moeprobe's [95 % CI] | largest difference |"
    rows = [head, "", columns, "|---|---|---|---|"]
    for place, line in enumerate(lines):
        ratio = "1" if not place else f"{line.ratio.median:.2f} [{line.ratio.low:.2f}, {line.ratio.high:.2f}]"
        rows.append(f"| {line.name} | {line.seconds:.3f} | {ratio} | {line.difference:.1e} |")
    turns = repeats * -(-case.pairs // case.turn)
    about = f"{one.loaded.model.dtype}; {turns} turns of {case.turn} pairs; largest effect {lines[0].largest:.3g}."
    if max(line.difference for line in lines) > COARSE * lines[0].largest:
        about += " Rounding is as large as the effects here: see them in float32 before they are compared."
    return "\n".join([*rows, "", about, ""])


def run_case(case: Case, peers: str | None, repeats: int, sizes: Sequence[int]) -> tuple[str, bool]:
    """The table of a case, and whether all numbers are the same."""
    one = bench(case)
    others = [Own(one, size) for size in sizes if size != 16]
    ways: list[Way] = [Own(one), *others, Own(one, resuming=False), Naive(one)]
    with tempfile.TemporaryDirectory() as folder:
        note, server = "", None
        if peers is not None:
            try:
                server = Server(peers, one, Path(folder))
                server.ask("nnsight", 0, 1)
                ways.append(Peer(server))
            except RuntimeError as error:
                note = f"nnsight could not do it: {error}\n"
        try:
            lines = compare(one, ways, repeats)
        finally:
            if server is not None:
                server.close()
    same = all(line.difference <= TOLERANCE[str(one.loaded.model.dtype)] for line in lines)
    return table(one, lines, repeats) + note + ("" if same else "THE NUMBERS DIFFER.\n"), same


def memory(case: Case, sizes: Sequence[int]) -> str:
    """Growth of the process at its peak, each way in a process of its own."""
    rows = [f"| {case.name}: way | growth at the peak, MiB |", "|---|---|"]
    for way in ("naive", *(str(size) for size in sizes)):
        command = [sys.executable, __file__, "--grow", way, "--case-json", json.dumps(vars(case))]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        size = int(found.stdout.split()[-1]) / 2**20
        rows.append(f"| {'naive loop' if way == 'naive' else f'moeprobe, batch {way}'} | {size:.0f} |")
    return "\n".join([*rows, ""])


def screening(model: str, count: int, turn: int, dtype: str) -> tuple[str, bool]:
    """Time of a screen of all experts against exact swaps of all, in turns; and whether it meets the bar."""
    loaded = load_model(model, dtype=dtype)
    pairs, one = demo_pairs(loaded, count), lab(loaded, batch_size=16)
    sites = screen(one, pairs[:1], arms=ARMS).sites
    sets = [SiteSet("", (site,)) for site in sites]
    times: tuple[list[float], list[float]] = ([], [])
    for place in range(0, count, turn):
        part = pairs[place : place + turn]
        begin = time.process_time()
        screen(one, part, arms=ARMS)
        middle = time.process_time()
        measure(one, part, sets, ARMS)
        times[0].append(middle - begin)
        times[1].append(time.process_time() - middle)
        print(f"  {place + len(part)} pairs: screen {times[0][-1]:.1f} s, exact {times[1][-1]:.1f} s", flush=True)
    ratio, met = paired_ratio(*times), sum(times[1]) >= SCREEN_BAR * sum(times[0])
    text = (
        f"Screening {Path(model).name} ({len(sets)} experts, {count} pairs, {loaded.model.dtype}): {sum(times[0]):.1f} "
        f"CPU s; exact swaps {sum(times[1]):.1f} CPU s: {sum(times[1]) / sum(times[0]):.1f} times as long "
        f"(median over turns of {turn} pairs {ratio.median:.1f} [{ratio.low:.1f}, {ratio.high:.1f}]); "
        f"bar {SCREEN_BAR:g}: {'met' if met else 'MISSED'}.\n"
    )
    return text, met


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--folder", help="a further model, of a Qwen family")
    parser.add_argument("--layer", type=int, default=18, help="of that model")
    parser.add_argument("--dtype", default="auto", help="of that model and of --screen")
    parser.add_argument("--pairs", type=int, help="in all; default: the case's")
    parser.add_argument("--turn", type=int, help="pairs in one turn; default: the case's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES), help="batch sizes")
    parser.add_argument("--memory", action="store_true", help="memory only, no times")
    parser.add_argument("--peers", help="Python of an environment with torch, transformers and nnsight")
    parser.add_argument("--screen", help="time a screen of this model's experts")
    parser.add_argument("--screen-pairs", type=int, default=32)
    parser.add_argument("--screen-turn", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    parser.add_argument("--case-json", help=argparse.SUPPRESS)
    return parser.parse_args()


def asked(options: argparse.Namespace) -> list[Case]:
    """The cases that are asked for."""
    cases = [CASES[name] for name in options.cases]
    if options.folder:
        cases.append(Case(Path(options.folder).name, options.folder, options.dtype, options.layer))
    pairs, turn = options.pairs, options.turn
    return [replace(one, pairs=pairs or one.pairs, turn=min(turn or one.turn, pairs or one.pairs)) for one in cases]


def main() -> None:
    """Run what is asked for; the exit status says whether it held."""
    options = parsed()
    torch.set_num_threads(1)
    if options.grow is not None:
        case = Case(**json.loads(options.case_json))
        one = bench(case)
        print(growth(Naive(one) if options.grow == "naive" else Own(one, int(options.grow)), case.pairs))
        return
    texts, good = [], True
    for case in asked(options):
        text, held = (
            (memory(case, options.sizes), True)
            if options.memory
            else run_case(case, options.peers, options.repeats, options.sizes)
        )
        print(text, flush=True)
        texts.append(text)
        good &= held
    if options.screen:
        text, held = screening(options.screen, options.screen_pairs, options.screen_turn, options.dtype)
        print(text, flush=True)
        texts.append(text)
        good &= held
    if options.out is not None:
        options.out.write_text("\n".join(texts), encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
