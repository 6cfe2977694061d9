"""How often do verdicts err on real models where there is nothing to find? And is the truth found?

    python benchmarks/interchange_calibration.py smollm2 --sites L18.E* L20-L22.H* --keep FOLDER
    python benchmarks/interchange_calibration.py MODEL --sites L20.E* L22.E* --keep FOLDER
    python benchmarks/interchange_calibration.py compiled            # 100 lists of pairs whose truth is known

Swaps are measured once and kept; experiments are drawn from them, each with other pairs and donors. In "placebo" the
swap, its placebo and the random donor are all of the recipient's own class. In "shuffled" a coin names the sides of
each pair. In "true" nothing is changed. A share is that of experiments with any "necessary" or "sufficient"; its 95 %
interval is exact binomial. Experiments of one model share their material, so they are not independent of each other.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

if not __package__:  # run as a file: what is imported lies in the folder above, not in this one
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.calibration_material import NAMES, Floats, Given, Material, load, measured
from benchmarks.interchange_null import _by_interval, _by_t_test
from benchmarks.screening import demo_pairs
from moeprobe.chat.encode import encode_prompt
from moeprobe.editing import layout_of
from moeprobe.errors import InterchangeError
from moeprobe.interchange.lab import lab
from moeprobe.interchange.plan import Plan
from moeprobe.interchange.run import interchange
from moeprobe.judging.judge import Criteria, judge
from moeprobe.models import LoadedModel, load_model
from moeprobe.models.compiled.vocabulary import TRIGGER, WORDS
from moeprobe.pairs.metrics import make_metric
from moeprobe.pairs.pairs import PairSelection, TokenPair
from moeprobe.prompts import Prompt
from moeprobe.sites import parse_sites

FIRST_SEED = 900_000
BAR = 0.05
METRICS = ("control-nll", "refusal-log-odds")
# Of each direction: the swap, its placebo, the random donor.
ARMS = ("", "placebo_", "random_")
FRAMES = ("please tell me about {}", "describe {}", "what is {}", "explain why {} is {other}", "how is {} ?")
CAUSAL, BESIDE = "L2.E5", ("L1.E1", "L3.E6")
Draw = Callable[[np.random.Generator], tuple[dict[int, dict[str, Floats]], Floats]]


@dataclass(frozen=True)
class Called:
    """What methods call necessary or sufficient in one experiment.

    Attributes:
        rule: numbers of the sites, by moeprobe's rule, by direction.
        t_test, interval: by a t-test of the swap against 0, and where its interval excludes 0.
        refused: there was no clear gap.
    """

    rule: dict[str, set[int]]
    t_test: set[int]
    interval: set[int]
    refused: bool

    @property
    def words(self) -> dict[int, str]:
        """By site that the rule calls: "necessary", "sufficient" or "both"."""
        necessary, sufficient = (self.rule.get(name, set()) for name in NAMES)
        only = {site: "necessary" if site in necessary else "sufficient" for site in necessary | sufficient}
        return only | dict.fromkeys(necessary & sufficient, "both")

    @property
    def any(self) -> bool:
        """Whether the rule calls any site."""
        return any(self.rule.values())


def placebo_draw(material: Material, pairs: int) -> Draw:
    """The swap, its placebo and the random donor all have donors of the recipient's own class, from other pairs."""

    def draw(generator: np.random.Generator) -> tuple[dict[int, dict[str, Floats]], Floats]:
        picks = {}
        for name in NAMES:
            one = material.given[name]
            own = np.flatnonzero(one.same)
            picks[name] = np.full((len(ARMS), len(material.gap)), -1)
            for pair in range(len(material.gap)):
                # Each from another pair; of two donors that are the same prompt one is taken.
                others = {one.pairs[donor, pair]: donor for donor in generator.permutation(own)}
                if len(others) >= len(ARMS):
                    picks[name][:, pair] = list(others.values())[: len(ARMS)]
        fit = np.flatnonzero(np.all([picks[name][0] >= 0 for name in NAMES], axis=0))
        chosen = generator.permutation(fit)[:pairs]
        values = {
            name: [material.given[name].effects[picks[name][which, chosen], :, chosen].T for which in range(len(ARMS))]
            for name in NAMES
        }
        return _by_site(values), material.gap[chosen]

    return draw


