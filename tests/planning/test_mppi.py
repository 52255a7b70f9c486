"""MPPI: its weights by hand, and what they must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.planning.mppi import mppi, path_weights
from tests.planning.continuous import spec_of

ARM = spec_of((-1.0,), (1.0,))
NAN, INF = float("nan"), float("inf")


def weights(scores, temperature=1.0):
    return np.asarray(path_weights(jnp.asarray(scores, jnp.float32), temperature))


def test_weights_by_hand():
    # The better half is 3 and 5, their deviation 1: gaps of 0, 2, 4 and 6 spreads.
    expected = np.exp([-6.0, 0.0, -2.0, -4.0])
    np.testing.assert_allclose(weights([-1, 5, 3, 1]), expected / expected.sum(), rtol=1e-5)
    hotter = np.exp([-3.0, 0.0, -1.0, -2.0])
    np.testing.assert_allclose(weights([-1, 5, 3, 1], 2.0), hotter / hotter.sum(), rtol=1e-5)


def test_weights_know_no_unit_and_no_offset():
    scores = np.random.default_rng(0).normal(size=50)
    np.testing.assert_allclose(weights(1000 + 100 * scores), weights(scores), rtol=1e-3)


def test_candidates_on_which_the_model_diverges_do_not_make_the_others_equal():
    scores = np.random.default_rng(0).normal(size=50)
    scores[np.argsort(scores)[:10]] = -1e20
    np.testing.assert_allclose(weights(scores), weights(np.maximum(scores, -50)), rtol=1e-4)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([NAN, 2.0, NAN, -INF], [0, 1, 0, 0]),
        ([NAN, 2.0, 2.0, NAN], [0, 0.5, 0.5, 0]),
        ([NAN] * 4, [0.25] * 4),
        ([-INF] * 4, [0.25] * 4),
        ([7.0] * 4, [0.25] * 4),
        ([1.0, INF, 0.0, 2.0], [0, 1, 0, 0]),
        ([INF, INF, 0.0, 2.0], [0.5, 0.5, 0, 0]),
        ([3.0], [1]),
    ],
)
def test_weights_of_lost_equal_and_infinite_scores(scores, expected):
    np.testing.assert_allclose(weights(scores), expected, atol=1e-7)


def test_the_plan_is_the_weighted_mean_and_its_first_action_is_executed():
    sampler = mppi(ARM, 4, 2, 1, (0.3, 0.6), 0.0, 1.0)
    actions = jnp.asarray([[0.1, 0.0], [0.5, -0.2], [-0.2, 0.3], [0.9, 0.4]])[..., None]
    scores = jnp.asarray([-1.0, 5.0, 3.0, 1.0])
    state = sampler.update(sampler.init(ARM), actions, scores)
    expected = weights([-1, 5, 3, 1]) @ np.asarray(actions)[..., 0]
    np.testing.assert_allclose(state.mean[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(sampler.best(state), expected[:1], rtol=1e-5)
    shifted = sampler.shift(state)
    np.testing.assert_allclose(shifted.mean[:, 0], [expected[1], 0.0], rtol=1e-5)
    assert (int(state.round), int(shifted.round)) == (1, 0)


def test_noise_of_one_size_in_all_rounds_of_a_decision(key):
    sampler = mppi(ARM, 4000, 3, 4, (0.2, 0.4), 0.0, 1.0)
    actions, state = sampler.sample(key, sampler.init(ARM))
    drawn = float(state.std[0, 0])
    assert 0.2 <= drawn <= 0.4
    np.testing.assert_array_equal(state.std, np.full((3, 1), np.float32(drawn)))
    np.testing.assert_allclose(np.asarray(actions).std(axis=0), drawn, rtol=0.05)
    state = sampler.update(state, actions, jnp.zeros(4000))
    again, state = sampler.sample(jax.random.split(key)[0], state)
    assert float(state.std[0, 0]) == drawn
    assert not np.isin(again, actions).all()


def test_actions_stay_within_the_bounds_and_so_does_the_plan(key):
    spec = spec_of()
    sampler = mppi(spec, 64, 3, 1, (0.5, 0.5), 1.0, 1.0)
    state = sampler.init(spec)._replace(mean=jnp.broadcast_to(jnp.asarray([1.0, 0.5]), (3, 2)))
    actions, state = sampler.sample(key, state)
    assert (np.asarray(actions) <= [1.0, 0.5]).all()
    assert (np.asarray(actions) >= [-1.0, -2.0]).all()
    # All candidates at the bound: the mean may not round beyond it.
    state = sampler.update(state, jnp.broadcast_to(state.mean, (64, 3, 2)), jnp.arange(64.0))
    np.testing.assert_allclose(state.mean, np.broadcast_to([1.0, 0.5], (3, 2)), rtol=1e-6)
    assert (np.asarray(state.mean) <= [1.0, 0.5]).all()
