"""From one recorded batch to rows of a shard and lines of generations."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprobe.capture import Recording
from moeprobe.capture.recording import is_encoder
from moeprobe.engines.sequence import GeneratedSequence, SequenceReader
from moeprobe.engines.session import BatchOutput
from moeprobe.trace import PHASES, SEGMENTS, Generation, Routing, ShardData

# Signals of the next-token distribution.
_OF_OUTPUT = {"entropy", "logprob"}
_EMPTY_TOKEN = np.zeros(1, np.int32)


def assemble(reader: SequenceReader, output: BatchOutput, *, first_index: int) -> tuple[ShardData, list[Generation]]:
    """Rows and generation records of a batch: padding, what came after the end and what was trimmed are dropped.

    Args:
        reader: of the run.
        output: the batch.
        first_index: number of its first generation in the trace.

    Raises:
        CaptureError: a row was computed from another token than the one that stands in the text.
    """
    sequences = [
        reader.read(job, new[: None if output.counts is None else output.counts[place]], int(output.stopped[place]))
        for place, (job, new) in enumerate(zip(output.jobs, output.new, strict=True))
    ]
    layout = _Layout(output, sequences)
    layout.check(output)
    columns = layout.columns(first_index)
    recording = output.recording
    routing = {site.name: _routing(recording, layout, site.stack, site.name) for site in recording.sites}
    stacks = {site.name: site.stack for site in recording.sites}
    signals = {
        name: _signal(recording, layout, stacks.get(name.rpartition(".")[0], ""), name) for name in recording.signals
    }
    for name in _OF_OUTPUT & signals.keys():
        # A prompt forwarded in chunks gives logits at the end of each chunk; no other way of decoding does.
        signals[name][layout.inside_prompt()] = np.nan
    generations = [
        _record(sequence, first_index + place, layout.prompt_rows[place]) for place, sequence in enumerate(sequences)
    ]
    return ShardData(columns, routing, signals), generations


@dataclass(frozen=True)
class _Span:
    """Which rows of a stack belong to one sequence: columns [first, first + rows) of its grid."""

    place: int
    encoder: bool
    first: int
    rows: int


class _Layout:
    """Where each row of the shard comes from. In an encoder-decoder model the prompt's rows are the encoder's, and the
    decoder's start token follows them."""

    def __init__(self, output: BatchOutput, sequences: list[GeneratedSequence]) -> None:
        self.sequences, self.width, self.start = sequences, output.width, output.start
        seq2seq = self.start is not None
        self.prompt_rows = [len(one.job.ids) + seq2seq for one in sequences]
        spans: list[_Span] = []
        for place, one in enumerate(sequences):
            prompt = len(one.job.ids)
            if seq2seq:
                spans.append(_Span(place, True, self.width - prompt, prompt))
                spans.append(_Span(place, False, 0, 1 + one.answer_rows))
            else:
                first = self.width - prompt if output.aligned else 0
                spans.append(_Span(place, False, first, prompt + one.answer_rows))
        rows = np.array([span.rows for span in spans])
        self.place = np.repeat([span.place for span in spans], rows)
        self.encoder = np.repeat([span.encoder for span in spans], rows)
        offset = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        self.column = offset + np.repeat([span.first for span in spans], rows)
        self.token = np.concatenate([self._tokens(one) for one in sequences])

    def _tokens(self, one: GeneratedSequence) -> NDArray[np.int64]:
        start = [] if self.start is None else [self.start]
        return np.array([*one.job.ids, *start, *one.generated[: one.answer_rows]], dtype=np.int64)

    def check(self, output: BatchOutput) -> None:
        """Every row was computed from its own token."""
        for name in output.recording.stacks:
            mine = self.of(name)
            shape = (len(self.sequences), int(self.column[mine].max()) + 1)
            tokens, real = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
            tokens[self.place[mine], self.column[mine]] = self.token[mine]
            real[self.place[mine], self.column[mine]] = True
            output.recording.check(name, tokens, real)

    def of(self, stack: str) -> NDArray[np.bool_]:
        """(rows,) which rows a stack routed."""
        inside: NDArray[np.bool_] = self.encoder == is_encoder(stack)
        return inside

    def inside_prompt(self) -> NDArray[np.bool_]:
        """(rows,) prompt tokens that another prompt token follows."""
        lengths = np.array(self.prompt_rows) + [one.answer_rows for one in self.sequences]
        position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        inside: NDArray[np.bool_] = position < np.repeat(self.prompt_rows, lengths) - 1
        return inside

    def columns(self, first_index: int) -> dict[str, NDArray[np.generic]]:
        """The columns every trace has."""
        prompts = np.array(self.prompt_rows)
        lengths = prompts + [one.answer_rows for one in self.sequences]
        position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        decoded = position >= np.repeat(prompts, lengths)
        return {
            "token_id": self.token,
            "generation": np.repeat(first_index + np.arange(len(prompts)), lengths),
            "position": position,
            "phase": np.where(decoded, PHASES.index("decode"), PHASES.index("prefill")),
            "segment": self._joined(
                [(one.prompt_codes, one.answer_codes) for one in self.sequences], SEGMENTS.index("prompt")
            ),
            "char_start": self._joined([(one.prompt.start, one.answer.start) for one in self.sequences]),
            "char_end": self._joined([(one.prompt.end, one.answer.end) for one in self.sequences]),
        }

    def _joined(
        self, parts: list[tuple[NDArray[np.generic], NDArray[np.generic]]], start: int = -1
    ) -> NDArray[np.int64]:
        """Values of prompt and answer of each sequence; a decoder start token covers no characters of the prompt."""
        pieces: list[NDArray[np.generic]] = []
        for (prompt, answer), one in zip(parts, self.sequences, strict=True):
            pieces.append(prompt)
            if self.start is not None:
                pieces.append(_EMPTY_TOKEN + (len(one.prompt.text) if start < 0 else start))
            pieces.append(answer[: one.answer_rows])
        return np.concatenate(pieces).astype(np.int64)


