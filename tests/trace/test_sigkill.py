"""`moeprobe trace` killed for real, again and again, and each time taken up with --resume."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_samples import contents

from moeprobe.trace import load_trace, validate

WORDS = ("quiet garden", "old house", "green river", "small town", "long road", "red door")
KILLS = 11


def command(folder: Path, out: Path, *options: str) -> list[str]:
    tail = ["--batch-size", "2", "--max-new-tokens", "40", "--seed", "3", *options]
    return [sys.executable, "-m", "moeprobe", "trace", str(folder / "p.jsonl"), "-m", "compiled", "-o", str(out), *tail]


def written(partial: Path) -> int:
    try:
        return (partial / "shards.jsonl").stat().st_size
    except OSError:
        return 0


def kill_once(arguments: list[str], out: Path, rng: random.Random) -> bool:
    """Start the command and kill it soon after it wrote something more. False if it came to its end first."""
    partial = out.with_name(out.name + ".partial")
    before = written(partial)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment())
    while process.poll() is None and written(partial) <= before:
        time.sleep(0.001)
    time.sleep(rng.random() * 0.08)
    process.send_signal(signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error.decode()
    return process.returncode != 0


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


def run(arguments: list[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("options", [(), ("--sample",)], ids=["greedy", "sampled"])
def test_killed_runs_become_the_uninterrupted_one(tmp_path: Path, options: tuple[str, ...]) -> None:
    text = "question : please tell me about the {} ? answer :"
    prompts = [{"id": f"p{n}", "prompt": text.format(WORDS[n % 6]), "label": n % 2} for n in range(120)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    whole, out = tmp_path / "whole.trace", tmp_path / "killed.trace"
    run(command(tmp_path, whole, *options))
    rng, kills = random.Random(len(options)), 0
    arguments = command(tmp_path, out, *options, "--resume")
    while kills < KILLS and kill_once(arguments, out, rng):
        kills += 1
        assert not out.exists()
        assert all("interrupted" in problem for problem in validate(out.with_name("killed.trace.partial")).problems)
    assert kills >= 10, "the run ended before it was killed often enough"
    run(arguments)
    trace = load_trace(out)
    trace.verify()
    assert contents(trace) == contents(load_trace(whole))
    assert len(trace.manifest.resumed) == kills
    assert "120 generations" in run(arguments)  # complete: said, and left alone