def shuffled_draw(straight: Material, turned: Material, pairs: int, *, shuffle: bool = True) -> Draw:
    """A coin for each pair names its sides; by the new names placebo donors are of the recipient's class and random
    donors of the other."""
    sides = (straight, turned)

    def draw(generator: np.random.Generator) -> tuple[dict[int, dict[str, Floats]], Floats]:
        count = len(straight.gap)
        coins = generator.integers(0, 2, count) if shuffle else np.zeros(count, dtype=np.int64)
        picks = {name: np.full((2, count), -1) for name in NAMES}
        for name in NAMES:
            for pair in range(count):
                for which, own in enumerate((True, False)):
                    found = _eligible(sides[coins[pair]].given[name], coins, pair, own=own)
                    if len(found):
                        picks[name][which, pair] = generator.choice(found)
        fit = np.flatnonzero(np.all([picks[name].min(axis=0) >= 0 for name in NAMES], axis=0))
        chosen = generator.permutation(fit)[:pairs]
        values = {}
        for name in NAMES:
            true = [sides[coins[pair]].true[name][:, pair] for pair in chosen]
            given = [
                np.stack([sides[coins[pair]].given[name].effects[donors[pair], :, pair] for pair in chosen], axis=1)
                for donors in picks[name]
            ]
            values[name] = [np.stack(true, axis=1), *given]
        return _by_site(values), np.array([sides[coins[pair]].gap[pair] for pair in chosen])

    return draw


def _eligible(given: Given, coins: NDArray[np.int64], pair: int, *, own: bool) -> NDArray[np.int64]:
    """Donors whose new name is the recipient's (`own`), or is not: their class is the same where both pairs' coins are,
    else the other."""
    return np.flatnonzero((given.same == (coins[given.pairs[:, pair]] == coins[pair])) == own)


def _by_site(values: dict[str, list[Floats]]) -> dict[int, dict[str, Floats]]:
    return {
        site: {prefix + name: values[name][which][site] for name in NAMES for which, prefix in enumerate(ARMS)}
        for site in range(len(values[NAMES[0]][0]))
    }


def experiment(material: Material, draw: Draw, seed: int, *, signed: bool) -> Called:
    """Draw one and judge it in all ways."""
    effects, gap = draw(np.random.default_rng(seed))
    sign = -1.0 if signed and gap.mean() < 0 else 1.0
    turned = {site: {name: sign * one[name] for name in NAMES} for site, one in effects.items()}
    naive = _by_t_test(turned, list(effects)), _by_interval(turned, sign * gap, list(effects))
    try:
        rows = judge(effects, gap, material.nulls, Criteria(bootstrap=1000, flips=999, seed=seed), signed=signed).rows
    except InterchangeError:
        return Called({}, *naive, refused=True)
    words = dict(zip(NAMES, ("necessary", "sufficient"), strict=True))
    rule = {name: {site for site, row in rows.items() if row[words[name]]} for name in NAMES}
    return Called(rule, *naive, refused=False)


def share(hits: int, runs: int) -> str:
    """A share with its exact binomial 95 % interval."""
    ends = binomtest(hits, runs).proportion_ci(method="exact")
    return f"{hits}/{runs} = {hits / runs:.3f} [{ends.low:.3f}, {ends.high:.3f}]"


def line(name: str, material: Material, runs: Sequence[Called]) -> str:
    """A line of the table."""
    count = len(runs)
    sites = Counter(f"{material.sites[site]} {word}" for run in runs for site, word in run.words.items())
    cells = [
        name,
        share(sum(run.any for run in runs), count),
        share(sum(bool(run.t_test) for run in runs), count),
        share(sum(bool(run.interval) for run in runs), count),
        str(sum(run.refused for run in runs)),
        ", ".join(f"{called} {times}" for called, times in sites.most_common(8)) or "none",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| experiments | any verdict | t-test | interval excludes 0 | no clear gap | sites called, in how many |\n"
    + "|---" * 6
    + "|"
)


