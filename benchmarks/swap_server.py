"""Runs swaps in another environment, when told to: PYTHON benchmarks/swap_server.py FOLDER JOB.json

Reads lines {"way": "nnsight" or "naive", "start": 0, "stop": 4} and answers each with a line of CPU nanoseconds,
effects and the process's peak of memory. Needs torch, transformers and nnsight, nothing of moeprobe.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

if not __package__:  # run as a file: what is imported lies in the folder above, not in this one
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.naive_swaps import Choice, Hooked, Job, experts_module, swap_all


class Traced:
    """The same forwards with nnsight: one trace each."""

    def __init__(self, model: Any, layer: int) -> None:
        import nnsight

        self.nnsight, self.model, self.experts = nnsight, model, experts_module(model, layer)
        self.traced = nnsight.NNsight(model)
        self.place = self.traced.model.layers[layer].mlp.experts

    def read(self, ids: Tensor) -> tuple[Tensor, Choice]:
        """Logits, and what the experts were called with."""
        nnsight, place, traced = self.nnsight, self.place, self.traced
        with traced.trace(input_ids=ids, use_cache=False) as tracer:
            inputs = nnsight.save(place.inputs)
            output = nnsight.save(tracer.result)
        args, _ = inputs
        return output.logits, args[:3]

    def forward(self, ids: Tensor, added: Tensor | None) -> Tensor:
        """Logits of all columns."""
        nnsight, place, traced = self.nnsight, self.place, self.traced
        with traced.trace(input_ids=ids, use_cache=False) as tracer:
            place.output = place.output + added
            output = nnsight.save(tracer.result)
        logits: Tensor = output.logits
        return logits


def main() -> None:
    """Load, then answer."""
    folder, job = sys.argv[1], Job(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", experts_implementation="eager").eval()
    ways: dict[str, Any] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        make = {"naive": Hooked, "nnsight": Traced}[asked["way"]]
        way = ways.setdefault(asked["way"], make(model, job.layer))
        begin = time.process_time_ns()
        found = swap_all(way, job.part(asked["start"], asked["stop"]))
        took = time.process_time_ns() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        effects = {name: values.tolist() for name, values in found.items()}
        print(json.dumps({"ns": took, "effects": effects, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
