"""Shared fixtures: the compiled model, and one trace of it, made once per session."""

import os

# Before torch is imported anywhere: tiny models on shared cores are fastest on one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest
from hypothesis import settings

from moeprobe.engines import Decoding, record
from moeprobe.models import LoadedModel, load_model
from moeprobe.prompts import Prompt, read_prompts
from moeprobe.trace import Trace

# The same examples in every run, so that a change is judged by what it changed. `make search` draws others.
settings.register_profile("same", derandomize=True)
settings.register_profile("random", derandomize=False, print_blob=True)
settings.load_profile("same")

COMPILED_PROMPTS = Path(__file__).parents[1] / "moeprobe" / "demo" / "prompts" / "compiled.jsonl"


@pytest.fixture(scope="session")
def compiled() -> LoadedModel:
    return load_model("compiled")


@pytest.fixture(scope="session")
def compiled_prompts() -> list[Prompt]:
    return read_prompts(COMPILED_PROMPTS)


@pytest.fixture(scope="session")
def compiled_trace(
    compiled: LoadedModel, compiled_prompts: list[Prompt], tmp_path_factory: pytest.TempPathFactory
) -> Trace:
    out = tmp_path_factory.mktemp("runs") / "compiled.trace"
    return record(compiled, compiled_prompts, out, decoding=Decoding(max_new_tokens=24, sample=True, batch_size=16))
