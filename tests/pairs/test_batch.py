"""Batches of runs of different lengths: the row map against loops, and forwards that padding must not change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from moeprobe.errors import InterchangeError
from moeprobe.interchange import Alignment, TokenPair, lab, measure, partners
from moeprobe.models import LoadedModel
from moeprobe.pairs.batch import check_forward, check_room, forward, greedy, pad_left, row_map
from moeprobe.sites import SiteSet, parse_expert
from tests.interchange.random_moe import random_model

RUNS = [[9, 8, 7, 6, 5, 4, 3, 10, 11], [21, 22, 23, 24], [31, 32, 33, 34, 35, 36]]
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(mine=lengths, others=lengths, name=st.sampled_from(["end", "start", "tokens"]), seed=st.integers(0, 99))
def test_row_map_against_a_loop(mine: list[int], others: list[int], name: str, seed: int) -> None:
    """Each mapped row's donor row holds the token that the alignment names, in whichever width the batches are."""
    generator = np.random.default_rng(seed)
    runs, givers = ([generator.integers(1, 4, size).tolist() for size in sizes] for sizes in (mine, others))
    donors = generator.integers(0, len(givers), len(runs))
    recipient = pad_left(runs, 0, max(mine) + int(generator.integers(3)))
    donor = pad_left(givers, 0, max(others) + int(generator.integers(3)))
    found = [partners(run, givers[give], Alignment(name), forced=0) for run, give in zip(runs, donors, strict=True)]
    result = row_map(recipient, donor, found, donors)
    assert result.shape == (recipient.ids.numel(),)
    expected = []
    for element, (run, give) in enumerate(zip(runs, donors, strict=True)):
        for column in range(recipient.ids.shape[1]):
            position = column - (recipient.ids.shape[1] - len(run))
            other = int(found[element][position]) if position >= 0 else -1
            if other < 0:
                expected.append(-1)
            else:
                expected.append(int(give) * donor.ids.shape[1] + (donor.ids.shape[1] - len(givers[give])) + other)
                assert int(donor.ids.reshape(-1)[expected[-1]]) == givers[give][other]
                assert donor.real()[expected[-1]]
    assert result.tolist() == expected


def test_row_map_refuses_what_does_not_fit() -> None:
    side = pad_left(RUNS, 0)
    good = [np.arange(len(run)) for run in RUNS]
    assert row_map(side, side, good).tolist() == [place if real else -1 for place, real in enumerate(side.real())]
    with pytest.raises(InterchangeError, match="3 runs got 2 alignments"):
        row_map(side, side, good[:2])
    with pytest.raises(InterchangeError, match="3 donors out of 3"):
        row_map(side, side, good, [0, 1, 3])
    with pytest.raises(InterchangeError, match="alignment of run 1 has 4 positions up to 4"):
        row_map(side, side, [good[0], np.arange(1, 5), good[2]])
    with pytest.raises(InterchangeError, match="alignment of run 2 has 5 positions"):
        row_map(side, side, [*good[:2], np.arange(5)])


