"""Ways to swap every expert of a layer, for benchmarks/interchange.py: moeprobe's own, a naive loop, nnsight's."""

import json
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from benchmarks.naive_swaps import Hooked, Job, swap_all
from benchmarks.screening import PROMPTS, demo_pairs
from moeprobe.chat.encode import encode_prompt
from moeprobe.interchange.lab import lab
from moeprobe.interchange.measure import measure
from moeprobe.models import LoadedModel, load_model
from moeprobe.pairs.metrics import ControlNLL
from moeprobe.pairs.pairs import TokenPair, label_members, select_pairs
from moeprobe.prompts import read_prompts
from moeprobe.sites import SiteSet, expert_site

Floats = NDArray[np.float64]
Effects = dict[str, Floats]
ARMS = ("necessity", "sufficiency")
TOKENS = 5


@dataclass(frozen=True)
class Case:
    """What is measured on.

    Attributes:
        name: for the table.
        model: as `load_model` names it, or "tiny".
        dtype: as `load_model` names it.
        layer: whose experts are swapped.
        pairs: how many in all.
        turn: pairs that every way does before the next way has its turn.
    """

    name: str
    model: str
    dtype: str
    layer: int
    pairs: int = 8
    turn: int = 4


CASES = {
    one.name: one
    for one in (
        Case("compiled", "compiled", "float32", 2, 16, 16),
        Case("tiny", "tiny", "float32", 4, 16, 16),
        Case("smollm2-bf16", "smollm2", "bfloat16", 18),
        Case("smollm2-fp32", "smollm2", "float32", 18),
    )
}


@dataclass(frozen=True)
class Bench:
    """A loaded case."""

    case: Case
    loaded: LoadedModel
    pairs: list[TokenPair]

    @property
    def experts(self) -> int:
        """Experts of a layer."""
        return int(self.loaded.model.config.num_experts)

    def job(self) -> Job:
        """The same work in plain words."""
        pairs = [(pair.sensitive, pair.control) for pair in self.pairs]
        return Job(self.case.layer, self.experts, TOKENS, sorted(self.loaded.end_tokens), pairs)


def bench(case: Case) -> Bench:
    """Load a case."""
    if case.model == "tiny":
        return Bench(case, tiny_model(), tiny_pairs(case.pairs))
    loaded = load_model(case.model, dtype=case.dtype)
    if case.model == "compiled":
        return Bench(case, loaded, compiled_pairs(loaded)[: case.pairs])
    return Bench(case, loaded, demo_pairs(loaded, case.pairs))


def compiled_pairs(loaded: LoadedModel) -> list[TokenPair]:
    """The demo's pairs for the compiled model."""
    prompts = read_prompts(PROMPTS.with_name("compiled.jsonl"))
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    return list(select_pairs(label_members(prompts, ids, "triggered")).pairs)


def tiny_model() -> LoadedModel:
    """A random Qwen2Moe of 8 layers with 16 experts, top 4, in which every expert writes."""
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=512,
        hidden_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        num_experts=16,
        num_experts_per_tok=4,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        experts_implementation="eager",
    )
    model = Qwen2MoeForCausalLM._from_config(config).train(False)
    return LoadedModel(model, load_model("compiled").tokenizer, "tiny", {"class": "Qwen2Moe", "dtype": "float32"})


def tiny_pairs(count: int) -> list[TokenPair]:
    """Pairs of random words, 16 to 28 tokens long."""
    generator = np.random.default_rng(0)
    drawn = [
        [tuple(generator.integers(5, 60, int(generator.integers(16, 29))).tolist()) for _ in range(2)]
        for _ in range(count)
    ]
    return [TokenPair(str(number), *both) for number, both in enumerate(drawn)]


class Way(Protocol):
    """One way: the effects (experts, pairs) of some pairs by arm, the CPU nanoseconds, the peak of memory in bytes."""

    name: str

    def run(self, start: int, stop: int) -> tuple[Effects, int]:
        """Do the pairs from start to stop."""


