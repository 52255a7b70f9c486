import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from persim_jax.evaluation import aggregate

RNG = np.random.default_rng(1)


def test_mean_and_std_over_trials_by_hand() -> None:
    assert aggregate.mean_and_std([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7.0)))
    mean, std = aggregate.mean_and_std([4.0])
    assert mean == 4.0
    assert math.isnan(std)
    assert all(map(math.isnan, aggregate.mean_and_std([])))
    assert aggregate.mean_and_std([1.0, math.nan, 3.0])[0] == 2.0
    # A trial that diverged is not one without a value.
    mean, std = aggregate.mean_and_std([1.0, math.inf, 3.0])
    assert mean == math.inf
    assert math.isnan(std)


def test_interval_of_a_mean_is_scipys() -> None:
    values = RNG.gamma(2.0, 10.0, size=40)
    ours = aggregate.mean_interval(values, num_resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    # Both are random: 20 000 resamples leave about 1 % of the width.
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_interval_of_a_mean_of_cells_has_the_width_of_theory() -> None:
    cells = [RNG.normal(10.0 * i, 1.0 + i, size=50 + 10 * i) for i in range(4)]
    found = aggregate.cells_interval(cells, num_resamples=20_000)
    # The variance of a bootstrapped mean is the population variance over n; cells are independent.
    spread = math.sqrt(sum(cell.var() / cell.size for cell in cells)) / len(cells)
    assert found.value == pytest.approx(np.mean([cell.mean() for cell in cells]))
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.05)


def test_two_values_have_the_interval_of_an_exhaustive_count() -> None:
    # Of {0, 1} drawn twice, the mean is 0, 0.5, 1 with probabilities 1/4, 1/2, 1/4.
    found = aggregate.mean_interval([0.0, 1.0], num_resamples=20_000)
    assert (found.low, found.high) == (0.0, 1.0)
    found = aggregate.mean_interval([0.0, 1.0], level=0.4, num_resamples=20_000)
    assert (found.low, found.high) == (0.5, 0.5)


def test_resamples_in_blocks_are_no_other_statistic(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.normal(size=500)
    whole = aggregate.mean_interval(values, num_resamples=4000)
    monkeypatch.setattr(aggregate, "_BLOCK_SIZE", 7_000)
    blocks = aggregate.mean_interval(values, num_resamples=4000)
    assert blocks.low == pytest.approx(whole.low, abs=0.02)
    assert blocks.high == pytest.approx(whole.high, abs=0.02)


def test_pairing_removes_what_episodes_share() -> None:
    luck = RNG.normal(0.0, 100.0, size=30)
    paired = aggregate.paired_difference(luck + 1.0, luck)
    assert paired == pytest.approx((1.0, 1.0, 1.0))


def test_paired_difference_agrees_with_scipy() -> None:
    a, b = RNG.normal(3.0, 1.0, size=(2, 35))
    ours = aggregate.paired_difference(a, b, num_resamples=20_000)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours[1:] == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_shortfall_by_hand() -> None:
    cells = [([-100.0, -100.0], [-110.0, -110.0]), ([200.0, 200.0], [190.0, 190.0])]
    found = aggregate.relative_shortfall(cells)
    # (-100 + 110) / 100 and (200 - 190) / 200: behind by 10 % and 5 %.
    assert [cell.value for cell in found.cells] == pytest.approx([0.1, 0.05])
    assert found.mean == pytest.approx((0.075, 0.075, 0.075))
    ahead = aggregate.relative_shortfall([([100.0, 100.0], [120.0, 120.0])])
    assert ahead.mean.value == pytest.approx(-0.2)


def test_shortfall_interval_is_scipys_with_pairs_kept() -> None:
    true = RNG.normal(-200.0, 20.0, size=25)
    method = true - RNG.gamma(2.0, 5.0, size=25)
    ours = aggregate.relative_shortfall([(true, method)], num_resamples=20_000).mean

    def shortfall(t: np.ndarray, m: np.ndarray, axis: int) -> np.ndarray:
        return (t.mean(axis=axis) - m.mean(axis=axis)) / np.abs(t.mean(axis=axis))

    theirs = stats.bootstrap(
        (true, method),
        shortfall,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_shortfall_of_nothing_and_of_zero_is_unknown() -> None:
    assert math.isnan(aggregate.relative_shortfall([]).mean.value)
    zero = aggregate.relative_shortfall([([0.0, 0.0], [1.0, 1.0])])
    assert math.isnan(zero.mean.value)
    assert math.isnan(zero.cells[0].low)


def test_one_episode_has_a_value_but_no_interval() -> None:
    found = aggregate.mean_interval([5.0])
    assert found.value == 5.0
    assert math.isnan(found.low)
    both = aggregate.cells_interval([[5.0], [1.0, 2.0]])
    assert both.value == pytest.approx(3.25)
    assert math.isnan(both.high)


def test_missing_episodes_leave_in_pairs() -> None:
    pairs = aggregate.paired([1.0, math.nan, 3.0], [4.0, 5.0, math.nan])
    np.testing.assert_array_equal(pairs, [[1.0, 4.0]])
    with pytest.raises(ValueError, match="3 and 2 episodes cannot be paired"):
        aggregate.paired([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_level_that_is_no_coverage_is_refused() -> None:
    with pytest.raises(ValueError, match="level is 95"):
        aggregate.mean_interval([1.0, 2.0], level=95)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.floats(-100, 100))
def test_intervals_move_and_turn_with_the_data(values: list[float], shift: float) -> None:
    data = np.array(values)
    plain = aggregate.mean_interval(data, num_resamples=400)
    moved = aggregate.mean_interval(data + shift, num_resamples=400)
    turned = aggregate.mean_interval(-data, num_resamples=400)
    np.testing.assert_allclose(np.array(moved) - shift, plain, atol=1e-6)
    np.testing.assert_allclose([-turned.high, -turned.low], plain[1:], atol=1e-6)
    assert data.min() - 1e-9 <= plain.low <= plain.high <= data.max() + 1e-9


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        found = aggregate.mean_interval(rng.normal(2.0, 3.0, 40), num_resamples=400, seed=trial)
        hits += found.low <= 2.0 <= found.high
    # Percentile intervals of 40 values cover a little less than 95 %; 300 trials add 1.3 points.
    assert 0.89 <= hits / 300 <= 0.98


def test_shortfall_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(6)
    hits = 0
    for trial in range(200):
        true = rng.normal(-200.0, 20.0, size=(3, 30))
        method = 1.1 * true + rng.normal(0.0, 15.0, size=(3, 30))
        cells = list(zip(true, method, strict=True))
        found = aggregate.relative_shortfall(cells, num_resamples=300, seed=trial).mean
        hits += found.low <= 0.1 <= found.high
    assert 0.87 <= hits / 200 <= 0.99


def test_more_cells_narrow_the_mean() -> None:
    cells = [(RNG.normal(-100.0, 10.0, 20), RNG.normal(-110.0, 10.0, 20)) for _ in range(9)]
    whole = aggregate.relative_shortfall(cells)
    alone = [cell.high - cell.low for cell in whole.cells]
    # Independent cells of equal spread: the width goes with 1 / sqrt(9).
    assert whole.mean.high - whole.mean.low == pytest.approx(np.mean(alone) / 3, rel=0.15)


def test_the_same_rows_give_the_same_interval() -> None:
    values = RNG.normal(size=20)
    assert aggregate.mean_interval(values) == aggregate.mean_interval(values)
    assert aggregate.mean_interval(values, seed=1) != aggregate.mean_interval(values, seed=2)
