"""Recording `generate_batch`: rows of several requests packed into one forward pass.

transformers' continuous batching runs its forwards in a thread of its own. Each is one line of rows, (1, rows), in
which requests stand one after another, and nothing the model is given names them. The order is that of the scheduler's
batch, which is read as the forward begins. Three things are then checked: the sum of its lengths against the rows,
the position it implies against the `position_ids` the model was given, and each row's token against the finished text.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import transformers
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager

from moeprobe.capture.discover import ExpertsSite
from moeprobe.capture.outputs import EntropyTap, LogprobTap
from moeprobe.capture.recorder import Recorder
from moeprobe.capture.recording import Recording, StackRows
from moeprobe.capture.rows import UNKNOWN, Forward, Ints, Rows
from moeprobe.capture.tap import Tap
from moeprobe.capture.tape import Tape
from moeprobe.errors import CaptureError

if TYPE_CHECKING:
    from transformers.generation.continuous_batching.requests import GenerationOutput

# How transformers names a further answer to a prompt, which goes on from a copy of the first one's cache.
_CHILD = "__child#"


@dataclasses.dataclass(frozen=True)
class _Packed:
    """Whose rows one forward holds.

    Attributes:
        requests, starts, lengths: per request in the batch its number, the position of its first row and its rows.
        forks: (child, parent) numbers of the requests that went on from a copied cache before this forward.
    """

    requests: list[int]
    starts: list[int]
    lengths: list[int]
    forks: list[tuple[int, int]]


class _Fed(Tap):
    """The token and position of every row, as the model was given them."""

    names = ("fed.token", "fed.position")

    def __init__(self) -> None:
        self.tape: Tape | None = None
        self.positions: Tensor | None = None

    def attach(self, recorder: Recorder) -> list[RemovableHandle]:
        self.tape = recorder.tape
        return []

    def end(self, forward: Forward, output: object) -> None:
        """Keep the tokens fed in and where they stand."""
        del output
        for name, given in zip(self.names, (forward.ids, self.positions), strict=True):
            if self.tape is None or given is None:
                raise CaptureError("generate_batch fed the model without token ids or positions. Use generate.")
            # Copies: the next batch is written into the same memory.
            self.tape.put(name, given.detach().reshape(-1).clone())


class ContinuousRecorder:
    """Context manager that records the routing of one call of `model.generate_batch`, or of one batching manager.

    Inside it prefix sharing, CUDA graphs, compilation and asynchronous batching are off, whatever the configuration
    says: shared prompt tokens are never forwarded, graphs replay without hooks. None of them changes the routing.

        with ContinuousRecorder(model) as recorder:
            outputs = model.generate_batch(prompts, generation_config=...)
        recording = recorder.recording(outputs)     # one sequence per request, in the order of `outputs`
        recorder.clear()                            # before the next call of generate_batch

    A request whose cache was evicted is fed in again from its first token; its last rows count. Answers beyond the
    first (`num_return_sequences`) take over the rows of the prompt that they share.

    Args:
        model: in eval mode.
        sites: which layers; all of `find_experts` by default.
        taps: other signals, but not entropy and log-probability: logits of most rows are never computed here.

    Raises:
        CaptureError: as Recorder; when the manager could not be set up for recording; for a forward of another origin;
            on leaving, whatever stopped the manager's thread.
        ModelError: the model has no experts that can be recorded.
    """

    def __init__(
        self, model: PreTrainedModel, sites: Sequence[ExpertsSite] | None = None, taps: Iterable[Tap] = ()
    ) -> None:
        taps = list(taps)
        if any(isinstance(tap, EntropyTap | LogprobTap) for tap in taps):
            raise CaptureError(
                "generate_batch computes logits only where a token is drawn, so entropy and logprob cannot be "
                "recorded. Leave them out, or use generate."
            )
        self.model = model
        self._fed = _Fed()
        self._recorder = Recorder(model, sites, [*taps, self._fed])
        self._recorder.packed = True
        if set(self._recorder.stacks) != {""}:
            raise CaptureError("generate_batch is recorded for models of one stack only. Use generate.")
        self.sites = self._recorder.sites
        self._manager: ContinuousBatchingManager | None = None
        self._numbers: dict[str, int] = {}
        self._log: list[_Packed] = []
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> "ContinuousRecorder":
        # Before the recorder's own hooks: a forward that is not to be recorded must not begin.
        handle = self.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._undo.append(handle.remove)
        try:
            self._recorder.__enter__()
        except BaseException:
            self._restore()
            raise
        original: Any = self.model.init_continuous_batching

        def init(*args: Any, **kwargs: Any) -> ContinuousBatchingManager:
            return self._watch(_recordable(original, self.model, *args, **kwargs))

        # All three ways in, generate_batch included, go through this method of the instance.
        vars(self.model)["init_continuous_batching"] = init
        self._undo.append(lambda: vars(self.model).pop("init_continuous_batching"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        self._recorder.__exit__(kind, value, trace)
        # An error here is mostly what followed from the one in the thread, for example a request without an answer.
        if kind is None or issubclass(kind, Exception):
            self._raise_fatal()

    def clear(self) -> None:
        """Forget what was recorded, before another call of generate_batch."""
        self._recorder.clear()
        self._manager = None
        self._numbers.clear()
        self._log.clear()

    def recording(self, outputs: Mapping[str, "GenerationOutput"]) -> Recording:
        """What was recorded, seen as one sequence per finished request, its first token at position 0.

        Args:
            outputs: what generate_batch returned (or the finished outputs of a manager, by request).

        Returns:
            Sequences in the order of `outputs`. The last generated token was never fed in and has no row.

        Raises:
            CaptureError: the manager's thread stopped with an error, a request failed, or a token of the finished text
                has no row of its own.
        """
        self._raise_fatal()
        if not self._log:
            raise CaptureError("generate_batch ran no forward pass while it was recorded, so there is no routing.")
        if not outputs:
            raise CaptureError("generate_batch returned no outputs. Nothing was written.")
        base = self._recorder.recording()
        signals = dict(base.signals)
        tokens, positions = (signals.pop(name).astype(np.int64) for name in self._fed.names)
        rows = self._rows(tokens, positions)
        whole = self._grid(rows)
        texts = [_text(request, output) for request, output in outputs.items()]
        longest = max(map(len, texts))
        grid = np.full((len(texts), longest), UNKNOWN, dtype=np.int64)
        finished, real = np.zeros_like(grid), np.zeros(grid.shape, dtype=np.bool_)
        for index, (request, text) in enumerate(zip(outputs, texts, strict=True)):
            fed = len(text) - 1
            finished[index, : len(text)], real[index, :fed] = text, True
            if request in self._numbers:
                width = min(fed, whole.shape[1])
                grid[index, :width] = whole[self._numbers[request], :width]
        stacks = {"": StackRows(rows, grid[:, : longest - 1])}
        recording = dataclasses.replace(base, stacks=stacks, signals=signals)
        recording.check("", finished, real)
        return recording

    def _watch(self, manager: ContinuousBatchingManager) -> ContinuousBatchingManager:
        if self._log and manager is not self._manager:
            raise CaptureError(
                "A second call of generate_batch began while one is recorded, and requests would share names. Call "
                "clear() in between."
            )
        self._manager = manager
        return manager

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the model, in the manager's thread: note whose rows follow."""
        del module, args
        # Forwards that broke off were not completed.
        del self._log[len(self._recorder.stacks[""].done) :]
        # The scheduler's state is no documented interface, so its types are not relied on.
        processor: Any = None if self._manager is None else self._manager.batch_processor
        if processor is None or kwargs.get("cache") is not processor.cache:
            raise CaptureError(
                "The model ran a forward pass that no generate_batch of this recording asked for. Create the manager "
                "inside the recording, and use Recorder for plain generate."
            )
        try:
            batch = [(one.state, int(one.query_length)) for one in processor.inputs_and_outputs.requests_in_batch]
            active = list(processor.scheduler.active_requests.values())
            named = [(str(state.request_id), int(state.position_offset), length) for state, length in batch]
            others = [(str(state.request_id), int(state.position_offset), 0) for state in active]
        except AttributeError as error:
            raise CaptureError(
                f"transformers {transformers.__version__} keeps its batches in another way than moeprobe knows "
                f"({error}). Use generate instead of generate_batch."
            ) from error
        rows = sum(length for _, _, length in named)
        given = tuple(kwargs["input_ids"].shape)
        if given != (1, rows):
            raise CaptureError(f"A batch of {rows} rows was forwarded as {given}: padded or split. Use generate.")
        self._fed.positions = kwargs.get("position_ids")
        self._log.append(
            _Packed(
                forks=self._enrol([*named, *others]),
                requests=[self._numbers[request] for request, _, _ in named],
                # The scheduler has moved on to the end of the batch by now.
                starts=[end - length for _, end, length in named],
                lengths=[length for _, _, length in named],
            )
        )

    def _enrol(self, requests: Iterable[tuple[str, int, int]]) -> list[tuple[int, int]]:
        """Number the requests (name, end, length) not seen before.

        Returns:
            (child, parent) for those that begin with a copy of another one's cache.

        Raises:
            CaptureError: a request begins behind its first token for another reason, so rows are missing.
        """
        forks = []
        for request, end, length in requests:
            if request in self._numbers:
                continue
            self._numbers[request] = len(self._numbers)
            if end - length == 0:
                continue
            parent = self._numbers.get(request.rpartition(_CHILD)[0])
            if parent is None:
                raise CaptureError(
                    f"Request {request} begins at position {end - length}: its first tokens were forwarded before the "
                    "recording began, or shared with another request. Create the manager inside the recording."
                )
            forks.append((self._numbers[request], parent))
        return forks

    def _rows(self, tokens: Ints, positions: Ints) -> Rows:
        """Every row with the number of its request, checked against the positions the model was given."""
        requests, starts, lengths = (
            np.concatenate([np.asarray(getattr(packed, name), dtype=np.int64) for packed in self._log])
            for name in ("requests", "starts", "lengths")
        )
        first = np.cumsum(lengths) - lengths
        expected = np.arange(lengths.sum()) + np.repeat(starts - first, lengths)
        if not np.array_equal(expected, positions):
            same = expected == positions if len(expected) == len(positions) else np.zeros(1, dtype=np.bool_)
            raise CaptureError(
                f"The scheduler's batches do not agree with the positions the model was given (first at row "
                f"{int(np.argmin(same))}), so rows cannot be given to requests. Nothing was written. Use generate."
            )
        return Rows(np.repeat(requests, lengths), positions, tokens)

    def _grid(self, rows: Rows) -> Ints:
        """(requests, positions) index of the row written last, -1 where none was; forks take their parent's rows."""
        grid = np.full((len(self._numbers), int(rows.position.max()) + 1), UNKNOWN, dtype=np.int64)
        done = seen = 0
        for packed in [*self._log, None]:
            if packed is None or packed.forks:
                # numpy assigns repeated places in order, so the last write wins.
                part = slice(done, seen)
                grid[rows.sequence[part], rows.position[part]] = np.arange(done, seen)
                done = seen
            if packed is not None:
                for child, parent in packed.forks:
                    grid[child] = grid[parent]
                seen += sum(packed.lengths)
        return grid

    def _raise_fatal(self) -> None:
        """Hand on what stopped the manager's thread: transformers only logs it."""
        status = getattr(self._manager, "background_thread_status", None)
        error = getattr(status, "fatal_error", None)
        if isinstance(error, CaptureError):
            raise error
        if error is not None:
            raise CaptureError(f"generate_batch stopped with an error: {error}. Nothing was written.") from error

    def _restore(self) -> None:
        while self._undo:
            self._undo.pop()()