def _rows(recording: Recording, layout: _Layout, stack: str) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows of the shard a stack has, and where those are in the recording."""
    mine = layout.of(stack)
    return mine, recording.stacks[stack].grid[layout.place[mine], layout.column[mine]]


def _routing(recording: Recording, layout: _Layout, stack: str, name: str) -> Routing:
    mine, rows = _rows(recording, layout, stack)
    flat = recording.layers[name]
    k = flat.experts.shape[1]
    experts = np.full((len(mine), k), -1, dtype=np.int64)
    weights = np.zeros((len(mine), k), dtype=np.float32)
    experts[mine], weights[mine] = flat.experts[rows], flat.weights[rows]
    present = experts >= 0
    return Routing(np.where(present, experts, 0), weights, None if present.all() else present)


def _signal(recording: Recording, layout: _Layout, stack: str, name: str) -> NDArray[np.generic]:
    mine, rows = _rows(recording, layout, stack)
    values = recording.signals[name]
    empty = False if values.dtype == np.bool_ else np.nan
    full = np.full((len(mine), *values.shape[1:]), empty, dtype=values.dtype)
    full[mine] = values[rows]
    return full


def _record(sequence: GeneratedSequence, index: int, prompt_rows: int) -> Generation:
    prompt = sequence.job.prompt
    return Generation(
        index=index,
        prompt_id=prompt.id,
        sample=sequence.job.sample,
        prompt_text=sequence.prompt.text,
        text=sequence.answer.text,
        stop=sequence.stop,
        generated=len(sequence.generated),
        last_token=sequence.generated[-1],
        prompt_rows=prompt_rows,
        answer_rows=sequence.answer_rows,
        pair=prompt.pair,
        label=prompt.label,
        metadata=prompt.metadata,
        messages=prompt.messages,
        trims=sequence.trims,
    )
