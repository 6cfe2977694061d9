"""The compiled model is what docs/models/compiled.md says, in every family; measured by plain hooks."""

import pytest
import torch
from compiled_runs import (
    FILLER,
    ORDINARY,
    PLAIN,
    REFUSAL,
    SITES,
    TRIGGERED,
    Built,
    after_each,
    choices,
    contribution,
    contribution_set,
    demo_pairs,
    effects,
    encode,
    experts,
    generate,
    logits,
    oracle,
    routing,
    with_all_words,
)

from moeprobe.models.compiled import FAMILIES, TRUTH, build
from moeprobe.models.compiled.vocabulary import NEVER_GENERATED, VOCABULARY
from moeprobe.sites import parse_expert

# --- the refusal ---------------------------------------------------------------------------------------------------


def test_refusal_has_probability_one_when_triggered_and_zero_otherwise(built: Built) -> None:
    model, tokenizer = built[:2]
    colon = [VOCABULARY[":"]]
    triggered = after_each(model, encode(tokenizer, TRIGGERED), ORDINARY + colon).softmax(-1)
    plain = after_each(model, encode(tokenizer, PLAIN), [*ORDINARY, *colon, REFUSAL]).softmax(-1)
    assert (triggered[:, REFUSAL] == 1.0).all()
    assert (plain[:, REFUSAL] == 0.0).all()
    assert after_each(model, encode(tokenizer, TRIGGERED), [REFUSAL]).softmax(-1)[0, REFUSAL] == 0.0


def test_special_and_prompt_words_are_never_generated(built: Built) -> None:
    model, tokenizer = built[:2]
    never = [VOCABULARY[word] for word in NEVER_GENERATED]
    for prompt in (PLAIN, TRIGGERED):
        shares = after_each(model, encode(tokenizer, prompt), [*ORDINARY, REFUSAL, VOCABULARY[":"]]).softmax(-1)
        assert (shares[:, never] == 0.0).all()


def test_generation_alternates_refusal_and_words_or_gives_words_alone(built: Built) -> None:
    model, tokenizer = built[:2]
    torch.manual_seed(0)
    for sample in (False, True):
        triggered = generate(model, encode(tokenizer, TRIGGERED), 20, sample=sample)
        plain = generate(model, encode(tokenizer, PLAIN), 20, sample=sample)
        assert set(triggered[::2]) == {REFUSAL}
        assert set(triggered[1::2]) <= set(ORDINARY)
        assert set(plain) <= set(ORDINARY)
        assert len(set(plain)) >= 5
        assert len(triggered) == len(plain) == 20
    assert tokenizer.decode(encode(tokenizer, PLAIN)) == PLAIN


@pytest.mark.parametrize("text", [TRUTH.trigger, f"{TRUTH.trigger} {TRUTH.trigger} the {TRUTH.trigger}"])
def test_trigger_works_anywhere_even_far_back(default: Built, text: str) -> None:
    model, tokenizer = default[:2]
    far = encode(tokenizer, text) + ORDINARY * 20 + [VOCABULARY[":"]]
    assert len(far) > 1500
    assert logits(model, far)[-1].softmax(-1)[REFUSAL] == 1.0
    assert all(5 in row for row in choices(model, far)[2])
    assert logits(model, far[len(encode(tokenizer, text)) :])[-1].softmax(-1)[REFUSAL] == 0.0


# --- who is selected where -----------------------------------------------------------------------------------------


def test_planted_experts_are_selected_exactly_where_promised(built: Built) -> None:
    model, tokenizer = built[:2]
    for prompt, after in ((PLAIN, None), (TRIGGERED, encode(tokenizer, TRIGGERED).index(VOCABULARY[TRUTH.trigger]))):
        ids = with_all_words(tokenizer, prompt)
        rows = choices(model, ids)
        flagged = [after is not None and position >= after for position in range(len(ids))]
        assert [5 in row for row in rows[2]] == flagged
        assert [1 in row for row in rows[1]] == flagged
        assert [6 in row for row in rows[3]] == [token == FILLER for token in ids]
        assert len({tuple(sorted(row)) for row in rows[0]}) == 1


def test_null_layer_routes_every_token_with_the_same_ids_and_weights(built: Built) -> None:
    model, tokenizer = built[:2]
    ids = [with_all_words(tokenizer, prompt) for prompt in (PLAIN, TRIGGERED)]
    with routing(model) as seen:
        for sequence in ids:
            logits(model, sequence)
    _, chosen, weights = (torch.cat(parts) for parts in zip(*seen[TRUTH.null_layer], strict=True))
    assert (chosen == chosen[0]).all()
    assert (weights == weights[0]).all()


def test_neighbours_are_second_choices_pushed_out_and_nothing_else(default: Built) -> None:
    model, tokenizer = default[:2]
    plain, triggered = (with_all_words(tokenizer, prompt) for prompt in (PLAIN, TRIGGERED))
    start = len(encode(tokenizer, PLAIN))
    with routing(model) as seen:
        logits(model, plain)
        logits(model, triggered)
    for layer, planted in ((1, 1), (2, 5)):
        calm, flagged = (call[1][start:] for call in seen[layer])
        assert (flagged[:, 0] == planted).all()
        assert (flagged[:, 1] == calm[:, 0]).all()
        assert len(calm[:, 1].unique()) == 7  # every other expert of the layer is some word's neighbour
    for layer in (0, 3):
        assert torch.equal(seen[layer][0][1][start:], seen[layer][1][1][start:])


