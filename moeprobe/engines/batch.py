"""One batch: generate with recording, and turn what was recorded into rows of a shard."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, PreTrainedModel

from moeprobe.capture import ExpertsSite, LayerRouting, Recorder
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.pieces import Pieces, decode_pieces
from moeprobe.errors import CaptureError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from moeprobe.trace import PHASES, SEGMENTS, Generation, Routing, ShardData


@dataclass(frozen=True)
class Job:
    """One sequence to generate: a prompt, which of its samples, and its token ids."""

    prompt: Prompt
    sample: int
    ids: list[int]


@dataclass(frozen=True)
class _Sequence:
    """What came back for one job, in padded coordinates."""

    job: Job
    index: int
    place: int  # row in the batch
    padding: int
    generated: list[int]  # the end token included
    prompt: Pieces
    answer: Pieces
    ended: bool

    @property
    def prompt_rows(self) -> int:
        return len(self.job.ids)

    @property
    def answer_rows(self) -> int:
        """The last token was sampled but never routed: it has no row."""
        return len(self.generated) - 1


def generate_batch(
    loaded: LoadedModel, sites: list[ExpertsSite], jobs: list[Job], decoding: Decoding, *, number: int
) -> tuple[NDArray[np.int64], dict[int, LayerRouting]]:
    """Generate for `jobs` with recording on.

    Returns:
        Token ids (sequences, padded prompt + new tokens), and routing by layer in the same coordinates.

    Raises:
        CaptureError: a layer did not record every row.
    """
    model = loaded.model
    width = max(len(job.ids) for job in jobs)
    ids = torch.full((len(jobs), width), loaded.pad_token, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, job in enumerate(jobs):
        ids[place, width - len(job.ids) :] = torch.tensor(job.ids)
        mask[place, width - len(job.ids) :] = 1
    # Before the model's own settings are set aside: they name the end tokens.
    config = decoding.config(loaded)
    # A stream per batch: a resumed run can draw the same tokens without replaying the batches before.
    torch.manual_seed(int(np.random.SeedSequence([decoding.seed, number]).generate_state(1, np.uint64)[0] >> 1))
    with torch.inference_mode(), _neutral(model), Recorder(model, sites) as recorder:
        output: torch.Tensor = model.generate(  # type: ignore[operator]  # nn.Module types it as Tensor | Module
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
        )
    routing = recorder.routing()
    rows = {len(output), *(len(layer.experts) for layer in routing.values())}
    if rows != {len(jobs)}:
        raise CaptureError(
            f"{len(jobs)} sequences were asked for, but the model ran {sorted(rows)}. Nothing was written."
        )
    return output.cpu().numpy(), routing


@contextmanager
def _neutral(model: PreTrainedModel) -> Iterator[None]:
    """Set the model's own generation settings aside: transformers fills every field we leave open from them (beams,
    penalties, suppressed tokens), which would change the text, or mix up rows, without a word in the manifest."""
    original = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = original


def assemble(
    loaded: LoadedModel,
    jobs: list[Job],
    tokens: NDArray[np.int64],
    routing: dict[int, LayerRouting],
    *,
    first_index: int,
    shard: int,
) -> tuple[ShardData, list[Generation]]:
    """Rows and generation records of a batch: padding and rows after the end are dropped, nothing else."""
    ends = loaded.end_tokens
    width = max(len(job.ids) for job in jobs)
    sequences = [
        _sequence(loaded, job, first_index + place, place, tokens[place], width, ends) for place, job in enumerate(jobs)
    ]
    data = _rows(sequences, tokens, routing, width)
    generations, row = [], 0
    for sequence in sequences:
        generations.append(_record(sequence, shard, row))
        row += generations[-1].rows
    return data, generations


def _sequence(
    loaded: LoadedModel, job: Job, index: int, place: int, tokens: NDArray[np.int64], width: int, ends: set[int]
) -> _Sequence:
    new = tokens[width:]
    final = np.flatnonzero(np.isin(new, sorted(ends)))
    ended = len(final) > 0
    generated = [int(token) for token in (new[: final[0] + 1] if ended else new)]
    answer = decode_pieces(loaded.tokenizer, generated[:-1] if ended else generated)
    prompt = decode_pieces(loaded.tokenizer, job.ids)
    return _Sequence(job, index, place, width - len(job.ids), generated, prompt, answer, ended)


def _rows(
    sequences: list[_Sequence], tokens: NDArray[np.int64], routing: dict[int, LayerRouting], width: int
) -> ShardData:
    lengths = np.array([sequence.prompt_rows + sequence.answer_rows for sequence in sequences])
    place = np.repeat(np.arange(len(sequences)), lengths)
    padding = np.repeat([sequence.padding for sequence in sequences], lengths)
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    column = position + padding
    decoded = column >= width
    columns = {
        "token_id": tokens[place, column],
        "generation": np.repeat([sequence.index for sequence in sequences], lengths),
        "position": position,
        "phase": np.where(decoded, PHASES.index("decode"), PHASES.index("prefill")),
        "segment": np.where(decoded, SEGMENTS.index("answer"), SEGMENTS.index("prompt")),
        "char_start": np.concatenate([_offsets(sequence, "start") for sequence in sequences]),
        "char_end": np.concatenate([_offsets(sequence, "end") for sequence in sequences]),
    }
    layers = {}
    for layer, recorded in routing.items():
        experts, weights = recorded.experts[place, column], recorded.weights[place, column]
        present = experts >= 0
        layers[layer] = Routing(np.where(present, experts, 0), weights, None if present.all() else present)
    return ShardData(columns, layers)


def _offsets(sequence: _Sequence, end: str) -> NDArray[np.int32]:
    prompt: NDArray[np.int32] = getattr(sequence.prompt, end)
    answer: NDArray[np.int32] = getattr(sequence.answer, end)
    return np.concatenate([prompt, answer[: sequence.answer_rows]])


def _record(sequence: _Sequence, shard: int, first_row: int) -> Generation:
    prompt = sequence.job.prompt
    return Generation(
        index=sequence.index,
        prompt_id=prompt.id,
        sample=sequence.job.sample,
        prompt_text=sequence.prompt.text,
        text=sequence.answer.text,
        stop="eos" if sequence.ended else "length",
        generated=len(sequence.generated),
        last_token=sequence.generated[-1],
        prompt_rows=sequence.prompt_rows,
        answer_rows=sequence.answer_rows,
        shard=shard,
        first_row=first_row,
        pair=prompt.pair,
        label=prompt.label,
        metadata=prompt.metadata,
        messages=prompt.messages,
    )
