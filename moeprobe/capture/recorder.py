"""Recording which experts a model chose, while it runs, without changing what it computes."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from moeprobe.capture.attach import read_routing, refuse_bypassing, refuse_compiled, seam
from moeprobe.capture.discover import ExpertsSite, anchors, find_experts
from moeprobe.capture.forwards import Forwards
from moeprobe.capture.recording import LayerRouting, Recording, StackRows, layer_routing
from moeprobe.capture.rows import rows_of
from moeprobe.capture.tap import Removable, Tap
from moeprobe.capture.tape import FLUSH_EVERY, Tape
from moeprobe.capture.wrap import before
from moeprobe.errors import CaptureError


class Recorder:
    """Context manager that records the routing of every forward of `model` while it is open.

    The hooks keep references to the id and weight tensors the experts receive; they compute nothing, so logits stay
    bitwise equal. After every forward each layer must have recorded exactly the rows that were forwarded.

        with Recorder(model) as recorder:
            model.generate(...)
        routing = recorder.routing()        # {"L14": LayerRouting}, padded coordinates
        recorder.clear()                    # before the next call of generate

    Args:
        model: in eval mode.
        sites: which layers; all of `find_experts` by default.
        taps: other signals to record (see moeprobe.capture.signals).

    Raises:
        CaptureError: on entering, when the model is compiled or has blocks that hide their routing; after a forward
            in which a layer recorded no rows, too many, or tensors of another shape.
        ModelError: the model has no experts that can be recorded.
    """

    def __init__(
        self, model: PreTrainedModel, sites: Sequence[ExpertsSite] | None = None, taps: Iterable[Tap] = ()
    ) -> None:
        self.model = model
        self.sites = list(find_experts(model) if sites is None else sites)
        self.taps = list(taps)
        # Without a recorded site of its own the main stack still says which token stands where.
        found = {"": model, **anchors(model, self.sites)}
        self._silent = {name for name, anchor in found.items() if anchor is None}
        self._loud = [site for site in self.sites if site.stack not in self._silent]
        names = [f"{site.name}.{kind}" for site in self._loud for kind in ("experts", "weights")]
        self.tape = Tape([*names, *(name for tap in self.taps for name in tap.names)])
        self.stacks = {
            name: Forwards(name, anchor, self._names(name), self.tape, decoder=self._decodes(name))
            for name, anchor in found.items()
            if anchor is not None
        }
        self._handles: list[Removable] = []
        self.packed = False  # rows of many requests in one forward; ContinuousRecorder's own

    def __enter__(self) -> "Recorder":
        refuse_compiled(self.model)
        refuse_bypassing(self.model)
        if self.model.training:
            raise CaptureError("The model is in train mode, where routers may add noise. Call model.eval() first.")
        if self._handles:
            raise CaptureError("This recorder is attached already. Make another one.")
        try:
            self._attach()
        except BaseException:
            self._remove()
            raise
        return self

    def _attach(self) -> None:
        # Order matters: a stack's forward begins before its layers run, taps see what the recorder saw.
        for stack in self.stacks.values():
            taps = [tap for tap in self.taps if tap.stack == stack.stack]
            stack.on_begin = _Begin(self, stack, taps)
            stack.on_end = _End(taps) if taps else None
            self._handles.append(stack.anchor.register_forward_pre_hook(stack.begin, with_kwargs=True))
        for site in self.sites:
            self._hook(site)
        for tap in self.taps:
            self._handles.extend(tap.attach(self))
        for stack in self.stacks.values():
            self._handles.append(stack.anchor.register_forward_hook(stack.end))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def running(self, stack: str) -> bool:
        """Whether a forward pass of the stack is going on. Calls outside one (recomputation for gradients, a module
        used as an oracle) are not part of the text."""
        return self.stacks[stack].current is not None

    def clear(self) -> None:
        """Forget what was recorded, before another call of generate."""
        self.tape.clear()
        for stack in self.stacks.values():
            stack.clear()
        for tap in self.taps:
            tap.clear()

    def recording(self) -> Recording:
        """Everything recorded since the last `clear`.

        Raises:
            CaptureError: nothing was forwarded, the number of sequences changed, or weights are not finite.
        """
        if not self.stacks[""].done:
            raise CaptureError("The model ran no forward pass while it was recorded, so there is no routing.")
        for stack in self.stacks.values():
            stack.drop_unfinished()
        self.flush()
        stacks = {}
        for name, stack in self.stacks.items():
            if stack.done:
                rows = rows_of(stack.done, packed=self.packed)
                stacks[name] = StackRows(rows, rows.grid())
                self._check_complete(stack, len(rows.token))
        sites = tuple(site for site in self._loud if site.stack in stacks)
        layers = {
            site.name: layer_routing(
                site, self.tape.array(f"{site.name}.experts"), self.tape.array(f"{site.name}.weights")
            )
            for site in sites
        }
        signals: dict[str, NDArray[np.generic]] = {}
        for tap in self.taps:
            if tap.stack in stacks:
                signals |= tap.arrays(self.tape)
        return Recording(sites, stacks, layers, signals)

    def routing(
        self, sequences: Tensor | None = None, *, beam_indices: Tensor | None = None
    ) -> dict[str, LayerRouting]:
        """Routing by site name, (sequences, positions, k), in padded coordinates; later forwards overwrite earlier.
        Positions of padding are routed too.

        Args:
            sequences: what generate returned, (sequences, L): then positions are L - 1, since the last token was never
                fed in, and every row is checked against its token (see Recording.returned).
            beam_indices: of a beam search (`return_dict_in_generate=True, output_scores=True`), needed there: batch
                rows are no sequences, and without it routing is that of the rows.

        Raises:
            CaptureError: as `recording`; a token of `sequences` has no row, or one computed from another token.
        """
        recording = self.recording()
        return (recording if sequences is None else recording.returned(sequences, beam_indices)).routing()

    def rehearse(self, token: int) -> None:
        """Forward `token` four times over and forget it: what cannot be recorded is refused before hours of generation.

        Raises:
            CaptureError: as `recording`, or from a tap that cannot see its signal.
        """
        tokens = {"input_ids": torch.full((1, 4), token, device=self.model.device)}
        if getattr(self.model.config, "is_encoder_decoder", False):
            tokens["decoder_input_ids"] = tokens["input_ids"]
        with torch.inference_mode():
            self.model(**tokens, use_cache=False)
        self.recording()
        self.clear()

    def flush(self) -> None:
        """Join what waits on the tape."""
        self.tape.flush()
        for stack in self.stacks.values():
            stack.flushed()

    def _check_complete(self, stack: Forwards, rows: int) -> None:
        """The last defence of "row i of every tensor is row i of the log"."""
        for name, place in stack.names.items():
            if self.tape.rows(name) != rows:
                raise CaptureError(
                    f"{place} recorded {self.tape.rows(name)} rows of {rows} forwarded in all. This is a bug in "
                    "moeprobe; nothing of this run can be trusted."
                )

    def _hook(self, site: ExpertsSite) -> None:
        if site.stack in self._silent:
            self._handles.append(site.module.register_forward_pre_hook(_silent(site)))
            return
        module, at_call = seam(site)
        stack, regular = self.stacks[site.stack], site.source is None
        # Bound once: this runs for every layer and token, and the model's own work has driven it out of the CPU's
        # caches each time, so every look-up counts.
        kept = self.tape.waiting(f"{site.name}.experts")
        keep_ids, keep_weights = kept.append, self.tape.waiting(f"{site.name}.weights").append

        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object = None) -> None:
            """Keep the routing of one call of a layer."""
            del module
            if stack.current is None:
                return
            if kept and regular and len(args) == 3:
                # The first call since the tape was joined was checked in full; joining finds one of another shape.
                _, ids, weights = args
                if weights.requires_grad:
                    weights = weights.detach()
            else:
                ids, weights = read_routing(site, args, kwargs, output)
            keep_ids(ids)
            keep_weights(weights)

        if at_call:
            self._handles.append(before(module, record))
        else:
            self._handles.append(module.register_forward_hook(record, with_kwargs=True))

    def _names(self, stack: str) -> dict[str, str]:
        places = {
            f"{site.name}.{kind}": f"{site.name} ({site.path})"
            for site in self._loud
            if site.stack == stack
            for kind in ("experts", "weights")
        }
        return places | {name: name for tap in self.taps if tap.stack == stack for name in tap.names}

    def _decodes(self, stack: str) -> bool:
        # Block diffusion has an encoder and a decoder, though its config does not call it an encoder-decoder model.
        encoder = any(site.stack == "encoder" for site in self.sites)
        return stack == "" and (encoder or bool(getattr(self.model.config, "is_encoder_decoder", False)))

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for stack in self.stacks.values():
            stack.on_begin = stack.on_end = None


class _Begin:
    """What happens before a forward of a stack, beyond its log."""

    def __init__(self, recorder: Recorder, stack: Forwards, taps: list[Tap]) -> None:
        self.recorder, self.stack, self.taps = recorder, stack, taps

    def __call__(self, forward: Any) -> None:
        for tap in self.taps:
            tap.begin(forward)
        # After the taps: one of them completes rows of the forward before, now that the next token is known. Flushing
        # is for all stacks at once, and only between forwards of each.
        if self.stack.unflushed >= FLUSH_EVERY:
            nested = sum(stack.current is not None for stack in self.recorder.stacks.values()) > 1
            if not nested:
                self.recorder.flush()


class _End:
    def __init__(self, taps: list[Tap]) -> None:
        self.taps = taps

    def __call__(self, forward: Any, output: object) -> None:
        for tap in self.taps:
            tap.end(forward, output)


def _silent(site: ExpertsSite) -> Any:
    def complain(module: nn.Module, args: tuple[Any, ...]) -> None:
        """A stack that text does not reach has run."""
        del module, args
        raise CaptureError(
            f"{site.name} ({site.path}) ran, but it belongs to a stack that text does not reach. moeprobe records runs "
            "on text only; leave images and sound out."
        )

    return complain
