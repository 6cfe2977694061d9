"""Wrapped forwards: what they see, and that modules get their own forward back in any order."""

from typing import Any

import pytest
import torch
from torch import nn

from moeprobe.capture.wrap import Wrapping, around, before, unwatched


def wrapped(module: nn.Module, log: list[Any], name: str) -> Wrapping:
    return before(module, lambda module, args, kwargs: log.append((name, args[0].item(), sorted(kwargs))))


def test_sees_what_pre_hooks_made_of_the_arguments() -> None:
    module, log = nn.Identity(), []
    module.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    made = wrapped(module, log, "a")
    assert module(torch.tensor(1)).item() == 2
    assert log == [("a", 2, [])]
    made.remove()
    module(torch.tensor(1))
    assert len(log) == 1
    assert "forward" not in vars(module)


def test_two_may_leave_in_any_order() -> None:
    for first, second in ((0, 1), (1, 0)):
        module, log = nn.Identity(), []
        both = [wrapped(module, log, "a"), wrapped(module, log, "b")]
        module(torch.tensor(3))
        assert [name for name, *_ in log] == ["b", "a"]
        both[first].remove()
        module(torch.tensor(3))
        assert [name for name, *_ in log[2:]] == ["ab"[second]]
        both[second].remove()
        assert "forward" not in vars(module)


def test_a_forward_of_the_instance_comes_back() -> None:
    module, log = nn.Identity(), []
    own = lambda value: value * 2  # noqa: E731  # as offloading replaces it
    module.forward = own
    made = wrapped(module, log, "a")
    assert module(torch.tensor(3)).item() == 6
    made.remove()
    assert module.forward is own
    assert log == [("a", 3, [])]


def test_a_broken_off_forward_closes_what_it_opened() -> None:
    module, log = nn.Identity(), []

    def run(forward, args, kwargs):  # type: ignore[no-untyped-def]
        log.append("open")
        try:
            return forward(*args, **kwargs)
        finally:
            log.append("closed")

    def abort(value: object) -> None:
        raise KeyboardInterrupt

    module.forward = abort
    made = around(module, run)
    with pytest.raises(KeyboardInterrupt):
        module(torch.tensor(1))
    assert log == ["open", "closed"]
    made.remove()
    assert module.forward is abort


def test_unwatched_calls_are_not_seen() -> None:
    module, log = nn.Identity(), []
    both = [wrapped(module, log, "a"), wrapped(module, log, "b")]
    assert unwatched(module)(torch.tensor(3)).item() == 3
    assert log == []
    for made in both:
        made.remove()
