import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from persim_jax.evaluation import statistics
from persim_jax.evaluation.statistics import (
    aggregate,
    improvement,
    interquartile_mean,
    probability_of_improvement,
)

RNG = np.random.default_rng(2)
# Few distinct values, so that ties are common.
SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_interquartile_mean_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.randoms())
def test_interquartile_mean_does_not_see_the_order(values: list[float], random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert interquartile_mean(shuffled) == interquartile_mean(values)


def test_interquartile_mean_by_hand() -> None:
    # Of eight, two at each end are left out, however far they lie.
    assert interquartile_mean([-1e9, -1e9, 1.0, 2.0, 3.0, 6.0, 1e9, 1e9]) == 3.0
    assert interquartile_mean([1.0, math.nan, 4.0]) == 2.5
    assert math.isnan(interquartile_mean([]))


@given(SCORES, SCORES)
def test_probability_of_improvement_is_mann_and_whitneys(a: list[float], b: list[float]) -> None:
    u = stats.mannwhitneyu(a, b, method="asymptotic").statistic if len(set(a + b)) > 1 else None
    expected = 0.5 if u is None else u / (len(a) * len(b))
    assert probability_of_improvement(a, b) == pytest.approx(expected)


@given(SCORES, SCORES)
def test_probabilities_of_both_directions_sum_to_one(a: list[float], b: list[float]) -> None:
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1)
    assert probability_of_improvement(a, a) == pytest.approx(0.5)


def test_probability_of_improvement_by_hand() -> None:
    # Pairs: (1, 0) won, (1, 1) tied, (2, 0) and (2, 1) won.
    assert probability_of_improvement([1.0, 2.0], [0.0, 1.0]) == 0.875
    assert math.isnan(probability_of_improvement([], [1.0]))


def test_one_draw_fewer_than_units_has_the_variance_of_a_mean() -> None:
    # Two trials, at which drawing two of two would have half of it.
    for size in (2, 3, 8):
        runs = RNG.normal(size=(size, 1))
        drawn = statistics._drawn(runs[:, 0], 40_000, np.random.default_rng(0)).mean(axis=1)
        assert drawn.var() == pytest.approx(runs.var(ddof=1) / size, rel=0.05)


def test_interval_of_a_mean_of_many_cells_has_the_width_of_theory() -> None:
    cells = [RNG.normal(10.0 * i, 1.0 + i, size=(4, 20)) for i in range(5)]
    found = aggregate(cells, lambda scores: scores.mean(axis=-1), num_resamples=20_000)
    runs = [cell.mean(axis=1) for cell in cells]
    spread = math.sqrt(sum(r.var(ddof=1) / r.size for r in runs)) / len(cells)
    assert found.value == pytest.approx(np.mean(runs))
    # Few trials draw few distinct means, so the quantiles are a little off the normal ones.
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.06)
    assert (found.over, found.num_cells, found.num_runs) == ("trials", 5, 20)


def test_cells_weigh_in_the_interval_what_their_trials_weigh_in_the_value() -> None:
    # Seven runs, of which five are about 1: the mean is 5 / 7, and hardly anything varies.
    few, many = [[0.01], [-0.01]], [[0.99], [1.0], [1.0], [1.0], [1.01]]
    mean = aggregate([few, many], lambda scores: scores.mean(axis=-1))
    assert mean.value == pytest.approx(5 / 7)
    assert mean.low == pytest.approx(5 / 7, abs=0.01)
    assert mean.high == pytest.approx(5 / 7, abs=0.01)
    # Of the seven one goes at each end.
    middle = aggregate([few, many])
    assert middle.value == pytest.approx(4 / 5)
    assert middle.low <= middle.value <= middle.high
    single = aggregate([[[0.01, -0.01]], many], lambda scores: scores.mean(axis=-1))
    assert single.low <= 5 / 6 <= single.high


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_copies_restore_the_weights_of_the_runs(sizes: list[int]) -> None:
    copies = statistics._copies(sizes)
    weights = np.array([c * max(n - 1, 1) / n for c, n in zip(copies, sizes, strict=True)])
    np.testing.assert_allclose(weights, weights[0], rtol=0.02)
    if len(set(sizes)) == 1:
        assert set(copies) == {1}


