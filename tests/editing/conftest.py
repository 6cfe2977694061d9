"""What the tests of editing share."""

from collections.abc import Iterator

import pytest
import torch

from tests.editing.exact import Bench


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: exactness is asked for bit by bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bench() -> Bench:
    return Bench("qwen3_5_moe", "eager", torch.float32)
