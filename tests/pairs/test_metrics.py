"""Metrics against hand computation in numpy and scipy, their gradients, and what they refuse."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logit, rel_entr, softmax
from torch import Tensor

from moeprobe.errors import InterchangeError
from moeprobe.interchange import (
    ContinuationLogProb,
    ControlNLL,
    LogitDifference,
    Metric,
    RefusalLogOdds,
    TokenPair,
    lab,
    make_metric,
    measure,
    neutral_kl,
)
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import forward, pad_left
from moeprobe.pairs.token_sets import token_set, vocabulary
from moeprobe.sites import SiteSet, parse_expert
from tests.interchange.random_moe import random_model

PAIRS = [TokenPair("a", (4, 6, 12, 21, 18), (4, 6, 12)), TokenPair("b", (4, 6, 7), (4, 6, 7, 8, 9, 30))]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A random Mixtral with the tokenizer of the compiled model."""
    return random_model("mixtral")


def drawn(runs: int = 3, columns: int = 4, size: int = 64, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(5)
    logits = scale * torch.randn(runs, columns, size, dtype=torch.float64)
    tokens = torch.randint(0, size, (runs, columns))
    counted = torch.arange(columns)[None] < torch.tensor([[columns], [1], [2]])[:runs]
    return logits, tokens, counted


def test_log_probability_metrics_by_hand() -> None:
    logits, tokens, counted = drawn()
    found = np.take_along_axis(log_softmax(logits.numpy(), axis=-1), tokens.numpy()[..., None], axis=2)[..., 0]
    expected = np.array([found[run, : [4, 1, 2][run]].mean() for run in range(3)])
    np.testing.assert_allclose(ControlNLL(4).score(logits, tokens, counted), -expected, rtol=1e-12)
    np.testing.assert_allclose(ContinuationLogProb("x").score(logits, tokens, counted), expected, rtol=1e-12)
    # What does not count has no influence, whatever stands there.
    logits[1, 1:], tokens[1, 1:] = float("nan"), 0
    assert float(ControlNLL(4).score(logits, tokens, counted)[1]) == -expected[1]


def test_logit_difference_by_hand(loaded: LoadedModel) -> None:
    logits, tokens, counted = drawn(columns=1)
    metric = LogitDifference(loaded, positive=[3, 9], negative=[4, 5, 6])
    first = logits[:, 0].numpy()
    expected = first[:, [3, 9]].mean(axis=1) - first[:, [4, 5, 6]].mean(axis=1)
    np.testing.assert_allclose(metric.score(logits, tokens, counted), expected, rtol=1e-12)
    np.testing.assert_allclose(
        metric.score(logits + 7, tokens, counted), expected, rtol=1e-9
    )  # a shift is no difference


def test_refusal_log_odds_by_hand(loaded: LoadedModel) -> None:
    logits, tokens, counted = drawn(columns=1)
    metric = RefusalLogOdds(loaded, [3, 9])
    p = softmax(logits[:, 0].numpy(), axis=-1)[:, [3, 9]].sum(axis=1)
    np.testing.assert_allclose(metric.score(logits, tokens, counted), logit(p), rtol=1e-12)


@pytest.mark.parametrize("size", [40.0, 800.0, 1e4])
def test_refusal_log_odds_near_0_and_1(loaded: LoadedModel, size: float) -> None:
    """Where P itself is 0 or 1 in floating point the odds are still exact: size - log 63 for one of 64 tokens."""
    logits = torch.zeros(2, 1, 64, requires_grad=True)
    moved = logits + torch.tensor([size, -size])[:, None, None] * (torch.arange(64) == 3)
    metric = RefusalLogOdds(loaded, [3])
    score = metric.score(moved, torch.zeros(2, 1), torch.ones(2, 1))
    np.testing.assert_allclose(score.detach(), [size - np.log(63), -size - np.log(63)], rtol=1e-12)
    score.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert float(logits.grad[0, 0, 3]) == pytest.approx(1.0)


def make_all(loaded: LoadedModel) -> list[Metric]:
    return [
        ControlNLL(4),
        ContinuationLogProb("x"),
        LogitDifference(loaded, [3, 9], [4]),
        RefusalLogOdds(loaded, [3, 9]),
    ]


@pytest.mark.parametrize("which", range(4))
def test_gradients(loaded: LoadedModel, which: int) -> None:
    metric = make_all(loaded)[which]
    logits, tokens, counted = drawn(scale=1.0)
    score: Callable[[Tensor], Tensor] = lambda values: metric.score(values, tokens, counted)  # noqa: E731
    assert torch.autograd.gradcheck(score, logits.requires_grad_())
    assert metric.score(logits.float(), tokens, counted).dtype == torch.float64


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_padding_changes_no_metric(family: str) -> None:
    loaded = random_model(family)
    for metric in (*make_all(loaded)[2:], ControlNLL(3), ContinuationLogProb()):
        pairs = [
            TokenPair(one.id, one.sensitive, one.control, (30, 31, 32)[: 2 + place]) for place, one in enumerate(PAIRS)
        ]
        with torch.inference_mode():
            together = metric.prepare(loaded, pairs)
            for side in ("sensitive", "control"):
                runs = [together.run(pair.side(side), place) for place, pair in enumerate(pairs)]
                n = together.tokens.shape[1]
                logits = forward(loaded.model, pad_left(runs, 0, 20), readouts=n)
                batch = metric.score(logits, together.tokens, together.counted)
                for place, pair in enumerate(pairs):
                    alone = metric.prepare(loaded, [pair])
                    own = pad_left([alone.run(pair.side(side), 0)], 0)
                    single = metric.score(
                        forward(loaded.model, own, readouts=alone.tokens.shape[1]), alone.tokens, alone.counted
                    )
                    assert float(batch[place]) == pytest.approx(float(single[0]), abs=2e-5)


def test_continuations_by_hand(loaded: LoadedModel) -> None:
    """Against one forward of prompt and continuation, reading each token's log-probability where it is predicted."""
    own = [TokenPair("a", (4, 6, 12), (5, 7), (30, 31, 32)), TokenPair("b", (8, 9), (10, 11, 12), (33,))]
    site = SiteSet("", (parse_expert("L1.E1"),))
    effects = measure(lab(loaded, metric=ContinuationLogProb()), own, [site], ["knockout"])
    for place, pair in enumerate(own):
        for side, got in (("sensitive", effects.sensitive), ("control", effects.control)):
            prompt, more = pair.side(side), pair.continuation
            with torch.inference_mode():
                logits = loaded.model(torch.tensor([[*prompt, *more]])).logits[0].double().numpy()
            each = [log_softmax(logits[len(prompt) - 1 + step])[token] for step, token in enumerate(more)]
            assert got[place] == pytest.approx(np.mean(each), abs=1e-5)
    fixed = ContinuationLogProb("? answer :").prepare(loaded, own)
    assert fixed.tokens.tolist() == [[7, 5, 6]] * 2
    assert fixed.counted.all()
    with pytest.raises(InterchangeError, match="such as 'a' bring no continuation"):
        ContinuationLogProb().prepare(loaded, PAIRS)
    with pytest.raises(InterchangeError, match="outside the vocabulary"):
        ContinuationLogProb("zzz").prepare(loaded, PAIRS)
    with pytest.raises(InterchangeError, match="1 to 512"):
        ContinuationLogProb("? " * 600).prepare(loaded, PAIRS)
    with pytest.raises(InterchangeError, match="1 to 512"):
        ContinuationLogProb(" ").prepare(loaded, PAIRS)
    with pytest.raises(InterchangeError, match="empty"):
        ContinuationLogProb("")


def test_words_become_first_tokens(compiled: LoadedModel) -> None:
    metric = LogitDifference(compiled, ["sorry", " Thus"], ["the", 40])
    vocab = compiled.tokenizer.get_vocab()
    assert metric.positive.ids == tuple(sorted((vocab["sorry"], vocab["thus"])))
    assert metric.to_json()["negative"]["given"] == [
        {"item": "the", "ids": [vocab["the"]]}, {"item": 40, "ids": [40]},
    ]  # fmt: skip
    assert "'sorry'" in metric.sentence


class Bytes:
    """A tokenizer that writes a word's leading space into its token, cuts rare words, and knows characters by bytes."""

    vocab: ClassVar = {"S": 1, " S": 2, "orry": 3, " ": 4, "Sure": 5, "\ufffd": 6}
    all_special_ids = (0,)

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        ids = []
        while text:
            piece = max((one for one in self.vocab if text.startswith(one)), key=len, default=None)
            ids.append(self.vocab[piece] if piece else 6)
            text = text[len(piece) if piece else 1 :]
        return {"input_ids": ids}

    def decode(self, ids: list[int]) -> str:
        return "".join(piece for one in ids for piece, number in self.vocab.items() if number == one)

    def __len__(self) -> int:
        return 7


def test_words_with_and_without_a_space(loaded: LoadedModel) -> None:
    odd = LoadedModel(loaded.model, Bytes(), "odd", {})  # type: ignore[arg-type]
    assert token_set(odd, ["Sorry"], "set").ids == (1, 2)
    # " Sure" begins with the token of " S"; alone it is one token.
    assert token_set(odd, ["Sure"], "set").sources == (("Sure", (5, 2)),)
    with pytest.raises(InterchangeError, match="share 1 tokens, first 2 .* from 'Sorry' and 'Sure'"):
        LogitDifference(odd, ["Sorry"], ["Sure"])
    with pytest.raises(InterchangeError, match="'é' of the set is outside the vocabulary"):
        token_set(odd, ["é"], "set")  # a byte of a character stands for many words
    vocab = Bytes.vocab | {"orry": 3}
    assert vocab[" "] not in token_set(odd, ["orry"], "set").ids  # " orry" begins with a bare space
    assert token_set(odd, ["orry"], "set").ids == (3,)


def test_sets_that_cannot_be_read(compiled: LoadedModel) -> None:
    size = vocabulary(compiled)
    for positive, match in (
        ([], "positive set is empty"),
        ("sorry", "positive set is empty. Give a list"),
        ([size], f"Token {size} of the positive set is outside the vocabulary of {size} tokens"),
        ([-1], "Token -1"),
        (["xylophone\u202e"], r"'xylophone⟨U\+202E⟩' of the positive set is outside the vocabulary"),
        (["  "], "outside the vocabulary"),
        (["<pad>"], "outside the vocabulary"),
        ([True], "not bool"),
        (["the"], "share 1 tokens"),
    ):
        with pytest.raises(InterchangeError, match=match):
            LogitDifference(compiled, positive, ["the"])
    with pytest.raises(InterchangeError, match="whole vocabulary"):
        RefusalLogOdds(compiled, list(range(size)))
    # The tokenizer knows 105 words and the model gives 64 logits: a word beyond them is no token of this model.
    small = random_model("mixtral")
    small.model.resize_token_embeddings(64)
    assert vocabulary(small) == 64
    beyond = next(word for word, number in small.tokenizer.get_vocab().items() if number >= 64)
    with pytest.raises(InterchangeError, match="outside the vocabulary"):
        LogitDifference(small, [beyond], ["the"])


def test_default_refusals_are_recorded(compiled: LoadedModel) -> None:
    record = RefusalLogOdds(compiled).to_json()
    assert record["tokens"]["pieces"] == ["sorry"]
    assert [one["item"] for one in record["tokens"]["dropped"]] == ["I", "As", "Unfortunately"]
    assert record["signed"]


def test_metrics_by_name(compiled: LoadedModel) -> None:
    assert make_metric("control-nll", compiled).to_json()["tokens"] == 5
    assert make_metric("control-nll", compiled, tokens=2, text=None).to_json()["tokens"] == 2
    assert make_metric("continuation-log-prob", compiled, text="sorry").to_json()["text"] == "sorry"
    assert make_metric("refusal-log-odds", compiled, tokens=["sorry"]).name == "refusal-log-odds"
    given = make_metric("logit-difference", compiled, positive=["sorry"], negative=["the"])
    assert given.to_json()["positive"]["pieces"] == ["sorry"]
    for name, options, match in (
        ("nll", {}, "Unknown metric 'nll'"),
        ("control-nll", {"text": "x"}, "has no option 'text'; it has tokens"),
        ("logit-difference", {"positive": ["sorry"]}, "needs negative"),
        ("control-nll", {"tokens": 0}, "at least one token"),
    ):
        with pytest.raises(InterchangeError, match=match):
            make_metric(name, compiled, **options)


def test_neutral_kl_by_hand() -> None:
    base, _, _ = drawn()
    edited = base + torch.randn_like(base)
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    p, q = softmax(base.numpy(), axis=-1), softmax(edited.numpy(), axis=-1)
    each = rel_entr(p, q).sum(axis=-1)
    expected = (each * mask.numpy()).sum(axis=1) / mask.numpy().sum(axis=1)
    np.testing.assert_allclose(neutral_kl(base, edited, mask), expected, rtol=1e-10)
    assert not neutral_kl(base, base, mask).any()
    assert abs(neutral_kl(edited, base, mask) - neutral_kl(base, edited, mask)).max() > 0.01  # the order matters
    barred = base.clone()
    barred[..., 7] = float("-inf")
    assert torch.isfinite(neutral_kl(barred, base, mask)).all()
    assert torch.isinf(neutral_kl(base, barred, mask)).all()
    assert not neutral_kl(barred, barred, mask).any()
    for bad in (mask[:2], torch.zeros_like(mask)):
        with pytest.raises(InterchangeError, match="do not fit"):
            neutral_kl(base, edited, bad)
