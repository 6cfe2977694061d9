"""How large a model may be by its config: a hostile config must not keep this machine busy for hours."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from moeprobe.errors import ModelError

# The deepest models have 128 layers; Doge counts 16,384 experts, all others at most 2,048 (transformers 5.23).
MOST_LAYERS, MOST_EXPERTS = 1_000, 32_768
# Switch-C has 30 layers of 2,048 experts of 5 modules each: 310,000. This many take half a minute to build.
MOST_MODULES = 400_000
_COUNTED = re.compile("layer|depth|block|expert", re.IGNORECASE)
# Widths, and other numbers that are large and cost nothing to build: vocab_size_per_layer_input, layer_rope_theta.
_NO_COUNT = re.compile("size|dim|channel|config|vocab|theta|capacity", re.IGNORECASE)


def check_counts(facts: Mapping[str, Any], name: str) -> None:
    """Refuse counts of layers and experts far above those of real models, before a config or a model is built.

    Args:
        facts: what config.json says; sections inside are looked at too.
        name: of the model, for the message.

    Raises:
        ModelError: names the key, its value and the limit.
    """
    for key, value in _numbers(facts):
        if not _COUNTED.search(key) or _NO_COUNT.search(key):
            continue
        limit = MOST_EXPERTS if "expert" in key.lower() else MOST_LAYERS
        if value > limit:
            # Not str(value): Python refuses to write integers of more than 4,300 digits.
            said = str(value) if value < 10**18 else "a number of 19 digits or more"
            raise ModelError(
                f"The config of {name!r} says {key[:60]} = {said}; at most {limit:,} are built. Check its config.json."
            )


@contextmanager
def bounded_modules(name: str) -> Iterator[None]:
    """Stop the building of a model with too many modules, for example layers times experts that are modules each.

    Counting modules as they are put in place needs no knowledge of which families keep experts in one tensor.

    Raises:
        ModelError: more than MOST_MODULES.
    """
    made = 0

    def count(_: nn.Module, __: str, ___: nn.Module | None) -> None:
        """Count a module as it is registered."""
        nonlocal made
        made += 1
        if made > MOST_MODULES:
            raise ModelError(
                f"The config of {name!r} asks for more than {MOST_MODULES:,} modules (layers times experts), more than "
                "any model has. Check its config.json."
            )

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _numbers(item, str(inner))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value