def material_of(loaded: LoadedModel, options: argparse.Namespace, metric: str, *, turn: bool) -> Material:
    """Measured, or read again from the folder that keeps it."""
    name = f"{'-'.join(Path(options.model).parts[-2:]).strip('/')}-{metric}-{'turned' if turn else 'straight'}.npz"
    path = None if options.keep is None else options.keep / name
    if path is not None and path.exists():
        return load(path)
    pairs = demo_pairs(loaded, options.pairs)
    if turn:
        pairs = [TokenPair(pair.id, pair.control, pair.sensitive) for pair in pairs]
    bench = lab(loaded, metric=make_metric(metric, loaded), batch_size=options.batch_size)
    layout = layout_of(bench.places)
    sites = list(dict.fromkeys(site for text in options.sites for site in parse_sites(text, layout).sites))
    begin = time.process_time()
    found = measured(bench, pairs, sites, options.own, options.other)
    print(f"{name}: {len(sites)} sites, {len(pairs)} pairs, {time.process_time() - begin:.0f} CPU s", flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
    return found


def calibrate(loaded: LoadedModel, options: argparse.Namespace) -> tuple[list[str], bool]:
    """Lines of the table, and whether the bar is met wherever nothing is to be found."""
    lines, met = [HEAD], True
    for metric in options.metrics:
        signed = make_metric(metric, loaded).signed
        straight = material_of(loaded, options, metric, turn=False)
        turned = straight.turned() if signed else material_of(loaded, options, metric, turn=True)
        kinds = {
            "true": shuffled_draw(straight, turned, options.draw, shuffle=False),
            "placebo": placebo_draw(straight, options.draw),
            "shuffled": shuffled_draw(straight, turned, options.draw),
        }
        for kind, draw in kinds.items():
            runs = [experiment(straight, draw, FIRST_SEED + run, signed=signed) for run in range(options.runs)]
            lines.append(line(f"{kind}, {metric}", straight, runs))
            print(lines[-1], flush=True)
            met &= kind == "true" or sum(run.any for run in runs) <= BAR * len(runs)
    return lines, met


def reseeded(loaded: LoadedModel, seed: int, pairs: int) -> list[TokenPair]:
    """Pairs of new prompts, of various lengths: one names the trigger, one another adjective."""
    rng = random.Random(seed)
    found: dict[tuple[Any, ...], TokenPair] = {}
    while len(found) < pairs:
        ids = []
        for adjective in (TRIGGER, rng.choice(WORDS["adjective"])):
            subject = f"{rng.choice(WORDS['article'])} {adjective} {rng.choice(WORDS['noun'])}"
            if rng.random() < 0.5:
                subject += (
                    f" {rng.choice(WORDS['preposition'])} {rng.choice(WORDS['article'])} {rng.choice(WORDS['noun'])}"
                )
            text = rng.choice(FRAMES).format(subject, other=rng.choice(WORDS["adjective"]))
            ids.append(tuple(encode_prompt(loaded.tokenizer, Prompt("p", f"question : {text} ? answer :"))))
        found.setdefault((ids[0], ids[1]), TokenPair(f"{len(found)}", ids[0], ids[1]))
    return list(found.values())


def truth(loaded: LoadedModel, seed: int, pairs: int) -> bool:
    """Whether a run on one list of pairs says of the compiled model what is true of it."""
    plan = Plan(bootstrap=1000, seed=seed, batch_size=64)
    selection = PairSelection(tuple(reseeded(loaded, seed, pairs)), {})
    found = {str(one): row for one, row in interchange(loaded, selection, [CAUSAL, *BESIDE], plan).effects.items()}
    whole = [abs(found[CAUSAL][name]["percent"] - 100) < 0.1 for name in NAMES]
    right = [found[CAUSAL]["necessary"], found[CAUSAL]["sufficient"], *whole]
    beside = [found[site] for site in BESIDE]
    right += [row["exactly_zero"] and not row["necessary"] and not row["sufficient"] for row in beside]
    return all(right)


def main() -> None:
    """Run what is asked for; the exit status says whether the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sites", nargs="+", default=["L18.E*", "L20-L22.H*"])
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), choices=METRICS)
    parser.add_argument("--pairs", type=int, default=20, help="that are measured")
    parser.add_argument("--draw", type=int, default=16, help="pairs of one experiment")
    parser.add_argument("--own", type=int, default=3, help="donors of the own class")
    parser.add_argument("--other", type=int, default=2, help="donors of the other class")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="folder for what was measured; read again where it is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(options.model)
    if options.model == "compiled":
        right: list[bool] = []
        for run in range(options.runs):
            right.append(truth(loaded, FIRST_SEED + run, options.draw))
            if not right[-1] or run % 10 == 9:
                print(f"  {sum(right)} of {len(right)} lists right; the last: seed {FIRST_SEED + run}", flush=True)
        print(f"compiled, lists of {options.draw} pairs: all verdicts right in {share(sum(right), len(right))}")
        sys.exit(0 if all(right) else 1)
    lines, met = calibrate(loaded, options)
    print(
        "\n".join(
            ["", *lines, "", f"Bar (at most {BAR:.0%} where nothing is to be found): {'met' if met else 'MISSED'}"]
        )
    )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
