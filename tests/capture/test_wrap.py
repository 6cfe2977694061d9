"""Wrapped forwards: what they see, and that modules get their own forward back in any order."""

from typing import Any

import torch
from torch import nn

from moeprobe.capture.wrap import Before


def wrapped(module: nn.Module, log: list[Any], name: str) -> Before:
    return Before(module, lambda module, args, kwargs: log.append((name, args[0].item(), sorted(kwargs))))


def test_sees_what_pre_hooks_made_of_the_arguments() -> None:
    module, log = nn.Identity(), []
    module.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    before = wrapped(module, log, "a")
    assert module(torch.tensor(1)).item() == 2
    assert log == [("a", 2, [])]
    before.remove()
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
    before = wrapped(module, log, "a")
    assert module(torch.tensor(3)).item() == 6
    before.remove()
    assert module.forward is own
    assert log == [("a", 3, [])]
