"""Recording under torch.compile: hooks that write into buffers made beforehand.

Compiled code cannot append to Python lists: such hooks break the graph at each layer and are compiled anew at each
step. A write into a buffer at a cursor that lives on the device (`index_copy_`) is part of the graph.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing, refuse_bypassing, refuse_compiled, seam
from moeprobe.capture.discover import ExpertsSite, anchors, find_experts
from moeprobe.capture.recorder import Recorder
from moeprobe.capture.recording import LayerRouting, Recording, StackRows, layer_routing
from moeprobe.capture.rows import Rows
from moeprobe.errors import CaptureError


class BufferRecorder:
    """As Recorder, for a model that is compiled while it is open (generate with a static cache and compilation, or
    `torch.compile(model)` inside the block). Expert ids and weights only.

        with BufferRecorder(model, rows=batch * (prompt + new)) as recorder:
            model.generate(..., cache_implementation="static")

    What was compiled before is forgotten on entering, and what was compiled inside on leaving: compiled code does not
    notice hooks that come or go.

    Args:
        model: a decoder-only model, in eval mode, not compiled by hand.
        sites: which layers; all by default.
        rows: how many rows (sequences times positions, rejected drafts included) one call of generate may forward.

    Raises:
        CaptureError: on entering, when a part of the model was compiled by hand, hides its routing, or has several
            stacks; from `recording`, when a layer recorded other rows than were forwarded, or the buffers were small.
    """

    def __init__(self, model: PreTrainedModel, sites: Sequence[ExpertsSite] | None = None, *, rows: int) -> None:
        self.model, self.capacity = model, rows
        found = list(find_experts(model) if sites is None else sites)
        silent = {name for name, anchor in anchors(model, found).items() if anchor is None}
        self.sites = [site for site in found if site.stack not in silent]
        if any(site.stack for site in self.sites) or getattr(model.config, "is_encoder_decoder", False):
            raise CaptureError("Models of several stacks cannot be recorded while compiled. Leave compilation off.")
        self._handles: list[RemovableHandle] = []
        self._tracks: dict[str, _Track] = {}

    def __enter__(self) -> "BufferRecorder":
        _forget_compiled(self.model)
        refuse_compiled(self.model)
        refuse_bypassing(self.model)
        self._allocate()
        self._handles.append(self.model.register_forward_pre_hook(self._tokens, with_kwargs=True))
        for site in self.sites:
            self._hook(site)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        _forget_compiled(self.model)

    def clear(self) -> None:
        """Forget what was recorded, before another call of generate."""
        for track in self._tracks.values():
            track.cursor.zero_()

    def recording(self) -> Recording:
        """Everything recorded since the last `clear`.

        Raises:
            CaptureError: nothing was forwarded, the buffers were too small, or a layer recorded other rows.
        """
        rows = self._count("rows")
        if rows == 0:
            raise CaptureError("The model ran no forward pass while it was recorded, so there is no routing.")
        if rows > self.capacity:
            raise CaptureError(f"{rows} rows were forwarded, but there was room for {self.capacity}. Ask for more.")
        for site in self.sites:
            if self._count(site.name) != rows:
                raise CaptureError(
                    f"{site.name} ({site.path}) recorded {self._count(site.name)} rows of {rows} forwarded: bypassed "
                    "or run twice. Record without torch.compile."
                )
        place = self._tracks["rows"].array(rows)[0].numpy()
        stack = Rows(place[:, 0], place[:, 1], place[:, 2])
        layers: dict[str, LayerRouting] = {}
        for site in self.sites:
            ids, weights = self._tracks[site.name].array(rows)
            layers[site.name] = layer_routing(site, ids.numpy(), weights.float().numpy())
        return Recording(tuple(self.sites), {"": StackRows(stack, stack.grid())}, layers)

    def routing(
        self, sequences: Tensor | None = None, *, beam_indices: Tensor | None = None
    ) -> dict[str, LayerRouting]:
        """Routing by site name, (sequences, positions, k), as Recorder.routing.

        Raises:
            CaptureError: as `recording`; a token of `sequences` has no row, or one computed from another token.
        """
        recording = self.recording()
        return (recording if sequences is None else recording.returned(sequences, beam_indices)).routing()

    def _count(self, name: str) -> int:
        return int(self._tracks[name].cursor)

    def _allocate(self) -> None:
        """Make the buffers; k, dtypes and devices are those of a forward pass of one token."""
        token = torch.zeros((1, 1), dtype=torch.long, device=self.model.device)
        with torch.no_grad(), Recorder(self.model, self.sites) as probe:
            self.model(input_ids=token, use_cache=False)
            tensors = {
                site.name: [probe.tape.waiting(f"{site.name}.{kind}")[0] for kind in ("experts", "weights")]
                for site in self.sites
            }
        self._tracks = {"rows": _Track(self.capacity, [torch.zeros((1, 3), dtype=torch.long, device=token.device)])}
        self._tracks |= {name: _Track(self.capacity, examples) for name, examples in tensors.items()}

    def _tokens(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:
            raise CaptureError("The model was called without input_ids; rows have no place.")
        sequences, tokens = ids.shape
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length()
        sequence = torch.arange(sequences, device=ids.device).repeat_interleave(tokens)
        position = (torch.arange(tokens, device=ids.device) + past).repeat(sequences)
        self._tracks["rows"].write(torch.stack([sequence, position, ids.reshape(-1)], dim=1))

    def _hook(self, site: ExpertsSite) -> None:
        module, at_call = seam(site)
        track = self._tracks[site.name]

        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object = None) -> None:
            del module
            track.write(*read_routing(site, args, kwargs, output))

        self._handles.append(
            module.register_forward_pre_hook(record, with_kwargs=True)
            if at_call
            else module.register_forward_hook(record, with_kwargs=True)
        )


class _Track:
    """Buffers of one place, with a cursor of their own.

    Args:
        capacity: rows they hold. One more row takes whatever is written beyond, so that an overflow is counted, not
            a fault of the device.
        examples: tensors (1 or more, ...) of the kinds that will be written.
    """

    def __init__(self, capacity: int, examples: list[Tensor]) -> None:
        self.capacity = capacity
        self.buffers = [
            torch.zeros((capacity + 1, *one.shape[1:]), dtype=_kept(one.dtype), device=one.device) for one in examples
        ]
        self.cursor = torch.zeros((), dtype=torch.long, device=examples[0].device)
        for tensor in (*self.buffers, self.cursor):
            # Written in place at each step: without the mark, CUDA graphs would refuse the whole step.
            torch._dynamo.mark_static_address(tensor)

    def write(self, *tensors: Tensor) -> None:
        """Put rows behind those that are there; only tensor operations, so that it can be compiled."""
        count = len(tensors[0])
        rows = (torch.arange(count, device=self.cursor.device) + self.cursor).clamp(max=self.capacity)
        for buffer, tensor in zip(self.buffers, tensors, strict=True):
            buffer.index_copy_(0, rows, tensor.to(buffer.dtype))
        self.cursor.add_(count)

    def array(self, rows: int) -> list[Tensor]:
        """A copy of the first `rows` rows of each buffer, on the CPU; the buffers will be written again."""
        return [buffer[:rows].to("cpu", copy=True) for buffer in self.buffers]


def _kept(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype == torch.int64 else torch.int32


def _forget_compiled(model: PreTrainedModel) -> None:
    """Drop what generate compiled for `model`: with or without our hooks, it would be reused as it is."""
    torch._dynamo.reset()
    for name in ("_compiled_call", "_last_compile_config"):
        if name in model.__dict__:
            delattr(model, name)
