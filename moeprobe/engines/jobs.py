"""What is generated: jobs, batches of them, and how much room their trace may take."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moeprobe.chat.encode import Template, encode_prompt
from moeprobe.doctor.survey import bytes_per_token, survey
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.session import Job
from moeprobe.errors import ModelError, OutputError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt


def make_jobs(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    raw: bool = False,
    template: Template | None = None,
) -> list[Job]:
    """One job per prompt and sample, the samples of a prompt one after another.

    Raises:
        ModelError: a prompt and its answer are longer than the model's positions.
        PromptError: a prompt cannot be encoded.
    """
    limit = loaded.positions
    jobs: list[Job] = []
    for prompt in prompts:
        ids = encode_prompt(loaded.tokenizer, prompt, raw=raw, template=template)
        if limit is not None and len(ids) + decoding.max_new_tokens > limit:
            raise ModelError(
                f"Prompt {prompt.id!r} has {len(ids)} tokens; with {decoding.max_new_tokens} new ones that is more "
                f"than the model's {limit} positions. Shorten it or lower --max-new-tokens."
            )
        jobs.extend(Job(prompt, sample, ids) for sample in range(decoding.samples))
    return jobs


def batches(jobs: Sequence[Job], decoding: Decoding) -> Iterator[list[Job]]:
    """The jobs in batches, in order.

    Drafted tokens are checked for one sequence at a time; a beam search returns all samples of a prompt together.
    """
    size = 1 if decoding.drafts else decoding.batch_size
    if decoding.beams > 1:
        size = max(1, size // decoding.beams) * decoding.samples
    for start in range(0, len(jobs), size):
        yield list(jobs[start : start + size])


def widest(jobs: Sequence[Job]) -> int:
    """Tokens of the longest prompt."""
    return max(len(job.ids) for job in jobs)


def most_rows(jobs: Sequence[Job], decoding: Decoding) -> int:
    """Most rows that one batch forwards, padding and losing beams included."""
    return max(decoding.batch_size, decoding.beams) * (widest(jobs) + decoding.max_new_tokens)


@dataclass(frozen=True)
class Size:
    """How large a trace may become.

    Attributes:
        per_token: bytes of one token.
        tokens: most tokens, should every answer reach its limit.
        worst: bytes of all of them, should no number fit 16 bits.
        each: most tokens of each generation, in the order in which they are made; they sum to `tokens`.
    """

    per_token: int
    tokens: int
    worst: int
    each: tuple[int, ...] = field(default=(), repr=False)

    def worst_after(self, done: int) -> int:
        """Bytes that may still be written, when the first `done` generations already are."""
        return self.worst if not self.tokens else self.worst * (self.tokens - sum(self.each[:done])) // self.tokens

    def __str__(self) -> str:
        return (
            f"about {self.per_token:,} bytes per token, at most {self.tokens:,} tokens: up to {_megabytes(self.worst)}"
        )


def size_of(
    loaded: LoadedModel, names: Sequence[str], jobs: Sequence[Job], decoding: Decoding, what: Sequence[str]
) -> Size:
    """The size of the trace of `jobs`.

    Args:
        loaded: the model.
        names: recorded sites, "L14".
        jobs: what will be generated.
        decoding: how.
        what: signals beside experts and weights.
    """
    sites = [site for site in survey(loaded.model).sites if site.name in set(names)]
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    each = tuple(len(job.ids) + decoding.max_new_tokens for job in jobs)
    tokens = sum(each)
    worst = bytes_per_token(sites, what, dtype, worst=True)
    return Size(bytes_per_token(sites, what, dtype), tokens, worst * tokens, each)


def check_disk(out: Path, size: Size, done: int = 0) -> None:
    """Refuse a run whose trace would not fit on the disk.

    Args:
        out: directory of the trace.
        size: of the whole trace.
        done: generations that an interrupted run has written already; the disk counts them as used.

    Raises:
        OutputError: says how much is needed, and how much is free.
    """
    # The folders above may still have to be made.
    place = next(folder for folder in out.resolve().parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    needed = size.worst_after(done)
    if needed > free:
        rest = f"The rest of the trace, after {done:,} generations," if done else "The trace"
        raise OutputError(
            f"{rest} may take {_megabytes(needed)} ({size}), but {place} has {_megabytes(free)} "
            "free. Record fewer layers or signals (--layers, --what), shorten the answers, or choose another disk."
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"
