"""A model with recording attached, for the batches of one run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel, StoppingCriteriaList

from moeprobe.capture import ExpertsSite, Recorder, Recording
from moeprobe.capture.buffers import BufferRecorder
from moeprobe.capture.continuous import ContinuousRecorder
from moeprobe.capture.outputs import LogprobTap
from moeprobe.capture.signals import make_taps
from moeprobe.chat.stopping import StopTexts
from moeprobe.engines.decoding import Decoding
from moeprobe.errors import CaptureError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt

# Tokens of a page of the cache of continuous batching, and most tokens packed into one forward, on a CPU.
_PAGE, _PACKED = 64, 4096


@dataclass(frozen=True)
class Job:
    """One sequence to generate: a prompt, which of its samples, and its token ids."""

    prompt: Prompt
    sample: int
    ids: list[int]


@dataclass(frozen=True)
class BatchOutput:
    """What came back for a batch.

    Attributes:
        jobs: one per sequence.
        width: padded length of the prompts.
        new: (sequences, new tokens) what was generated; padded after a sequence's end.
        start: decoder start token of an encoder-decoder model, else None.
        stopped: (sequences,) how many new tokens there were when a stop text was complete; 0 where none was.
        recording: rows and grids of all stacks.
        counts: (sequences,) how many of `new` were generated, where that is known; None where padding follows the end.
        aligned: prompts end at column `width`; otherwise each begins at column 0.
    """

    jobs: list[Job]
    width: int
    new: NDArray[np.int64]
    start: int | None
    stopped: NDArray[np.int64]
    recording: Recording
    counts: NDArray[np.int64] | None = None
    aligned: bool = True


class Session:
    """Context manager: recording stays attached from the first batch to the last.

    Args:
        loaded: model and tokenizer.
        sites: layers to record.
        decoding: decoding parameters.
        what: signals beside experts and weights (see moeprobe.capture.signals).
        rows: most rows one batch may forward; only needed for `decoding.compile`.
        width: pad prompts to this many tokens at least; only needed for `decoding.compile`, which compiles anew for
            each width, and gives up after eight.
        assistant: the model that drafts tokens, for `decoding.assistant`.

    Raises:
        CaptureError: unknown signals, or signals that this way of decoding cannot give.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sites: Sequence[ExpertsSite],
        decoding: Decoding,
        what: Sequence[str] = (),
        *,
        rows: int = 0,
        width: int = 0,
        assistant: LoadedModel | None = None,
    ) -> None:
        self.loaded, self.decoding, self.assistant = loaded, decoding, assistant
        self.width = width if decoding.compile else 0
        if bool(decoding.assistant) != (assistant is not None):
            raise CaptureError("Decoding.assistant names the model that is handed over as assistant, and no other.")
        if assistant is not None and assistant.tokenizer.get_vocab() != loaded.tokenizer.get_vocab():
            raise CaptureError(f"{assistant.id} has another vocabulary than {loaded.id}, so it cannot draft for it.")
        self.taps = make_taps(loaded.model, sites, what)
        if self.taps and decoding.compile:
            raise CaptureError("--compile records experts and weights only; leave other --what out.")
        if any(isinstance(tap, LogprobTap) for tap in self.taps) and decoding.beams > 1:
            raise CaptureError("logprob is not recorded in a beam search, where rows change places; leave it out.")
        self.recorder: Recorder | BufferRecorder | ContinuousRecorder = self._recorder(sites, rows)

    def __enter__(self) -> "Session":
        self.recorder.__enter__()
        try:
            if self.taps and isinstance(self.recorder, Recorder):
                self.recorder.rehearse(self.loaded.pad_token)
        except BaseException as error:
            self.recorder.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recorder.__exit__(kind, value, trace)

    def _recorder(self, sites: Sequence[ExpertsSite], rows: int) -> "Recorder | BufferRecorder | ContinuousRecorder":
        if self.decoding.compile:
            return BufferRecorder(self.loaded.model, sites, rows=rows)
        if self.decoding.continuous:
            return ContinuousRecorder(self.loaded.model, sites, self.taps)
        return Recorder(self.loaded.model, sites, self.taps)

    def generate(self, jobs: list[Job], *, number: int) -> BatchOutput:
        """Generate for `jobs`, batch `number` of the run.

        Raises:
            CaptureError: a layer did not record every row.
        """
        model, decoding = self.loaded.model, self.decoding
        if isinstance(self.recorder, ContinuousRecorder):
            return self._generate_continuously(self.recorder, jobs)
        inputs = [job for job in jobs if job.sample == 0] if decoding.beams > 1 else jobs
        ids, mask = pad_left([job.ids for job in inputs], self.loaded.pad_token, self.width)
        stopping = StopTexts(self.loaded.tokenizer, decoding.stop, self._prompt_columns(ids)) if decoding.stop else None
        # Before the model's own settings are set aside: they name the end tokens.
        config = decoding.config(self.loaded)
        # A stream per batch: a resumed run can draw the same tokens without replaying the batches before.
        torch.manual_seed(int(np.random.SeedSequence([decoding.seed, number]).generate_state(1, np.uint64)[0] >> 1))
        self.recorder.clear()
        with torch.inference_mode(), neutral(model), _explained(model):
            output: Any = model.generate(  # type: ignore[operator]  # nn.Module types it as Tensor | Module
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=config,
                assistant_model=None if self.assistant is None else self.assistant.model,
                stopping_criteria=None if stopping is None else StoppingCriteriaList([stopping]),
            )
        # The first new token comes out of the prompt's forward, which is not compiled.
        several = output.sequences.shape[1] > self._decoder_columns(ids.shape[1]) + 1
        if decoding.compile and several and not hasattr(model, "_compiled_call"):
            raise CaptureError(f"transformers would not compile {type(model).__name__} here. Leave --compile out.")
        return self._collect(jobs, ids.shape[1], output, stopping)

    def _collect(self, jobs: list[Job], width: int, output: Any, stopping: "StopTexts | None") -> BatchOutput:
        tokens: NDArray[np.int64] = output.sequences.cpu().numpy()
        if len(tokens) != len(jobs):
            raise CaptureError(
                f"{len(jobs)} sequences were asked for, but {len(tokens)} came back. Nothing was written."
            )
        for tap in self.taps:
            if isinstance(tap, LogprobTap):
                tap.finish(tokens)
        assert not isinstance(self.recorder, ContinuousRecorder)  # noqa: S101  # narrows a type; generate branched
        beams = output.beam_indices if self.decoding.beams > 1 else None
        recording = self.recorder.recording().returned(output.sequences, beams)
        new = tokens[:, self._decoder_columns(width) :]
        stopped = np.zeros(len(jobs), np.int64) if stopping is None else stopping.ended(len(jobs))
        return BatchOutput(jobs, width, new, int(tokens[0, 0]) if self._seq2seq else None, stopped, recording)

    def _generate_continuously(self, recorder: ContinuousRecorder, jobs: list[Job]) -> BatchOutput:
        """All jobs through transformers' continuous batching: packed, without padding."""
        model: Any = self.loaded.model
        config = self.decoding.config(self.loaded)
        recorder.clear()
        with neutral(model):
            outputs = model.generate_batch(
                [job.ids for job in jobs],
                generation_config=config,
                continuous_batching_config=self._room(jobs),
                warmup=False,
            )
        # The order of requests is that in which they finished; their names end in the order they were given.
        outputs = dict(sorted(outputs.items(), key=lambda item: int(item[0].rpartition("_")[2])))
        if [output.prompt_ids for output in outputs.values()] != [job.ids for job in jobs]:
            raise CaptureError(f"{len(outputs)} of {len(jobs)} prompts came back whole. Nothing was written.")
        counts = np.array([len(output.generated_tokens) for output in outputs.values()], dtype=np.int64)
        new = np.full((len(jobs), int(counts.max())), self.loaded.pad_token, dtype=np.int64)
        for place, output in enumerate(outputs.values()):
            new[place, : counts[place]] = output.generated_tokens
        return BatchOutput(
            jobs, 0, new, None, np.zeros(len(jobs), np.int64), recorder.recording(outputs), counts, aligned=False
        )

    def _room(self, jobs: list[Job]) -> ContinuousBatchingConfig:
        """Cache for these jobs. On a CPU the library would take nine tenths of the machine's memory, and fill it."""
        if self.loaded.model.device.type != "cpu":
            return ContinuousBatchingConfig()
        blocks = sum(-(-(len(job.ids) + self.decoding.max_new_tokens) // _PAGE) + 1 for job in jobs)
        tokens = min(sum(len(job.ids) for job in jobs) + len(jobs), _PACKED)
        return ContinuousBatchingConfig(page_size=_PAGE, num_blocks=blocks, max_batch_tokens=tokens)

    @property
    def _seq2seq(self) -> bool:
        return bool(getattr(self.loaded.model.config, "is_encoder_decoder", False))

    def _decoder_columns(self, width: int) -> int:
        """How many tokens a returned sequence begins with that were not generated."""
        return 1 if self._seq2seq else width

    def _prompt_columns(self, ids: torch.Tensor) -> int:
        return self._decoder_columns(ids.shape[1])


def pad_left(rows: Sequence[Sequence[int]], pad: int, least: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both (sequences, longest or `least`), padded on the left."""
    width = max(least, *(len(row) for row in rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row)
        mask[place, width - len(row) :] = 1
    return ids, mask


@contextmanager
def neutral(model: PreTrainedModel) -> Iterator[None]:
    """Set the model's own generation settings aside: transformers fills every field we leave open from them (beams,
    penalties, suppressed tokens), which would change the text, or mix up rows, without a word in the manifest.
    What an encoder-decoder model starts from is kept: it is part of the model."""
    original = model.generation_config
    start = {} if original is None else {
        name: getattr(original, name) for name in ("decoder_start_token_id", "bos_token_id")
    }  # fmt: skip
    model.generation_config = GenerationConfig(**start)
    try:
        yield
    finally:
        model.generation_config = original


@contextmanager
def _explained(model: PreTrainedModel) -> Iterator[None]:
    """A failure to compile is no mistake of the user's: a sentence, no traceback."""
    try:
        yield
    except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as problem:
        first = str(problem).strip().split("\n")[0][:200].rstrip(". ")
        raise CaptureError(f"{type(model).__name__} could not be compiled ({first}). Leave --compile out.") from problem