def covers(trials: int, episodes: int, seed: int) -> tuple[bool, bool]:
    """Whether intervals of simulated cells hold the true interquartile mean and probability."""
    rng = np.random.default_rng(seed)
    levels = np.arange(12.0)  # symmetric, so its interquartile mean is the mean
    a = [rng.normal(level, 1.0, size=(trials, episodes)) for level in levels]
    b = [rng.normal(level - 0.3, 1.0, size=(trials, episodes)) for level in levels]
    pooled = aggregate(a, num_resamples=400, seed=seed)
    better = improvement(a, b, num_resamples=400, seed=seed)
    # Scores have variance 1 / E, differences 2 / E.
    truth = stats.norm.cdf(0.3 / math.sqrt(2 / episodes))
    return (
        bool(pooled.low <= levels.mean() <= pooled.high),
        bool(better.low <= truth <= better.high),
    )


@pytest.mark.parametrize(("trials", "episodes"), [(5, 4), (1, 20)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(trials: int, episodes: int) -> None:
    found = np.mean([covers(trials, episodes, seed) for seed in range(300)], axis=0)
    assert 0.9 <= found[0] <= 0.985
    # With one trial a cell's probability is 0 or 1: only its mean over cells has a truth.
    if trials > 1:
        assert 0.9 <= found[1] <= 0.985


def test_one_trial_is_an_interval_over_episodes_and_says_so() -> None:
    single = [[RNG.normal(size=30)], [RNG.normal(size=30)]]
    several = [*single, list(RNG.normal(size=(3, 30)))]
    assert aggregate(single).over == "episodes"
    assert "one trial" in aggregate(several).over
    one = aggregate([[[1.0]]])
    assert (one.value, one.num_runs) == (1.0, 1)
    assert math.isnan(one.low)


def test_improvement_by_hand_over_cells() -> None:
    # Cell one: always won. Cell two: one pair of four won, one tied, two lost.
    a = [[[5.0, 5.0], [6.0, 6.0]], [[1.0, 1.0], [0.0, 2.0]]]
    b = [[[0.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [2.0, 2.0]]]
    found = improvement(a, b)
    assert found.value == pytest.approx((1.0 + 0.25) / 2)
    assert found.low <= found.value <= found.high
    worse = improvement(a, b, lower_is_better=True)
    assert worse.value == pytest.approx(1 - found.value)


def test_cells_without_a_score_are_passed_over() -> None:
    full, empty = [[1.0, 2.0], [3.0, 4.0]], [[math.nan]]
    assert improvement([full, empty], [full, full]).num_cells == 1
    assert aggregate([empty, full]).num_cells == 1
    assert math.isnan(improvement([empty], [full]).value)
    assert math.isnan(aggregate([]).value)


def test_runs_that_diverged_have_the_worst_score() -> None:
    inf = math.inf
    # One of four is left out at each end; a second one that diverged is not.
    assert interquartile_mean([1.0, 2.0, 4.0, inf]) == 3.0
    assert interquartile_mean([1.0, 2.0, inf, inf]) == inf
    # Of six pairs: 1 is above -inf once, and two that diverged are level.
    assert probability_of_improvement([1.0, -inf, -inf], [2.0, -inf]) == (1 + 0.5 + 0.5) / 6
    # A run is lost with one of its episodes, and a single run stays lost in every resample.
    lost, fine = [[0.1, inf, 0.1]], [[0.5, 0.6, 0.7]]
    found = improvement([lost], [fine], lower_is_better=True)
    assert (found.value, found.low, found.high, found.num_runs) == (0.0, 0.0, 0.0, 1)
    assert aggregate([lost, fine]).num_runs == 2


def test_a_single_episode_on_either_side_leaves_no_interval() -> None:
    found = improvement([[[2.0]]], [[[1.0, 1.0]]])
    assert found.value == 1.0
    assert math.isnan(found.low)
    assert math.isnan(improvement([[[2.0, 2.0]]], [[[1.0]]]).high)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="1 cells against 0"):
        improvement([[[1.0]]], [])
    with pytest.raises(ValueError, match=r"level is 95"):
        aggregate([[[1.0, 2.0]]], level=95)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100))
def test_the_same_rows_give_the_same_interval(seed: int) -> None:
    cells = [np.random.default_rng(seed).normal(size=(2, 3))]
    assert aggregate(cells, num_resamples=50) == aggregate(cells, num_resamples=50)
