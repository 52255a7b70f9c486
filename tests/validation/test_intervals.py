"""Coverage where it is known by theory, and the rescaling that repairs it."""

from statistics import NormalDist

import numpy as np
import pytest

from persim_jax.validation import intervals
from persim_jax.validation.open_loop import Forecast
from persim_jax.validation.queries import Queries

LEVELS = (0.5, 0.8, 0.95)


def normal_scores(num_agents, per_agent=2, steps=4, width=1.0, seed=0):
    """|N(0, width^2)| for each of Q windows, H steps and 3 coordinates, and the windows' agents."""
    rng = np.random.default_rng(seed)
    agents = np.repeat(np.arange(num_agents), per_agent)
    return np.abs(width * rng.normal(size=(len(agents), steps, 3))), agents


def share_of(found, level, step):
    return next(c for c in found if (c.level, c.step) == (level, step))


def test_scores_are_errors_in_standard_deviations():
    queries = Queries(
        agent=np.array([0, 0]), obs=None, actions=None, states=None,
        truth=np.array([[[1.0], [3.0]], [[2.0], [0.0]]]), mask=np.array([[1, 1], [1, 0]], bool),
    )  # fmt: skip
    forecast = Forecast(np.array([[[2.0], [3.0]], [[0.0], [9.0]]]), np.full((2, 2, 1), 0.5))
    expected = [[[2.0], [0.0]], [[4.0], [np.nan]]]
    np.testing.assert_allclose(intervals.scores(forecast, queries), expected)


def test_normal_errors_are_covered_as_often_as_promised():
    scored, agents = normal_scores(3000)
    inside = intervals.contained(scored, intervals.nominal(LEVELS))
    for found in intervals.coverage(inside, agents, LEVELS, (1, 4), 300):
        np.testing.assert_allclose(found.share, found.level, atol=0.02)
        assert found.low <= found.share <= found.high
        assert found.high - found.low < 0.05
        assert found.windows == 6000


def test_overconfident_intervals_fail_and_are_repaired_by_other_agents():
    scored, agents = normal_scores(200, width=3.0)
    inside = intervals.contained(scored, intervals.nominal(LEVELS))
    before = intervals.coverage(inside, agents, LEVELS, (1, 4), 300)
    expected = 2 * NormalDist().cdf(NormalDist().inv_cdf(0.975) / 3) - 1  # 0.486
    np.testing.assert_allclose(share_of(before, 0.95, 1).share, expected, atol=0.06)
    half = np.arange(200) % 2 == 0
    repaired = intervals.cross_fitted(scored, agents, half, LEVELS)
    for found in intervals.coverage(repaired, agents, LEVELS, (1, 4), 300):
        np.testing.assert_allclose(found.share, found.level, atol=0.04)


def test_each_half_is_rescaled_by_the_other():
    scored = np.concatenate([np.full((10, 1, 1), 1.0), np.full((10, 1, 1), 5.0)])
    agents = np.arange(20)
    inside = intervals.cross_fitted(scored, agents, agents < 10, (0.95,))
    # Scores of 1 lie in intervals of 5, and not the other way round.
    np.testing.assert_array_equal(inside[0, :, 0, 0], np.repeat([1.0, 0.0], 10))


def test_an_interval_that_nobody_rescaled_is_not_missed():
    # Of the other half no record was long enough for a window.
    scored, agents = np.ones((3, 2, 1)), np.array([0, 0, 1])
    inside = intervals.cross_fitted(scored, agents, np.array([True, True, False]), (0.95,))
    assert np.isnan(inside).all()
    (found,) = intervals.coverage(inside, agents, (0.95,), (1,), 10)
    assert np.isnan(found.share)


def test_widths_are_the_conformal_order_statistics():
    scored = np.arange(1.0, 20.0).reshape(19, 1, 1)
    widths = intervals.conformal_widths(scored, LEVELS)
    # ceil(20 * 0.5), ceil(20 * 0.8), ceil(20 * 0.95) of 19.
    np.testing.assert_array_equal(widths[:, 0, 0], [10, 16, 19])
    gone = np.concatenate([scored, np.full((19, 2, 1), np.nan)], axis=1)
    np.testing.assert_array_equal(intervals.conformal_widths(gone, LEVELS)[:, 2, 0], [10, 16, 19])
    # Steps and coordinates are rescaled on their own.
    two = np.concatenate([scored, 3 * scored], axis=2)
    np.testing.assert_array_equal(intervals.conformal_widths(two, LEVELS)[:, 0, 1], [30, 48, 57])


def test_an_interval_knows_that_windows_of_one_agent_are_one_piece_of_evidence():
    rng = np.random.default_rng(0)
    hit = (rng.uniform(size=40) < 0.8).astype(float)  # by agent
    alone, agents = hit, np.arange(40)
    repeated = np.repeat(hit, 25), np.repeat(agents, 25)
    ones = np.ones_like
    single = intervals.ratio_interval(alone, ones(alone), agents, 2000, 0)
    many = intervals.ratio_interval(repeated[0], ones(repeated[0]), repeated[1], 2000, 0)
    np.testing.assert_allclose(many, single, atol=1e-12)
    expected = 1.96 * np.sqrt(hit.mean() * (1 - hit.mean()) / 40)
    np.testing.assert_allclose((many[1] - many[0]) / 2, expected, rtol=0.15)


def test_a_step_beyond_the_horizon_has_no_share():
    scored, agents = normal_scores(4)
    inside = intervals.contained(scored, intervals.nominal(LEVELS))
    found = share_of(intervals.coverage(inside, agents, LEVELS, (1, 50), 10), 0.95, 50)
    assert np.isnan(found.share)
    assert found.windows == 0


@pytest.mark.parametrize("level", LEVELS)
def test_nominal_widths_are_normal_quantiles(level):
    width = intervals.nominal((level,))[0]
    np.testing.assert_allclose(2 * NormalDist().cdf(width) - 1, level)