def test_padding() -> None:
    side = pad_left([[5], [6, 7]], 0, 3)
    assert side.ids.tolist() == [[0, 0, 5], [0, 6, 7]]
    assert side.mask.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert side.lengths.tolist() == [1, 2]
    assert side.starts.tolist() == [2, 1]
    for runs, width in (([], None), ([[1], []], None), ([[1, 2]], 1)):
        with pytest.raises(InterchangeError):
            pad_left(runs, 0, width)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_padding_changes_nothing(family: str) -> None:
    """One run alone against the same run in a batch, and in a wider one; an unmasked padding would be seen."""
    model = random_model(family).model
    with torch.inference_mode():
        batch, wide = (forward(model, pad_left(RUNS, 0, width), readouts=3) for width in (None, 20))
        alone = torch.cat([forward(model, pad_left([run], 0), readouts=3) for run in RUNS])
        unmasked = pad_left([[0, 0, 0, *RUNS[1]]], 0)
        wrong = forward(model, unmasked, readouts=3)
    torch.testing.assert_close(batch, alone, atol=2e-5, rtol=0)
    torch.testing.assert_close(wide, alone, atol=2e-5, rtol=0)
    assert float((wrong[0] - alone[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral", "compiled"])
def test_last_columns_are_those_of_the_whole(family: str, compiled: LoadedModel) -> None:
    """Bit for bit, for one column of one run too, where the output layer alone would round otherwise."""
    model = compiled.model if family == "compiled" else random_model(family).model
    for runs in (RUNS, RUNS[:2], RUNS[:1]):
        side = pad_left(runs, 0)
        with torch.inference_mode():
            whole = forward(model, side)
            assert whole.shape[:2] == side.ids.shape
            for readouts in (1, 2, 3, 9):
                assert torch.equal(forward(model, side, readouts=readouts), whole[:, -readouts:])
            with pytest.raises(InterchangeError, match="10 columns cannot be read out of 9"):
                forward(model, side, readouts=10)


def test_the_other_columns_are_not_computed() -> None:
    model, seen = random_model("mixtral").model, []
    model.lm_head.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    with torch.inference_mode():
        forward(model, pad_left([list(range(3, 40))] * 4, 0), readouts=3)
        forward(model, pad_left([list(range(3, 40))], 0), readouts=3)
    assert seen == [(4, 3, 32), (1, 8, 32)]


class Bare(MixtralForCausalLM):
    """A forward that takes neither positions nor a number of logits, as some families' forwards do."""

    def forward(self, input_ids, attention_mask=None, use_cache=None):  # type: ignore[no-untyped-def]
        assert use_cache is False
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


def test_families_without_position_ids() -> None:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4,
    )  # fmt: skip
    model = Bare._from_config(config, experts_implementation="eager").train(False)
    with torch.inference_mode():
        batch = forward(model, pad_left(RUNS, 0), readouts=2)
        alone = torch.cat([forward(model, pad_left([run], 0), readouts=2) for run in RUNS])
    torch.testing.assert_close(batch, alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", ["qwen2_moe", "mixtral"])
def test_greedy_tokens_do_not_depend_on_the_batch(family: str) -> None:
    loaded = random_model(family)
    with torch.inference_mode():
        tokens, counted = greedy(loaded, RUNS, 6)
        alone = [greedy(loaded, [run], 6) for run in RUNS]
        for place, run in enumerate(RUNS):
            ids = list(run)
            for _ in range(6):
                ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
            assert tokens[place].tolist() == alone[place][0][0].tolist() == ids[len(run) :]
            assert counted[place].tolist() == alone[place][1][0].tolist()


def test_nothing_counts_after_an_end_token() -> None:
    loaded = random_model("mixtral")
    with torch.inference_mode():
        tokens, counted = greedy(loaded, RUNS, 6)
        assert counted.all()
        end = int(tokens[0, 2])
        loaded.model.generation_config.eos_token_id = [end, 63]
        again, counted = greedy(loaded, RUNS, 6)
    assert torch.equal(tokens, again)
    for row, flags in zip(tokens.tolist(), counted.tolist(), strict=True):
        stop = row.index(end) if end in row else 6
        assert flags == [place <= stop for place in range(6)]


class Blocks(MixtralForCausalLM):
    """Cuts the columns into blocks, padding included, as some sparse attention does."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=None):  # type: ignore[no-untyped-def]
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        assert position_ids is not None
        assert use_cache is False
        block = torch.arange(input_ids.shape[1]) // 3
        return CausalLMOutput(logits=output.logits * (1 + 0.1 * block[None, :, None]))


class Noisy(MixtralForCausalLM):
    """Draws noise, as a diffusion model does."""

    def forward(self, input_ids, attention_mask=None, use_cache=None):  # type: ignore[no-untyped-def]
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)
        return CausalLMOutput(logits=output.logits + torch.randn_like(output.logits))


def recast(cls: type[PreTrainedModel]) -> LoadedModel:
    loaded = random_model("mixtral")
    loaded.model.__class__ = cls
    return loaded


def test_models_that_padding_changes_are_found() -> None:
    pairs = [TokenPair(str(number), tuple(run), tuple(run[1:])) for number, run in enumerate(RUNS)]
    even = [TokenPair(pair.id, pair.control, (60, *pair.control[1:])) for pair in pairs[1:2]]
    site = [SiteSet("", (parse_expert("L1.E1"),))]
    check_forward(random_model("mixtral"), RUNS)
    check_forward(recast(Blocks), RUNS[:1])
    with pytest.raises(InterchangeError, match=r"Blocks gives another .* 3 tokens with padding .* have one length"):
        measure(lab(recast(Blocks)), pairs, site)
    with pytest.raises(InterchangeError, match=r"Noisy gives another .* a second time.* cannot be compared"):
        measure(lab(recast(Noisy)), pairs, site)
    # Prompts of one length need no padding.
    assert measure(lab(recast(Blocks)), even, site, ["necessity"]).gap.shape == (1,)


class Mixing(MixtralForCausalLM):
    """Lets a run see the others of its batch, as Doge's router does."""

    def forward(self, input_ids, attention_mask=None, use_cache=None):  # type: ignore[no-untyped-def]
        output = super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)
        return CausalLMOutput(logits=output.logits + 0.1 * output.logits.mean(dim=0, keepdim=True))


def test_models_whose_runs_see_one_another_are_found() -> None:
    for runs in (RUNS, [RUNS[1], RUNS[1][::-1]]):
        with pytest.raises(InterchangeError, match=r"Mixing gives another .* beside another run.* cannot be compared"):
            check_forward(recast(Mixing), runs)
    check_forward(recast(Mixing), RUNS[:1])


def test_models_without_one_run_are_refused() -> None:
    loaded = random_model("mixtral")
    loaded.model.config.is_encoder_decoder = True
    with pytest.raises(InterchangeError, match="encoder-decoder"):
        forward(loaded.model, pad_left(RUNS, 0))
    bare = random_model("mixtral").model
    with pytest.raises(InterchangeError, match="MixtralModel gives no logits"):
        forward(bare.model, pad_left(RUNS, 0))
    loaded.model.config.max_position_embeddings = 40
    with pytest.raises(InterchangeError, match="take 99 tokens, and the model has 40 positions"):
        check_room(loaded, [3, 99])
