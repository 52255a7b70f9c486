"""Errors by hand, gains by construction, verdicts by the thresholds they state."""

import dataclasses

import numpy as np
import pytest

from persim_jax.validation.config import TrustConfig
from persim_jax.validation.errors import heterogeneity, rmse_over_horizon, squared_errors
from persim_jax.validation.open_loop import Forecast
from persim_jax.validation.queries import Queries
from persim_jax.validation.verdicts import judge, up_to

NAN = np.nan


def test_errors_are_in_standard_deviations_and_masked_steps_do_not_count():
    queries = Queries(
        agent=np.array([0, 1]), obs=None, actions=None, states=None,
        truth=np.zeros((2, 2, 2)), mask=np.array([[1, 1], [1, 0]], bool),
    )  # fmt: skip
    mean = np.array([[[2.0, 0.0], [4.0, 3.0]], [[0.0, 6.0], [9.0, 9.0]]])
    squared = squared_errors(Forecast(mean, mean), queries, np.array([2.0, 3.0]))
    np.testing.assert_allclose(squared, [[0.5, 2.5], [2.0, NAN]])
    np.testing.assert_allclose(rmse_over_horizon(squared), np.sqrt([1.25, 2.5]))
    assert np.isnan(rmse_over_horizon(np.full((2, 1), NAN)))


def test_a_gain_is_found_where_there_is_one_and_only_there():
    rng = np.random.default_rng(0)
    agents = np.repeat(np.arange(100), 2)
    pooled = rng.chisquare(1, (200, 10))
    better = heterogeneity(0.25 * pooled, pooled, agents, 500)
    np.testing.assert_allclose([better.gain, better.low, better.high], 0.5, atol=1e-12)
    assert better.found
    assert (better.num_agents, better.num_windows) == (100, 200)
    same = heterogeneity(rng.chisquare(1, (200, 10)), pooled, agents, 500)
    assert same.low < 0 < same.high
    assert not same.found
    worse = heterogeneity(2 * pooled, pooled, agents, 500)
    np.testing.assert_allclose(worse.gain, 1 - np.sqrt(2))
    assert not worse.found


def test_one_agent_alone_cannot_make_a_gain():
    # Of twenty agents one gains a lot: whether it is among the draws decides.
    pooled = np.full((20, 1), 0.01)
    pooled[0] = 100.0
    personalized = np.full((20, 1), 0.0101)
    found = heterogeneity(personalized, pooled, np.arange(20), 1000)
    assert found.gain > 0.9
    assert not found.found


def test_errors_over_the_first_steps():
    np.testing.assert_allclose(
        up_to(np.array([[1.0, 4.0, NAN], [3.0, 0.0, 16.0]])), [2**0.5, 2**0.5, 4.8**0.5]
    )


FAR = np.full((1, 4), 100.0)
GOOD = np.ones((1, 4, 2))
TRUST = TrustConfig(min_steps=2)


def verdict(squared, unchanged=FAR, outside=0.0, inside=GOOD, config=TRUST):
    squared = np.asarray([squared], float)
    return judge("a", True, squared, unchanged, np.array([outside]), inside, config)


@pytest.mark.parametrize(
    ("squared", "expected", "steps"),
    [
        ([0.0, 0.1, 0.2, 0.2], "trust", 4),
        ([0.0, 0.1, 0.2, 1.0], "trust_up_to", 3),  # means 0, .05, .1, .325: root above a half
        ([0.0, 9.0, 0.0, 0.0], "do_not_trust", 0),  # a single step is of no use
        ([0.4, 0.0, 0.0, 0.0], "trust", 4),  # and says little: two are judged together
        ([0.2, 0.1, NAN, NAN], "trust", 2),  # all that could be judged
        ([4.0, NAN, NAN, NAN], "do_not_trust", 0),
        ([NAN] * 4, "do_not_trust", 0),
    ],
)
def test_trust_ends_where_the_error_is_too_large(squared, expected, steps):
    found = verdict(squared)
    assert (found.verdict, found.steps) == (expected, steps)
    assert (found.reason == "") == (expected == "trust")


def test_a_record_of_one_step_is_judged_in_the_singular():
    assert verdict([4.0, NAN, NAN, NAN]).reason == "over 1 step the error is 2 standard deviations"


def test_a_simulator_that_is_no_better_than_standing_still_is_not_trusted():
    still = np.array([[0.05, 0.05, 0.05, 0.05]])
    assert verdict([0.06] * 4, still).verdict == "do_not_trust"
    assert verdict([0.06] * 4, still).reason == (
        "over 2 steps assuming that nothing changes errs less: 0.224 standard deviations, the "
        "simulator 0.245"
    )
    # An error that is negligible is good enough all the same.
    tiny = np.full((1, 4), 1e-6)
    assert verdict([2e-6] * 4, tiny).verdict == "trust"


def test_extrapolation_and_intervals_that_miss_cost_the_trust():
    far = verdict([0.1] * 4, outside=0.8)
    assert (far.verdict, far.steps) == ("do_not_trust", 0)
    assert far.reason == "80 % of its states and actions are unlike the data"
    half = np.tile([1.0, 0.0], (1, 4, 1))
    missed = verdict([0.1] * 4, inside=half)
    assert missed.verdict == "do_not_trust"
    assert missed.reason == "only 50 % of its values are in the 95 % intervals"
    squared = np.full((1, 4), 0.1)
    other = judge("a", True, squared, FAR, np.zeros(1), half, TRUST, level=0.9)
    assert other.reason == "only 50 % of its values are in the 90 % intervals"
    lenient = dataclasses.replace(TRUST, min_coverage=0.4, max_outside=0.9)
    assert verdict([0.1] * 4, outside=0.8, config=lenient).verdict == "trust"
    # Neither matters where the error hardly does, and intervals that there are not say nothing.
    assert verdict([0.0] * 4, outside=0.8, inside=half).verdict == "trust"
    assert verdict([0.0] * 4, inside=np.full((1, 4, 2), NAN)).verdict == "trust"
