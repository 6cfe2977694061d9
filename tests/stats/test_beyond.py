"""Beyond token identity: against the definition in loops, against CMH, and where the marginal test is fooled."""

import numpy as np
import pytest
from scipy import sparse
from statsmodels.stats.contingency_tables import StratifiedTable

from moeprobe.errors import StatsError
from moeprobe.stats import adjust, asin_sqrt, moderated_t
from moeprobe.stats.beyond import beyond_token


def tokens_of(seed, samples=12, strata=25, experts=6, length=40):
    """Sample, stratum and response (0 or 1 for each expert) of every token."""
    rng = np.random.default_rng(seed)
    sample = np.repeat(np.arange(samples), rng.integers(5, length, samples))
    stratum = np.minimum(rng.zipf(1.6, sample.size), strata) - 1
    rate = rng.beta(0.5, 1.5, (strata, experts))
    return sample, stratum, (rng.random((sample.size, experts)) < rate[stratum]).astype(int)


def sums_of(sample, stratum, response):
    samples, strata = sample.max() + 1, stratum.max() + 1
    observed, selected = np.zeros((samples, response.shape[1])), np.zeros((strata, response.shape[1]))
    counts = np.zeros((samples, strata), dtype=int)
    np.add.at(observed, sample, response)
    np.add.at(selected, stratum, response)
    np.add.at(counts, (sample, stratum), 1)
    return observed, counts, selected, counts.sum(axis=0)


