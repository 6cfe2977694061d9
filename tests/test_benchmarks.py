"""The benchmark's own arithmetic: ratios, intervals, the null, a slow hook that must be found, and the GPU's shapes."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.capture import CPU, CUDA, Part, built, table, verdicts
from benchmarks.cases import Case, Line, run_case
from benchmarks.memory import measure
from benchmarks.models import qwen3_moe, skeleton
from benchmarks.pairs import Pairs, Ratio, paired_ratio
from benchmarks.ways import Lists, Moeprobe, RouterLogits, Way, agreement

CPU_DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Slow(Moeprobe):
    """A recorder that wastes a tenth of a millisecond and more in every step."""

    name = "slow"

    def step(self, ids: Tensor, cache: Any) -> Any:
        until = time.process_time_ns() + 3_000_000
        while time.process_time_ns() < until:
            pass
        return super().step(ids, cache)


class Forgetful(Moeprobe):
    """A recorder that loses the last layer: it does not do the same job."""

    name = "forgetful"

    def finish(self) -> Any:
        routing = super().finish()
        routing.pop(max(routing), None)
        return routing


def test_the_ratio_is_the_median_within_pairs() -> None:
    # The machine slows down tenfold half-way; ratios by hand: 1.1, 1.2, 1.0, 1.3, 1.1, median 1.1.
    found = paired_ratio([10, 10, 100, 100, 100], [11, 12, 100, 130, 110])
    assert found.median == pytest.approx(1.1)
    assert found.low <= found.median <= found.high
    assert (found.low, found.high) == pytest.approx((1.0, 1.3))


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        plain = random.lognormal(0, 0.3, 60)
        other = plain * 1.05 * random.lognormal(0, 0.1, 60)
        found = paired_ratio(plain, other, resamples=400, seed=seed)
        covered += found.low <= 1.05 <= found.high
    # 190 expected; the standard deviation of the count is 3.
    assert 178 <= covered <= 200


@pytest.mark.parametrize(("plain", "other"), [([], []), ([1, 2], [1]), ([0, 1], [1, 1])])
def test_times_that_are_no_pairs_are_refused(plain: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="time"):
        paired_ratio(plain, other)


def test_both_come_first_about_as_often() -> None:
    order: list[str] = []
    pairs = Pairs(lambda: order.append("plain"), lambda: order.append("other"), lambda: len(order) * 2 + 1)
    for _ in range(200):
        pairs.run()
    first = order[::2].count("plain")
    assert 70 <= first <= 130
    assert len(pairs.times[0]) == len(pairs.times[1]) == 200


def test_a_slow_hook_is_found_and_the_null_is_not() -> None:
    model = qwen3_moe(2, torch.float32, small=True)
    null, quick, slow = run_case(Case("decode", 1, 16, pairs=20), model, [Moeprobe, Slow], CPU_DEVICE)
    assert null.step is not None
    assert quick.step is not None
    assert slow.step is not None
    assert slow.plain_ms is not None
    wasted = 3 / slow.plain_ms
    assert slow.step.median - 1 == pytest.approx(wasted, rel=0.5)
    assert slow.step.low > max(null.step.median, 1 + wasted / 2)
    assert null.step.median == pytest.approx(1, abs=wasted / 4)
    assert quick.step.median < slow.step.low


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_way_gives_the_same_experts_for_every_token(phase: str) -> None:
    model = qwen3_moe(2, torch.float32, small=True)
    lines = run_case(Case(phase, 2, 8, pairs=4, warm=1), model, [Moeprobe, Lists, RouterLogits], CPU_DEVICE)
    assert [line.same for line in lines] == [None, 1, 1, 1]
    assert all(line.whole is not None and line.step is not None and line.whole > line.step.median for line in lines[1:])


def test_a_way_that_loses_a_layer_is_refused() -> None:
    model = qwen3_moe(2, torch.float32, small=True)
    with pytest.raises(ValueError, match="rows by layer"):
        run_case(Case("decode", 1, 8, pairs=4, warm=1), model, [Forgetful], CPU_DEVICE)


def test_agreement_counts_ids() -> None:
    weights = np.ones((2, 2), dtype=np.float32)
    one = {0: (np.array([[1, 2], [3, 4]]), weights)}
    assert agreement({0: (np.array([[1, 2], [3, 5]]), weights)}, one) == 0.75
    with pytest.raises(ValueError, match="another job"):
        agreement({0: (np.array([[1, 2]]), weights[:1])}, one)


def test_skeletons_share_weights_and_nothing_else() -> None:
    model = qwen3_moe(1, torch.float32, small=True)
    other = skeleton(model)
    pairs = list(zip(model.parameters(), other.parameters(), strict=True))
    assert all(mine is yours for mine, yours in pairs)
    other.register_forward_pre_hook(lambda *_: None)
    assert not model._forward_pre_hooks


def test_memory_of_a_recording() -> None:
    found = measure("prefill", layers=2, tokens=2048)
    # 8 ids of 8 bytes and 8 weights of 4 bytes, and no larger tensor kept alive behind them.
    assert found.waiting == 96


def test_the_shape_for_a_gpu_runs_small_on_a_cpu() -> None:
    """Linear attention cannot be cropped: both sides grow instead, and stay equal."""
    for part in CUDA:
        model = built(part.model, CPU_DEVICE, small=True)
        assert next(model.parameters()).dtype == torch.bfloat16
        lines = run_case(Case("decode", 1, 8, pairs=4, warm=1), model, [Moeprobe, Lists], CPU_DEVICE)
        assert [line.same for line in lines] == [None, 1, 1]


def test_the_shape_for_a_gpu_is_the_checkpoints_at_full_size() -> None:
    model = built(CUDA[0].model, torch.device("meta"))
    # shared/CAPTURE.md, section 5: 34.661 B parameters, 40 layers of 256 experts, top-8.
    assert sum(one.numel() for one in model.parameters()) == pytest.approx(34.661e9, abs=5e5)
    experts = [module for name, module in model.named_modules() if name.endswith(".mlp.experts")]
    assert len(experts) == 40
    assert experts[0].down_proj.shape == (256, 2048, 512)


def test_verdicts_name_a_missed_target_and_a_cheaper_tool() -> None:
    def line(way: str, median: float, same: float | None = 1) -> Line:
        return Line(way, Ratio(median, median, median, 5), median, 10.0, same)

    case = {"model": "m", "case": "c", "phase": "decode"}
    good = {**case, "lines": [line("null", 1, None), line("moeprobe", 1.005), line("nnsight", 1.1)]}
    bad = {**case, "lines": [line("null", 1, None), line("moeprobe", 1.02), line("nnsight", 1.01)]}
    (heading, met), missed = verdicts([good])
    assert not missed
    assert "Targets" in heading
    assert "met" in met
    assert "LOWER" not in met
    (_, sentence), missed = verdicts([bad])
    assert missed
    assert "MISSED" in sentence
    assert "WHICH IS LOWER" in sentence
    assert "| nnsight | 1.0100 [1.0100, 1.0100] | 1.0100 | 100.00% |" in table("t", bad["lines"])


def test_an_absent_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    kinds, notes = peers.found()
    assert kinds == []
    assert [note.split()[0] for note in notes] == ["nnsight", "transformer_lens"]


def test_parts_are_what_the_issue_asks_for() -> None:
    cases = {(part.model, case.phase, case.batch) for part in CPU for case in part.cases}
    assert {batch for _, phase, batch in cases if phase == "decode"} == {1, 16}
    assert {batch for _, phase, batch in cases if phase == "prefill"} == {1, 16}
    assert {model.split(", ")[1] for model, _, _ in cases} == {"8 layers", "40 layers"}
    assert all(isinstance(part, Part) and issubclass(kind, Way) for part in CPU for kind in part.kinds)