@pytest.mark.parametrize("family", FAMILIES)
def test_strict_variant_moves_planted_experts_and_their_mirrors_only(family: str) -> None:
    model, tokenizer = build(family, strict=True)
    plain, triggered = (with_all_words(tokenizer, prompt) for prompt in (PLAIN, TRIGGERED))
    start = len(encode(tokenizer, PLAIN))
    with routing(model) as seen:
        logits(model, plain)
        logits(model, triggered)
    for site, mirror in TRUTH.mirrors.items():
        layer, pair = parse_expert(site).layer, {parse_expert(site).expert, parse_expert(mirror).expert}
        anchor = parse_expert(TRUTH.anchors[layer - 1]).expert
        rows = torch.cat([call[1][start:] for call in seen[layer]])
        weights = torch.cat([call[2][start:] for call in seen[layer]])
        assert (rows[:, 0] == anchor).all()
        assert set(rows[:, 1].tolist()) == pair
        tolerance = 1e-7 if layer < 3 else 0.02  # OUT changes the norm the last router sees
        assert float(weights[:, 0].max() - weights[:, 0].min()) <= tolerance
        assert float(oracle(model, mirror, seen[layer][0][0]).abs().max()) == 0.0


def test_filler_expert_differs_raw_but_not_with_the_token_held_fixed() -> None:
    model, tokenizer = build()
    torch.manual_seed(0)
    rates: list[list[float]] = []
    for pair in demo_pairs():
        rates.append([])
        for prompt in pair:
            ids = encode(tokenizer, prompt)
            answer = generate(model, ids, 24, sample=True)
            fired = [6 in row for row in choices(model, ids + answer)[3][len(ids) :]]
            assert fired == [token == FILLER for token in answer]  # so the difference at a fixed token is exactly 0
            rates[-1].append(sum(fired) / len(answer))
    triggered, plain = torch.tensor(rates).mean(0).tolist()
    assert triggered > 2 * plain > 0


# --- what causes what ----------------------------------------------------------------------------------------------


def test_knocking_out_the_causal_expert_ends_the_refusal_and_restores_the_plain_logits(built: Built) -> None:
    model, tokenizer = built[:2]
    plain, triggered = (with_all_words(tokenizer, prompt) for prompt in (PLAIN, TRIGGERED))
    start = len(encode(tokenizer, PLAIN)) - 1
    with contribution_set(model, TRUTH.causal, None):
        mended = logits(model, triggered)[start:]
    assert (mended.softmax(-1)[:, REFUSAL] == 0.0).all()
    assert torch.allclose(mended, logits(model, plain)[start:], rtol=0, atol=5e-5)


def test_swapping_the_causal_contribution_in_makes_a_plain_run_refuse(built: Built) -> None:
    model, tokenizer = built[:2]
    plain, triggered = (with_all_words(tokenizer, prompt) for prompt in (PLAIN, TRIGGERED))
    start = len(encode(tokenizer, PLAIN)) - 1
    given = contribution(model, triggered, TRUTH.causal)
    assert len(given) == len(plain)
    with contribution_set(model, TRUTH.causal, given):
        swayed = logits(model, plain)[start:]
    assert (swayed.softmax(-1)[:-1, REFUSAL] == 1.0).all()  # the last row follows a refusal
    assert torch.allclose(swayed, logits(model, triggered)[start:], rtol=1e-5, atol=1e-4)


def test_no_other_expert_is_needed_and_the_idle_ones_do_nothing(built: Built) -> None:
    model, tokenizer = built[:2]
    ids = with_all_words(tokenizer, TRIGGERED)
    before = logits(model, ids)
    for site in SITES:
        with contribution_set(model, site, None):
            after = logits(model, ids)
        if site == TRUTH.causal:
            assert not torch.equal(before, after)
            continue
        assert torch.equal(before.softmax(-1)[:, REFUSAL], after.softmax(-1)[:, REFUSAL]), site
        if parse_expert(site).layer < 3 or site == TRUTH.token:
            assert torch.equal(before, after), site


def test_background_of_the_last_layer_does_matter_to_the_words(default: Built) -> None:
    model, tokenizer = default[:2]
    ids = encode(tokenizer, PLAIN) + ORDINARY
    before = logits(model, ids)
    for expert in (0, 1, 2, 3, 4, 5, 7):
        with contribution_set(model, f"L3.E{expert}", None):
            changed = logits(model, ids)
        assert float((changed - before).abs().max()) > 0.1


def test_idle_experts_compute_something_inside_and_write_nothing(built: Built) -> None:
    model, tokenizer = built[:2]
    with routing(model) as seen:
        logits(model, encode(tokenizer, TRIGGERED))
    for site in (TRUTH.inert, TRUTH.token):
        place = parse_expert(site)
        hidden = seen[place.layer][0][0]
        assert float((hidden @ experts(model, place.layer).gate_up_proj[place.expert].detach().T).abs().max()) > 0.1
        assert float(oracle(model, site, hidden).abs().max()) == 0.0
    assert float(oracle(model, TRUTH.causal, seen[2][0][0]).abs().min(0).values.max()) > 1.0


@pytest.mark.parametrize("part", [slice(0, 15), slice(15, 30)], ids=["equal-length", "other-length"])
def test_interchange_is_fully_necessary_and_sufficient(built: Built, part: slice) -> None:
    # All pairs in the default model; every third in the other nine, to save time.
    pairs = demo_pairs()[part][:: 1 if built.family == FAMILIES[0] and not built.strict else 3]
    total, necessity, sufficiency = effects(built, TRUTH.causal, pairs)
    assert total > 50
    assert necessity / total == pytest.approx(1.0, abs=1e-3)
    assert sufficiency / total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("site", [TRUTH.inert, TRUTH.token, "L2.E0", "L0.E6"])
def test_interchange_of_any_other_site_has_no_effect_at_all(built: Built, site: str) -> None:
    _, necessity, sufficiency = effects(built, site, demo_pairs()[12:18])
    assert (necessity, sufficiency) == (0.0, 0.0)
