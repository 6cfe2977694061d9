"""One generated sequence: its text, what is kept of it, and the segment of each token."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprobe.chat.encode import Template
from moeprobe.chat.marking import Messages
from moeprobe.chat.pieces import Pieces, decode_pieces
from moeprobe.chat.segments import PromptSegments, chat_renderer, segment_prompt
from moeprobe.chat.thinking import answer_segments, thinking_marks
from moeprobe.chat.trims import end_marks, trim, turn_delimiter
from moeprobe.engines.decoding import Decoding
from moeprobe.engines.session import Job
from moeprobe.models import LoadedModel


@dataclass(frozen=True)
class GeneratedSequence:
    """One sequence of a batch.

    Attributes:
        job: what was asked.
        generated: ids of all sampled tokens, the end token included, before any trim.
        kept: how many of them stay; less than all where something was trimmed.
        stop: "eos", "stop" (a stop text) or "length".
        prompt, answer: text and offsets; `answer.text` ends where the kept tokens end.
        prompt_codes: (prompt tokens,) and `answer_codes` (kept tokens,) segment codes.
        trims: what was cut and why.
    """

    job: Job
    generated: list[int]
    kept: int
    stop: str
    prompt: Pieces
    answer: Pieces
    prompt_codes: NDArray[np.uint8]
    answer_codes: NDArray[np.uint8]
    trims: tuple[dict[str, Any], ...]

    @property
    def answer_rows(self) -> int:
        """Routed tokens of the answer. The last sampled token was never fed in: it has no row."""
        return min(self.kept, len(self.generated) - 1)


class SequenceReader:
    """Reads generated token ids: text, trims, segments. Knows the marks of one model's tokenizer and template.

    Args:
        loaded: model and tokenizer.
        decoding: stop texts and whether loops are trimmed.
        raw: prompts were not put through the chat template.
        template: variables of the chat template.
    """

    def __init__(
        self, loaded: LoadedModel, decoding: Decoding, *, raw: bool = False, template: Template | None = None
    ) -> None:
        tokenizer = loaded.tokenizer
        self.loaded, self.decoding, self.template = loaded, decoding, dict(template or {})
        self.chat = tokenizer.chat_template is not None and not raw
        self.thinking = thinking_marks(tokenizer)
        ends = [str(tokenizer.decode([end])) for end in sorted(loaded.end_tokens)]
        delimiter = turn_delimiter(chat_renderer(tokenizer, **self.template)) if self.chat else None
        self.marks = end_marks(ends, tokenizer.all_special_tokens, delimiter)
        added = (*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values())
        self.mark_ids = sorted({*loaded.end_tokens, *(int(one) for one in added)})
        self._prompts: dict[tuple[str, tuple[int, ...]], tuple[Pieces, PromptSegments]] = {}

    def read(self, job: Job, new: NDArray[np.int64], stopped: int) -> GeneratedSequence:
        """Make sense of one sequence.

        Args:
            job: its job.
            new: (new tokens,) generated ids with padding after the end.
            stopped: number of tokens when a stop text was complete, 0 where none was.
        """
        generated, ended = self._until_end(new, stopped)
        ids = generated[:-1] if ended else generated
        pieces = decode_pieces(self.loaded.tokenizer, ids)
        kept, causes = trim(
            ids, pieces.text, pieces.start, pieces.end,
            stops=self.decoding.stop, marks=self.marks, mark_ids=self.mark_ids, loops=self.decoding.trim_loops,
        )  # fmt: skip
        prompt, segments = self._prompt(job)
        codes = answer_segments(self.thinking, ids, pieces.text, pieces.start, pieces.end, segments.tail)
        answer = pieces if kept == len(ids) else _cut(pieces, kept)
        # The end token was sampled too; it stays the last sampled token unless something before it was cut.
        whole = len(generated) if kept == len(ids) else kept
        return GeneratedSequence(
            job, generated, whole, self._stop(ended, stopped, generated), prompt, answer,
            segments.codes, codes[:kept], tuple(cause.to_json() for cause in causes),
        )  # fmt: skip

    def _stop(self, ended: bool, stopped: int, generated: list[int]) -> str:
        if ended:
            return "eos"
        return "stop" if stopped and stopped == len(generated) else "length"

    def _until_end(self, new: NDArray[np.int64], stopped: int) -> tuple[list[int], bool]:
        given = new[:stopped] if stopped else new
        final = np.flatnonzero(np.isin(given, sorted(self.loaded.end_tokens)))
        ids = given[: final[0] + 1] if len(final) else given
        return [int(token) for token in ids], len(final) > 0

    def _prompt(self, job: Job) -> tuple[Pieces, PromptSegments]:
        key = (job.prompt.id, tuple(job.ids))
        if key not in self._prompts:
            pieces = decode_pieces(self.loaded.tokenizer, job.ids)
            found = segment_prompt(self.loaded.tokenizer, self._messages(job), job.ids, pieces, **self.template)
            # Samples of one prompt come one after another: the last one is enough.
            self._prompts = {key: (pieces, found)}
        return self._prompts[key]

    def _messages(self, job: Job) -> Messages | None:
        if job.prompt.messages is not None:
            return list(job.prompt.messages)
        return [{"role": "user", "content": job.prompt.prompt or ""}] if self.chat else None


def _cut(pieces: Pieces, kept: int) -> Pieces:
    end = int(pieces.start[kept])
    return Pieces(pieces.text[:end], pieces.start[:kept], np.minimum(pieces.end[:kept], end).astype(np.int32))
