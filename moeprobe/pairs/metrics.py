"""What is measured of a run: one number per pair and run, from the logits at the read-out tokens.

A metric says which tokens are forced after both prompts of a pair, and scores the logits that predict them. All scores
are float64 and differentiable with respect to the logits, so that a screen can take their gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from moeprobe.errors import InterchangeError
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import greedy
from moeprobe.pairs.divergence import neutral_kl as neutral_kl  # the price is a metric too
from moeprobe.pairs.pairs import TokenPair, shown
from moeprobe.pairs.token_sets import TokenSet, refuse_overlap, token_set, vocabulary

# First words of refusals. "I" and "As" are the refusal tokens of [ARD]'s code for Qwen ("I" alone for Llama and Gemma).
REFUSALS = ("I", "As", "Sorry", "Unfortunately")
# Most tokens of a continuation that is given as text.
LONGEST = 512


@dataclass(frozen=True)
class Forced:
    """What is forced after both prompts of each pair. A run is its prompt and all but the last of these tokens; the
    logits of its last n columns predict them.

    Attributes:
        tokens: (pairs, n) token ids; what stands where `counted` is False is filler, after everything that counts.
        counted: (pairs, n) bool; the first is always True.
    """

    tokens: Tensor
    counted: Tensor

    def run(self, prompt: Sequence[int], pair: int) -> tuple[int, ...]:
        """A prompt and what is forced after it."""
        return (*prompt, *self.tokens[pair, :-1].tolist())


class Metric(Protocol):
    """A metric of runs.

    Attributes:
        name: what the command line calls it.
        unit: of the score.
        signed: whether a gap (sensitive minus control) of either sign is legitimate. Where not, it must be positive.
    """

    name: str
    unit: str
    signed: bool

    @property
    def sentence(self) -> str:
        """The metric in words."""

    def to_json(self) -> dict[str, Any]:
        """The metric as a record: name, unit, sentence and everything that it depends on."""

    def prepare(self, loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
        """What is forced after the prompts of each pair, from the unedited model where it depends on one."""

    def score(self, logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        """The metric (B,) float64 of runs.

        Args:
            logits: (B, n, vocabulary) of the last n columns.
            tokens, counted: (B, n) as in `Forced`.
        """


@dataclass(frozen=True)
class ControlNLL:
    """Mean negative log-likelihood, in nats per token, of the control prompt's own greedy continuation, as in [HAR].

    Raises:
        InterchangeError: fewer than one token.
    """

    tokens: int = 5
    name = "control-nll"
    unit = "nats per token"
    signed = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InterchangeError("The control continuation needs at least one token.")

    @property
    def sentence(self) -> str:
        """The metric in words."""
        return "mean negative log-likelihood (nats per token) of the control prompt's own greedy continuation"

    def to_json(self) -> dict[str, Any]:
        """The metric as a record."""
        return {**_record(self), "tokens": self.tokens}

    def prepare(self, loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
        """The greedy continuation of each control prompt, counted up to its end token."""
        return Forced(*greedy(loaded, [pair.control for pair in pairs], self.tokens))

    def score(self, logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        """Mean NLL (B,) over the counted tokens."""
        return -_mean_log_probability(logits, tokens, counted)


class ContinuationLogProb:
    """Mean log-probability per token, in nats, of a given continuation.

    Args:
        text: the continuation of every pair, exactly as it follows the prompt. None: each pair brings its own.

    Raises:
        InterchangeError: an empty text; in `prepare` a pair without a continuation, or one too long.
    """

    name = "continuation-log-prob"
    unit = "nats per token"
    signed = True

    def __init__(self, text: str | None = None) -> None:
        if text is not None and not text:
            raise InterchangeError("The continuation is empty. Give the text that the model might go on with.")
        self.text = text

    @property
    def sentence(self) -> str:
        """The metric in words."""
        what = "of each pair's own continuation" if self.text is None else f"of the continuation {shown(self.text)}"
        return f"mean log-probability (nats per token) {what}"

    def to_json(self) -> dict[str, Any]:
        """The metric as a record."""
        return {**_record(self), "text": self.text}

    def prepare(self, loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
        """The continuations, filled up to the longest."""
        fixed = None if self.text is None else continuation_ids(loaded, self.text)
        rows = [pair.continuation if fixed is None else fixed for pair in pairs]
        missing = [shown(pair.id) for pair, row in zip(pairs, rows, strict=True) if not row]
        if missing:
            raise InterchangeError(
                f"Pairs such as {missing[0]} bring no continuation to be scored. Give one text for all pairs "
                '(--continuation TEXT), or a "continuation" with each in the pair file.'
            )
        lengths = torch.tensor([len(row or ()) for row in rows])
        tokens = torch.full((len(rows), int(lengths.max())), loaded.pad_token, dtype=torch.long)
        for place, row in enumerate(rows):
            tokens[place, : len(row or ())] = torch.tensor(row)
        return Forced(tokens, torch.arange(tokens.shape[1])[None] < lengths[:, None])

    def score(self, logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        """Mean log-probability (B,) over the counted tokens."""
        return _mean_log_probability(logits, tokens, counted)


class LogitDifference:
    """Mean logit of one set of tokens minus that of another, at the prompt's read-out token.

    Args:
        loaded: model and tokenizer.
        positive, negative: words or token ids; see `token_set`.

    Raises:
        InterchangeError: an empty set, tokens outside the vocabulary, or sets that overlap.
    """

    name = "logit-difference"
    unit = "logits"
    signed = True

    def __init__(self, loaded: LoadedModel, positive: Sequence[str | int], negative: Sequence[str | int]) -> None:
        self.positive = token_set(loaded, positive, "positive set")
        self.negative = token_set(loaded, negative, "negative set")
        refuse_overlap(self.positive, self.negative, ("positive set", "negative set"))

    @property
    def sentence(self) -> str:
        """The metric in words."""
        return (
            f"mean logit of {self.positive.words} minus mean logit of {self.negative.words}, for the first token after "
            "the prompt"
        )

    def to_json(self) -> dict[str, Any]:
        """The metric as a record."""
        return {**_record(self), "positive": self.positive.to_json(), "negative": self.negative.to_json()}

    def prepare(self, loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
        """Nothing is forced: the logits after the prompt are read."""
        return _nothing(loaded, pairs)

    def score(self, logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        """Difference of mean logits (B,) at the first of the columns."""
        del tokens, counted
        first = logits[:, 0].double()
        return first[:, list(self.positive.ids)].mean(dim=1) - first[:, list(self.negative.ids)].mean(dim=1)


class RefusalLogOdds:
    """log P - log(1 - P) with P the summed probability of refusal tokens as first token ([ARD], arXiv 2406.11717, 2.4).

    Computed as the difference of two log-sum-exps, so that P near 0 and near 1 lose nothing.

    Args:
        loaded: model and tokenizer.
        tokens: words or token ids of refusal openings; None is REFUSALS, of which those are left out that the
            vocabulary has not.

    Raises:
        InterchangeError: an empty set, tokens outside the vocabulary, or a set that is the whole vocabulary.
    """

    name = "refusal-log-odds"
    unit = "nats (log-odds)"
    signed = True

    def __init__(self, loaded: LoadedModel, tokens: Sequence[str | int] | None = None) -> None:
        default = tokens is None
        self.tokens: TokenSet = token_set(
            loaded, REFUSALS if tokens is None else tokens, "set of refusal openings", optional=default
        )
        if len(self.tokens.ids) >= vocabulary(loaded):
            raise InterchangeError("The set of refusal openings is the whole vocabulary; there is nothing against it.")

    @property
    def sentence(self) -> str:
        """The metric in words."""
        return f"log-odds (nats) that the first token after the prompt opens a refusal, one of {self.tokens.words}"

    def to_json(self) -> dict[str, Any]:
        """The metric as a record."""
        return {**_record(self), "tokens": self.tokens.to_json()}

    def prepare(self, loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
        """Nothing is forced: the logits after the prompt are read."""
        return _nothing(loaded, pairs)

    def score(self, logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
        """Log-odds (B,) at the first of the columns."""
        del tokens, counted
        first = logits[:, 0].double()
        inside = torch.zeros(first.shape[-1], dtype=torch.bool, device=first.device)
        inside[list(self.tokens.ids)] = True
        return torch.logsumexp(first[:, inside], dim=1) - torch.logsumexp(first[:, ~inside], dim=1)


METRICS: dict[str, Callable[..., Metric]] = {
    "control-nll": lambda _, **options: ControlNLL(**options),
    "logit-difference": LogitDifference,
    "refusal-log-odds": RefusalLogOdds,
    "continuation-log-prob": lambda _, **options: ContinuationLogProb(**options),
}
# Options of each, and which must be given.
_OPTIONS = {
    "control-nll": (("tokens",), ()),
    "logit-difference": (("positive", "negative"), ("positive", "negative")),
    "refusal-log-odds": (("tokens",), ()),
    "continuation-log-prob": (("text",), ()),
}


def make_metric(name: str, loaded: LoadedModel, **options: Any) -> Metric:
    """A metric by name; options that are None count as not given.

    Args:
        name: one of METRICS.
        loaded: model and tokenizer.
        options: `tokens` (control-nll: how many; refusal-log-odds: words or ids), `positive` and `negative`
            (logit-difference), `text` (continuation-log-prob).

    Raises:
        InterchangeError: an unknown name, an option the metric has not, or one that it needs.
    """
    if name not in METRICS:
        raise InterchangeError(f"Unknown metric {shown(name)}. Choose one of {', '.join(METRICS)}.")
    given = {key: value for key, value in options.items() if value is not None}
    known, needed = _OPTIONS[name]
    wrong = sorted(set(given) - set(known))
    if wrong:
        raise InterchangeError(f"The metric {name} has no option {wrong[0]!r}; it has {', '.join(known)}.")
    missing = [key for key in needed if key not in given]
    if missing:
        raise InterchangeError(f"The metric {name} needs {' and '.join(missing)}.")
    return METRICS[name](loaded, **given)


def continuation_ids(loaded: LoadedModel, text: str, what: str = "The continuation") -> tuple[int, ...]:
    """Token ids of a text that follows a prompt: no token is put before or after it.

    Raises:
        InterchangeError: no token, more than LONGEST, or one the model has no logit for.
    """
    ids = tuple(int(one) for one in loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    unknown = loaded.tokenizer.unk_token_id
    if not ids or len(ids) > LONGEST:
        raise InterchangeError(f"{what} has {len(ids)} tokens; 1 to {LONGEST} can be scored.")
    if max(ids) >= vocabulary(loaded) or unknown in ids:
        raise InterchangeError(f"{what}, {shown(text)}, holds a token outside the vocabulary.")
    return ids


def _record(metric: Metric) -> dict[str, Any]:
    return {"name": metric.name, "unit": metric.unit, "signed": metric.signed, "sentence": metric.sentence}


def _nothing(loaded: LoadedModel, pairs: Sequence[TokenPair]) -> Forced:
    shape = (len(pairs), 1)
    return Forced(torch.full(shape, loaded.pad_token, dtype=torch.long), torch.ones(shape, dtype=torch.bool))


def _mean_log_probability(logits: Tensor, tokens: Tensor, counted: Tensor) -> Tensor:
    """(B,) mean log-probability of the counted tokens, in float64."""
    tokens, counted = tokens.to(logits.device), counted.to(logits.device)
    found = torch.log_softmax(logits.double(), dim=-1).gather(2, tokens[..., None])[..., 0]
    return torch.where(counted, found, torch.zeros_like(found)).sum(dim=1) / counted.sum(dim=1)
