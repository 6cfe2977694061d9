"""A recorded run, batch by batch, as what would make it again: token ids, prompts, and the routing to compare with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from moeprobe.chat.encode import check_template, encode_prompt
from moeprobe.engines.session import Job
from moeprobe.errors import PromptError, TraceError
from moeprobe.models import LoadedModel
from moeprobe.prompts import Prompt
from moeprobe.rerun.repeats import Answer, Flags, Floats, Ints, LayerRows
from moeprobe.trace import Generation, LayerInfo, Manifest, Routing, Shard, Trace

# Stands where the user's text goes when a template is asked for what it puts around it.
_MARK = "moeprobe-4f1c"


@dataclass(frozen=True)
class BatchRows:
    """Rows of some generations, one generation after another.

    Attributes:
        generations: whose rows they are.
        token: (rows,) token ids.
        layers: routing by layer name.
    """

    generations: list[Generation]
    token: Ints
    layers: Mapping[str, LayerRows]

    @property
    def starts(self) -> Ints:
        """(generations,) first row of each."""
        rows = np.array([one.rows for one in self.generations], dtype=np.int64)
        return np.cumsum(rows) - rows

    def ids(self, place: int) -> Ints:
        """(rows of the generation,) its tokens, prompt and answer."""
        start = int(self.starts[place])
        return self.token[start : start + self.generations[place].rows]

    def answer(self, place: int) -> Answer:
        """What generation number `place` of the batch generated."""
        one = self.generations[place]
        return Answer(self.ids(place)[one.prompt_rows :], one.generated, one.last_token)


@dataclass(frozen=True)
class RecordedBatch(BatchRows):
    """One batch of a trace, and its number in the run, which seeds its draws."""

    number: int = 0


def as_run(manifest: Manifest) -> Manifest:
    """The manifest as one of a single run, for putting its setting back and comparing it.

    A merge keeps lists where its runs differ; its decoding becomes that of its first run. Which layers were asked for
    is no setting of today's model; that `rerun` records the same ones comes from the layers themselves.
    """
    first = manifest.merged[0].get("decoding") if manifest.merged else None
    return replace(
        manifest,
        decoding=first if isinstance(first, dict) else manifest.decoding,
        engine={key: value for key, value in manifest.engine.items() if key != "layers"},
    )


def recorded_batches(trace: Trace, *, limit: int | None = None, vocabulary: int) -> Iterator[RecordedBatch]:
    """The batches of a trace, in order. Memory: one batch.

    Args:
        trace: the run.
        limit: stop after the batch that completes this many generations; all by default.
        vocabulary: number of tokens the model knows.

    Raises:
        TraceError: a damaged shard, or a token that the model does not know.
    """
    records, done = trace.iter_generations(), 0
    for number, infos in groupby(trace.infos(), key=lambda info: info.batch):
        if limit is not None and done >= limit:
            return
        listed = list(infos)
        generations = list(islice(records, sum(info.generations for info in listed)))
        done += len(generations)
        shards = [trace.open(info) for info in listed]
        token = np.concatenate([shard.token_id for shard in shards]).astype(np.int64)
        if int(token.max()) >= vocabulary:
            raise TraceError(
                f"{trace.path}: token {int(token.max())}, but the model knows {vocabulary}. It is of another model."
            )
        names = {one.name for one in trace.manifest.signals if one.kind == "flag" and one.width is None}
        layers = {info.name: _layer(shards, info, names) for info in trace.manifest.layers}
        yield RecordedBatch(generations, token, layers, number)


def layer_rows(routing: Routing, sensitive: Flags | None = None) -> LayerRows:
    """Routing as a comparison takes it: -1 where a choice is absent."""
    experts: Ints = routing.experts.astype(np.int64)
    if routing.mask is not None:
        experts = np.where(routing.mask, experts, -1)
    weights: Floats = routing.weights.astype(np.float32)
    return LayerRows(experts, weights, sensitive)


@dataclass(frozen=True)
class Encoding:
    """How prompts became token ids.

    Attributes:
        tokenizer: of the model, today's.
        raw: plain prompts did not go through the chat template.
        template: variables of the chat template.
        start_token: a prompt's last row is a decoder's start token (encoder-decoder models).
    """

    tokenizer: PreTrainedTokenizerBase
    raw: bool
    template: Mapping[str, Any]
    start_token: bool

    @classmethod
    def of(cls, loaded: LoadedModel, manifest: Manifest, where: str) -> "Encoding":
        """What a manifest says of it.

        Raises:
            TraceError: variables that no template has.
        """
        section = manifest.tokenizer
        template = section.get("template_options") or {}
        if not isinstance(template, dict):
            raise TraceError(f"{where}: 'template_options' are no variables of a chat template. Record the run again.")
        try:
            check_template(template)
        except PromptError as problem:
            raise TraceError(f"{where}: 'template_options': {problem}") from problem
        seq2seq = bool(getattr(loaded.model.config, "is_encoder_decoder", False))
        return cls(loaded.tokenizer, bool(section.get("raw", not section.get("chat_template"))), template, seq2seq)

    def encoded(self, prompt: Prompt) -> list[int] | None:
        """Token ids of a prompt today, or None where it is refused."""
        try:
            return encode_prompt(self.tokenizer, prompt, raw=self.raw, template=self.template)
        except PromptError:
            return None


def jobs_of(batch: RecordedBatch, encoding: Encoding) -> list[Job]:
    """The jobs that made a batch. Prompt ids come from the rows, so no change of a template can alter them."""
    around = None if encoding.raw else template_around(encoding)
    jobs = []
    for place, one in enumerate(batch.generations):
        ids = [int(token) for token in batch.ids(place)[: one.prompt_rows - encoding.start_token]]
        jobs.append(Job(prompt_of(one, around), one.sample, ids))
    return jobs


def prompt_of(one: Generation, around: tuple[str, str] | None) -> Prompt:
    """The prompt of a generation. A plain text is what stands between what the template puts `around` it."""
    text = None if one.messages is not None else one.prompt_text
    if text is not None and around is not None:
        before, after = around
        fits = text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after)
        text = text[len(before) : len(text) - len(after)] if fits else text
    return Prompt(one.prompt_id, text, one.messages, one.pair, one.label, one.metadata)


def template_around(encoding: Encoding) -> tuple[str, str] | None:
    """What today's chat template puts before and after a single user message, or None where that cannot be told."""
    if encoding.tokenizer.chat_template is None:
        return None
    try:
        chat, options = [{"role": "user", "content": _MARK}], dict(encoding.template)
        text = encoding.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False, **options)
    except (TemplateError, ValueError, TypeError):
        return None
    before, found, after = str(text).partition(_MARK)
    return (before, after) if found and _MARK not in after else None


