"""The screen against exact swaps of the same sites: time, rank correlation, recall of the exact first ten.

    python benchmarks/screening.py smollm2 --kinds expert --pairs 32
    python benchmarks/screening.py /path/to/model --kinds expert --pairs 32 --dtype float32
    python benchmarks/screening.py smollm2 --kinds head --pairs 6

Pairs are the demo's refusal prompts. Times are CPU seconds of this process (other work on the machine does not count),
on one thread unless OMP_NUM_THREADS says otherwise. Every figure is printed as it is measured.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import moeprobe.demo
from moeprobe.interchange.lab import lab
from moeprobe.interchange.measure import Effects, measure
from moeprobe.interchange.screen import SWAPS, Screen
from moeprobe.interchange.screen_quality import quality
from moeprobe.interchange.screening import screen
from moeprobe.models import LoadedModel, load_model
from moeprobe.pairs import encode_pairs, make_metric, read_pairs
from moeprobe.pairs.pairs import TokenPair, label_members, select_pairs
from moeprobe.prompts import read_prompts
from moeprobe.sites import SiteSet

PROMPTS = Path(moeprobe.demo.__file__).parent / "prompts" / "refusal.jsonl"


def demo_pairs(loaded: LoadedModel, count: int) -> list[TokenPair]:
    """The first pairs of the demo's refusal prompts, harmful against harmless, as the chat template writes them."""
    prompts = read_prompts(PROMPTS)
    ids = [
        loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": one.prompt}], add_generation_prompt=True, return_dict=False
        )
        for one in prompts
    ]
    return list(select_pairs(label_members(prompts, ids, "harmful", "harmless")).pairs)[:count]


def timed(work: object) -> tuple[object, float]:
    """What a call gives and its CPU seconds."""
    start = time.process_time()
    result = work()  # type: ignore[operator]  # a plain call
    return result, time.process_time() - start


def compare(result: Screen, exact: Effects, effect: str, wanted: int, share: float) -> None:
    """Print how one effect was ranked."""
    means = {one.sites[0]: float(values[effect].mean()) for one, values in exact.sites.items()}
    wanted = min(wanted, sum(value != 0 for value in means.values()))
    count = int(np.ceil(share * len(result.sites)))
    order = [str(site) for site in sorted(means, key=lambda site: -abs(means[site]))]
    ranks = {str(site): place + 1 for place, site in enumerate(result.ranking(effect))}
    gap = exact.gap.mean()
    print(f"\n{effect}: gap {gap:.4f}; exact first {wanted} (percent of gap, rank of the estimate, estimate)")
    shares = dict(zip(map(str, result.sites), result.shares(effect), strict=True))
    for name in order[:wanted]:
        value = next(value for site, value in means.items() if str(site) == name)
        print(f"  {name:10s} {100 * value / gap:8.2f} {ranks[name]:4d} {shares[name]:8.2f}")
    inside = sum(ranks[name] <= count for name in order[:wanted])
    print(f"  within the first {count} of {len(ranks)} ({share:.0%}) by this estimate alone: {inside} of {wanted}")
    chosen = result.select(share=share, wanted=max(wanted // 3, 1))
    found = sum(name in {str(site) for site in chosen} for name in order[:wanted])
    print(f"  within the first {share:.0%} of either swap ({len(chosen)} sites): {found} of {wanted}")
    if len(chosen) >= wanted:
        record = quality(result, effect, means, selected=chosen, audited=result.others(chosen), wanted=wanted)
        print(" ", record.sentence)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kinds", nargs="+", default=["expert"])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--wanted", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--metric", default="control-nll")
    parser.add_argument("--file", type=Path, help="a pair file instead of the demo's refusal pairs")
    parser.add_argument("--no-exact", action="store_true", help="only time the screen")
    options = parser.parse_args()
    loaded = load_model(options.model, dtype=options.dtype)
    pairs = demo_pairs(loaded, options.pairs)
    if options.file is not None:
        pairs = list(encode_pairs(loaded, read_pairs(options.file)))[: options.pairs]
    bench = lab(loaded, metric=make_metric(options.metric, loaded), batch_size=options.batch_size)
    print(f"{options.model}: {len(pairs)} pairs, {torch.get_num_threads()} threads, {loaded.model.dtype}")
    result, screened = timed(lambda: screen(bench, pairs, kinds=options.kinds, arms=SWAPS))
    assert isinstance(result, Screen)  # noqa: S101  # for the type checker
    print(f"screen of {len(result.sites)} sites, both directions: {screened:.1f} CPU s", flush=True)
    if options.no_exact:
        return
    sets = [SiteSet(str(site), (site,)) for site in result.sites]
    exact, swapped = timed(lambda: measure(bench, pairs, sets, SWAPS))
    assert isinstance(exact, Effects)  # noqa: S101  # for the type checker
    print(f"exact swaps of all: {swapped:.1f} CPU s, {swapped / screened:.1f} times the screen")
    print(f"scores agree to {np.abs(result.sensitive - exact.sensitive).max():.2g}")
    for effect in SWAPS:
        compare(result, exact, effect, options.wanted, options.share)


if __name__ == "__main__":
    main()