class Own:
    """moeprobe's `measure`.

    Args:
        one: the case.
        batch_size: runs per forward.
        resuming: whether edited runs begin at the edited layer.
    """

    def __init__(self, one: Bench, batch_size: int = 16, *, resuming: bool = True) -> None:
        self.one, self.resuming = one, resuming
        self.lab = lab(one.loaded, metric=ControlNLL(TOKENS), batch_size=batch_size)
        self.sets = [SiteSet("", (expert_site(one.case.layer, expert),)) for expert in range(one.experts)]
        self.name = f"moeprobe, batch {batch_size}" + ("" if resuming else ", whole forwards")

    def run(self, start: int, stop: int) -> tuple[Effects, int]:
        """Do the pairs from start to stop."""
        begin = time.process_time_ns()
        with nullcontext() if self.resuming else whole_forwards():
            found = measure(self.lab, self.one.pairs[start:stop], self.sets, ARMS)
        took = time.process_time_ns() - begin
        return {arm: np.stack([found.sites[one][arm] for one in self.sets]) for arm in ARMS}, took


@contextmanager
def whole_forwards() -> Iterator[None]:
    """Edited runs begin at the first layer, as where a family's layers cannot be resumed."""
    with patch("moeprobe.interchange.trial.holds", lambda *_: False):
        yield


class Naive:
    """A loop of full forwards with plain hooks; one pair, one expert, one direction at a time."""

    name = "naive loop"

    def __init__(self, one: Bench) -> None:
        self.hooked, self.job = Hooked(one.loaded.model, one.case.layer), one.job()

    def run(self, start: int, stop: int) -> tuple[Effects, int]:
        """Do the pairs from start to stop."""
        begin = time.process_time_ns()
        found = swap_all(self.hooked, self.job.part(start, stop))
        return found, time.process_time_ns() - begin


class Server:
    """The naive loop or nnsight in a process of another environment.

    Args:
        python: of that environment.
        one: the case; its model is saved into `folder`.
        folder: an empty one.

    Raises:
        RuntimeError: the process ended; its last words are in the message.
    """

    def __init__(self, python: str, one: Bench, folder: Path) -> None:
        one.loaded.model.save_pretrained(folder / "model")
        (folder / "job.json").write_text(json.dumps(one.job().record()), encoding="utf-8")
        self.log = folder / "log.txt"
        script = str(Path(__file__).with_name("swap_server.py"))
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [python, script, str(folder / "model"), str(folder / "job.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answer()

    def ask(self, way: str, start: int, stop: int) -> dict[str, Any]:
        """Do the pairs from start to stop in one way."""
        if self.process.stdin is not None:
            self.process.stdin.write(json.dumps({"way": way, "start": start, "stop": stop}) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        line = "" if self.process.stdout is None else self.process.stdout.readline()
        while line and not line.startswith("{"):
            line = "" if self.process.stdout is None else self.process.stdout.readline()
        if not line:
            raise RuntimeError("The other environment gave up: " + self.log.read_text(encoding="utf-8")[-2000:])
        answer: dict[str, Any] = json.loads(line)
        return answer


class Peer:
    """nnsight: the naive loop with one trace per forward, in an environment of its own."""

    name = "nnsight"

    def __init__(self, server: Server) -> None:
        self.server = server

    def run(self, start: int, stop: int) -> tuple[Effects, int]:
        """Do the pairs from start to stop."""
        answer = self.server.ask("nnsight", start, stop)
        return {arm: np.array(values) for arm, values in answer["effects"].items()}, answer["ns"]


def resident(name: str) -> int:
    """A line of /proc/self/status ("VmRSS", "VmHWM") in bytes; the peak of getrusage where there is none."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def growth(way: Way, count: int) -> int:
    """Bytes by which the process grows at its peak while a way does `count` pairs, after one pair to warm up."""
    way.run(0, 1)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = resident("VmRSS")
    way.run(0, count)
    return resident("VmHWM") - before