def same_ids_today(encoding: Encoding, job: Job) -> bool:
    """Whether a prompt would give the same ids today.

    A plain prompt's own text is not in the trace; it is read back from its tokens, with and without special ones. So
    True is sure, and False means that it differs or could not be read back.
    """
    ids, tokenizer = job.ids, encoding.tokenizer
    if job.prompt.messages is not None or not (encoding.raw or tokenizer.chat_template is None):
        return encoding.encoded(job.prompt) == ids
    bare = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    texts = (job.prompt.prompt or "", bare)
    return any(encoding.encoded(Prompt(job.prompt.id, text)) == ids for text in texts)


def vocabulary(loaded: LoadedModel) -> int:
    """Number of tokens that a model has embeddings for."""
    count = getattr(loaded.model.get_input_embeddings(), "num_embeddings", None)
    return count if isinstance(count, int) else int(loaded.model.config.get_text_config().vocab_size)


def _layer(shards: Sequence[Shard], info: LayerInfo, signals: set[str]) -> LayerRows:
    flag = f"{info.name}.gate_sensitive"
    parts = [
        layer_rows(
            Routing(shard.experts(info.name), shard.weights(info.name), shard.mask(info.name)),
            shard.signal(flag) if flag in signals else None,
        )
        for shard in shards
    ]
    sensitive = None if parts[0].sensitive is None else np.concatenate([part.sensitive for part in parts])
    return LayerRows(
        np.concatenate([part.experts for part in parts]), np.concatenate([part.weights for part in parts]), sensitive
    )