def by_loop(sample, stratum, response):
    """The definition, token by token."""
    expected, variance, exact = (np.zeros((sample.max() + 1, response.shape[1])) for _ in range(3))
    for one, token in zip(sample, stratum, strict=True):
        same = response[stratum == token]
        own = (sample[stratum == token] == one).mean()
        expected[one] += same.mean(axis=0)
        variance[one] += same.var(axis=0)
        exact[one] += same.var(axis=0) * (1 - own)
    return expected, variance, exact


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_definition(weighted):
    sample, stratum, response = tokens_of(0)
    if weighted:
        response = response * np.random.default_rng(1).gamma(2, 0.2, response.shape)
    observed, counts, selected, tokens = sums_of(sample, stratum, response)
    squares = sums_of(sample, stratum, response**2)[2] if weighted else None
    expected, variance, exact = by_loop(sample, stratum, response)
    result = beyond_token(observed, counts, selected, tokens, squares=squares)
    np.testing.assert_allclose(result.expected, expected, rtol=1e-12)
    np.testing.assert_allclose(result.variance, variance, rtol=1e-10)
    np.testing.assert_allclose(result.residual, (observed - expected) / np.sqrt(variance), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(result.floor, (exact / variance).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose((observed - result.expected).sum(axis=0), 0, atol=1e-10)
    order = np.random.default_rng(2).permutation(counts.size)
    row, column = np.divmod(order, counts.shape[1])
    split = sparse.csr_array(  # every count given in two parts, strata backwards
        (
            np.stack([counts[:, ::-1] - counts[:, ::-1] // 3, counts[:, ::-1] // 3], axis=-1).ravel(),
            np.tile(np.arange(counts.shape[1])[::-1].repeat(2), len(counts)),
            np.arange(len(counts) + 1) * 2 * counts.shape[1],
        ),
        shape=counts.shape,
    )
    for table in (sparse.csr_matrix(counts), sparse.coo_array((counts[row, column], (row, column))), split):
        again = beyond_token(observed, table, selected, tokens, squares=squares)
        for name in ("residual", "expected", "variance", "floor"):
            np.testing.assert_array_equal(getattr(again, name), getattr(result, name))


def test_sum_over_label_1_is_the_numerator_of_cmh():
    """StratifiedTable's statistic is (a - E[a])^2 / Var; its variance is the known hypergeometric one."""
    sample, stratum, response = tokens_of(3, samples=20, strata=15)
    label = np.arange(20) % 2
    observed, counts, selected, tokens = sums_of(sample, stratum, response)
    result = beyond_token(observed, counts, selected, tokens)
    numerator = (observed - result.expected)[label == 1].sum(axis=0)
    one, zero = counts[label == 1].sum(axis=0), counts[label == 0].sum(axis=0)
    both = (one > 0) & (zero > 0)
    for expert in range(response.shape[1]):
        hit = np.zeros((2, tokens.size))
        np.add.at(hit, (label[sample], stratum), response[:, expert])
        tables = np.array([[hit[1], one - hit[1]], [hit[0], zero - hit[0]]])[:, :, both]
        chosen, n = tables[:, 0].sum(axis=0), tokens[both]
        variance = (one * zero)[both] * chosen * (n - chosen) / (n.astype(float) ** 2 * (n - 1))
        oracle = StratifiedTable(tables).test_null_odds(correction=False)
        assert numerator[expert] ** 2 / variance.sum() == pytest.approx(oracle.statistic, rel=1e-10)
        # and it has the sign: what label 1 chose more often than its tokens say
        assert numerator[expert] == pytest.approx((tables[0, 0] - one[both] * chosen / n).sum(), rel=1e-10)
    assert np.abs(numerator).min() > 0


def test_a_stratum_of_one_sample_says_nothing():
    sample, stratum, response = tokens_of(4)
    before = sums_of(sample, stratum, response)
    # twenty more tokens of sample 0 that nobody else has, all of them choosing every expert but the last
    extra = np.full(20, stratum.max() + 1)
    more = np.tile(np.arange(response.shape[1]) < response.shape[1] - 1, (20, 1)).astype(int)
    after = sums_of(
        np.concatenate([sample, np.zeros(20, dtype=int)]),
        np.concatenate([stratum, extra]),
        np.concatenate([response, more]),
    )
    first, second = beyond_token(*before), beyond_token(*after)
    assert (after[0][0, :-1] - before[0][0, :-1] == 20).all()
    np.testing.assert_allclose(after[0] - second.expected, before[0] - first.expected, atol=1e-10)
    np.testing.assert_allclose(second.residual, first.residual, atol=1e-10)


def test_nothing_left_to_vary_is_zero_and_finite():
    """Experts that follow the token exactly, never or always chosen; a sample without tokens; an unused stratum."""
    counts = np.array([[3, 0, 2, 0], [1, 4, 0, 0], [0, 0, 0, 0]])
    rate = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    for weight in (None, 0.3):
        response = rate * (weight or 1)
        tokens = counts.sum(axis=0)
        squares = None if weight is None else tokens[:, None] * response**2
        result = beyond_token(counts @ response, counts, tokens[:, None] * response, tokens, squares=squares)
        np.testing.assert_allclose(result.expected, counts @ response)
        for values in (result.residual, result.variance, result.floor):
            assert (values == 0).all()


def confounded(seed, samples=60, experts=40, length=150):
    """Label 1 uses token 0 for a tenth of its words. Experts 0-9 love that token; experts 30-33 love the label."""
    rng = np.random.default_rng(seed)
    label = np.arange(samples) % 2
    sample = np.repeat(np.arange(samples), length)
    stratum = rng.integers(1, 80, sample.size)
    stratum[(rng.random(sample.size) < np.where(label[sample] == 1, 0.10, 0.01))] = 0
    logit = rng.normal(-2.5, 0.7, (80, experts))
    logit[0] = -2.5
    logit[0, :10] = 1.5
    drift = rng.normal(0, 0.25, (samples, experts)) + 1.0 * label[:, None] * np.isin(np.arange(experts), range(30, 34))
    chance = 1 / (1 + np.exp(-(logit[stratum] + drift[sample])))
    response = (rng.random(chance.shape) < chance).astype(int)
    return label, sums_of(sample, stratum, response)


def test_the_words_of_a_register_do_not_pass_for_its_experts():
    """The marginal test calls the experts of the register's favourite word; beyond it they are gone, the rest stays."""
    called = {"marginal": np.zeros(40), "beyond": np.zeros(40)}
    for seed in range(10):
        label, (observed, counts, selected, tokens) = confounded(seed)
        beyond = beyond_token(observed, counts, selected, tokens)
        values = {"marginal": asin_sqrt(observed / counts.sum(axis=1)[:, None]), "beyond": beyond.residual}
        for name, table in values.items():
            called[name] += adjust(moderated_t(table, label).p) < 0.05
    words, others, real = slice(0, 10), [*range(10, 30), *range(34, 40)], slice(30, 34)
    assert called["marginal"][words].mean() >= 9  # of 10 runs: fooled
    assert called["beyond"][words].mean() <= 0.3
    assert called["beyond"][others].mean() <= 0.3
    assert called["beyond"][real].mean() >= 9.5
    assert called["marginal"][real].mean() >= 9.5


def test_the_floor_is_the_variance_of_independent_tokens():
    """Tokens drawn independently: the residual's variance over many draws is the floor, and below 1."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(np.array([4, 2, 1, 0.5]), (6, 4)) + np.array([1, 0, 0, 0])
    tokens = counts.sum(axis=0)
    rate = np.array([0.5, 0.3, 0.6, 0.4])
    # experts are draws of one and the same expert
    cells = rng.binomial(counts[:, :, None], rate[:, None], (*counts.shape, 40_000))
    expected = np.einsum("gv,ve->ge", counts, cells.sum(axis=0) / tokens[:, None])
    variance = counts @ (rate * (1 - rate))
    drawn = ((cells.sum(axis=1) - expected) ** 2).mean(axis=1) / variance
    # the formula with the rates known: rates without error as `selected`
    selected = np.repeat((tokens * rate)[:, None], 2, axis=1)
    result = beyond_token(np.zeros((6, 2)), counts, selected, tokens)
    assert result.floor == pytest.approx(np.full(2, drawn.mean()), rel=0.02)
    assert result.floor[0] < 0.95


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"observed": np.zeros(3)}, "observed.*finite table"),
        ({"observed": np.full((12, 6), np.nan)}, "finite table"),
        ({"observed": np.zeros((11, 6))}, r"do not fit"),
        ({"strata_counts": np.zeros(12)}, "must be a table"),
        ({"selected": np.zeros((3, 6))}, "do not fit"),
        ({"tokens": np.zeros((25, 1))}, "do not fit"),
        ({"tokens": np.zeros(25)}, "more tokens in a stratum"),
        ({"selected": np.full((25, 6), 1e6)}, "give `squares`"),
        ({"selected": np.full((25, 6), -1)}, "outside 0"),
        ({"squares": np.zeros((3, 6))}, "squares are"),
        ({"squares": np.full((25, 6), np.nan)}, "NaN or infinity"),
    ],
)
def test_bad_input_is_refused(change, match):
    names = ("observed", "strata_counts", "selected", "tokens")
    given = dict(zip(names, sums_of(*tokens_of(0)), strict=True)) | change
    assert given["observed"].ndim < 2 or given["observed"].shape[1] == 6
    with pytest.raises(StatsError, match=match):
        beyond_token(**given)


def test_a_negative_count_is_refused():
    observed, counts, selected, tokens = sums_of(*tokens_of(0))
    with pytest.raises(StatsError, match="negative"):
        beyond_token(observed, -counts, selected, tokens)
