"""Carrying out writes: hooks that stand for the length of a block and leave nothing behind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle

from moeprobe.editing.edit import HOWS, How, Write, meet
from moeprobe.editing.hooks import Gated, choices, contributions, heads, outputs
from moeprobe.editing.places import Places
from moeprobe.editing.seen import check_index, place_of
from moeprobe.errors import InterchangeError

__all__ = ["HOWS", "Editor", "How", "Write", "writing"]


class Editor:
    """Hooks that carry out writes. `writes` may be changed between forwards, within the places named at the start.

    Args:
        places: the model's places, by layer.
        touched: (layer, kind) that writes will name.

    Raises:
        InterchangeError: a place the model has not; at the end of the block, writes that no forward came by: the model
            is compiled, or the layer does not run.
    """

    def __init__(self, places: Mapping[int, Places], touched: Sequence[tuple[int, str]]) -> None:
        self.places = places
        self.touched = list(dict.fromkeys(touched))
        self._by_place: dict[tuple[int, str], list[Write]] = {}
        self._handles: list[RemovableHandle] = []
        self._given: set[tuple[int, str]] = set()
        self._met: set[tuple[int, str]] = set()
        for layer, kind in self.touched:
            place_of(places, layer, kind)  # raises where there is none

    def set(self, writes: Sequence[Write]) -> None:
        """What the forwards from here on write.

        Raises:
            InterchangeError: a write at a place that was not named at the start, an expert or head that the layer has
                not, or two writes at the same site of a row.
        """
        found: dict[tuple[int, str], list[Write]] = {}
        for write in writes:
            place = (write.layer, write.kind)
            if place not in self.touched:
                raise InterchangeError(f"L{write.layer}.{write.kind} was not named when editing began.")
            check_index(self.places, *place, write.index)
            for other in found.get(place, []):
                if meet(write, other):
                    raise InterchangeError(f"Two writes change the same {write.kind} of L{write.layer} in one row.")
            found.setdefault(place, []).append(write)
        self._by_place = found
        self._given |= set(found)

    def __enter__(self) -> "Editor":
        # A router's choice is replaced before contributions are looked at, whatever the order of the names.
        for layer, kind in sorted(self.touched, key=lambda place: place[1] != "router"):
            self._handles += self._install(layer, kind)
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        missed = sorted(self._given - self._met)
        if missed and kind is None:
            where = ", ".join(f"L{layer}.{kind}" for layer, kind in missed)
            raise InterchangeError(
                f"No forward came by {where}: nothing was written there. Is the model compiled? Does that layer run?"
            )

    def _install(self, layer: int, kind: str) -> list[RemovableHandle]:
        module, one = place_of(self.places, layer, kind), self.places[layer]

        def writes() -> list[Write]:
            found = self._by_place.get((layer, kind), [])
            if found:
                self._met.add((layer, kind))
            return found

        if kind == "router":
            return [module.register_forward_pre_hook(choices(writes), with_kwargs=True)]
        if kind == "expert":
            before, after = contributions(one, writes)
            return [
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after),
            ]
        if kind == "head":
            return [module.register_forward_pre_hook(heads(one, writes))]
        if kind == "shared" and one.shared_gate is not None:
            gated = Gated(one, writes)
            return [
                module.register_forward_hook(gated.after),
                one.shared_gate.register_forward_hook(gated.open),
                one.decoder.register_forward_hook(gated.check),
            ]
        return [module.register_forward_hook(outputs(writes))]


@contextmanager
def writing(places: Mapping[int, Places], writes: Sequence[Write]) -> Iterator[None]:
    """Carry out `writes` in every forward inside the block.

    A row whose own value equals the new one is left alone, so writing a site's own value changes no bit.

    Raises:
        InterchangeError: a place the model has not, or (in the forward) another number of rows.
    """
    editor = Editor(places, [(write.layer, write.kind) for write in writes])
    editor.set(writes)
    with editor:
        yield