def _recordable(
    init: Callable[..., ContinuousBatchingManager],
    model: PreTrainedModel,
    generation_config: GenerationConfig | None = None,
    continuous_batching_config: ContinuousBatchingConfig | None = None,
    **hints: Any,
) -> ContinuousBatchingManager:
    """A manager whose forwards can be recorded, made by `init`.

    Raises:
        CaptureError: an older manager kept on the model, or a compile configuration of the model, is in the way.
    """
    config = continuous_batching_config
    if config is None:
        # The deprecated place; transformers looks there only when none was passed.
        config = getattr(generation_config or model.generation_config, "continuous_batching_config", None)
    plain = dataclasses.replace(
        config if isinstance(config, ContinuousBatchingConfig) else ContinuousBatchingConfig(),
        allow_block_sharing=False,
        use_async_batching=False,
        use_cuda_graph=False,
        varlen_compile_config=None,
        decode_compile_config=None,
        default_compile_level=0,
        use_default_compile_configs=None,
    )
    manager = init(generation_config=generation_config, continuous_batching_config=plain, **hints)
    settled = manager.continuous_batching_config
    obstacles = {
        "prefix sharing": settled.allow_block_sharing,
        "asynchronous batching": settled.use_async_batching,
        "CUDA graphs": any(settled.cuda_graph_booleans),
        "compilation": settled.varlen_compile_config is not None or settled.decode_compile_config is not None,
    }
    on = [name for name, wanted in obstacles.items() if wanted]
    if on:
        raise CaptureError(
            f"The batching manager runs with {', '.join(on)}, which hides rows. Call "
            "model.destroy_cached_continuous_batching_manager(), drop config.compile_config, and run again."
        )
    return manager


def _text(request: str, output: "GenerationOutput") -> list[int]:
    """Prompt and answer of a finished request.

    Raises:
        CaptureError: it failed, was cut short, or is empty.
    """
    if output.error is not None or not output.is_finished():
        reason = output.error or f"it is {output.status.name.lower()}"
        raise CaptureError(f"Request {request} was not finished: {reason}. Nothing was written.")
    text = [*output.prompt_ids, *output.generated_tokens]
    if len(text) < 2:
        raise CaptureError(f"Request {request} has {len(text)} tokens; there is nothing to record.")
    return text
