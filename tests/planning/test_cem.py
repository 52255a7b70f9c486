"""CEM: a round and a decision worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.planning.cem import CemState, cem
from tests.planning.continuous import spec_of

ARM = spec_of((-1.0,), (1.0,))
NAN = float("nan")


def tiny(num_rounds=6, init_std=(0.3, 0.6), horizon=2, smoothing=0.1):
    return cem(ARM, 4, horizon, num_rounds, 2, smoothing, init_std)


def plans(*pairs):
    """Candidates `[K, 2, 1]` from pairs of actions."""
    return jnp.asarray(pairs)[:, :, None]


# Elites of the first round are candidates 1 and 3, of the second 0 and 2.
FIRST = (plans((0.1, 0.0), (0.5, -0.2), (-0.2, 0.3), (0.9, 0.4)), jnp.asarray([1.0, 4, NAN, 3]))
SECOND = (plans((0.3, 0.1), (0.6, 1.0), (0.4, 0.5), (0.9, 0.4)), jnp.asarray([7.0, 1, 8, -9]))


def test_the_first_round_takes_the_elites_whole_and_the_second_keeps_a_tenth():
    sampler = tiny()
    state = sampler.init(ARM)._replace(mean=jnp.full((2, 1), 0.9), std=jnp.full((2, 1), 5.0))
    state = sampler.update(state, *FIRST)
    np.testing.assert_allclose(state.mean[:, 0], [0.7, 0.1], rtol=1e-6)
    # Two numbers 0.4 and 0.6 apart: unbiased deviations 0.4 / sqrt(2) and 0.6 / sqrt(2).
    np.testing.assert_allclose(state.std[:, 0], np.array([0.4, 0.6]) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(sampler.best(state), [0.7], rtol=1e-6)

    state = sampler.update(state, *SECOND)
    np.testing.assert_allclose(state.mean[:, 0], [0.07 + 0.9 * 0.35, 0.01 + 0.9 * 0.3], rtol=1e-6)
    deviations = [0.04 + 0.9 * 0.1, 0.06 + 0.9 * 0.4]
    np.testing.assert_allclose(state.std[:, 0], np.array(deviations) / np.sqrt(2), rtol=1e-6)
    # What is executed is the mean of the last elites, not the smoothed one.
    np.testing.assert_allclose(sampler.best(state), [0.35], rtol=1e-6)


def test_the_next_decision_starts_from_the_smoothed_mean_one_step_on(key):
    sampler = tiny()
    state = sampler.update(sampler.update(sampler.init(ARM), *FIRST), *SECOND)
    state = sampler.shift(state)
    np.testing.assert_allclose(state.mean[:, 0], [0.28, 0.0], rtol=1e-6)
    # The first round of that decision again takes its elites whole.
    state = sampler.update(sampler.sample(key, state)[1], *FIRST)
    np.testing.assert_allclose(state.mean[:, 0], [0.7, 0.1], rtol=1e-6)


def test_the_end_of_a_shifted_plan_is_the_middle_of_the_bounds():
    sampler = cem(spec_of(), 4, 3, 2, 2, 0.1, (0.3, 0.6))
    state = sampler.init(spec_of())
    np.testing.assert_allclose(state.mean, np.broadcast_to([0.0, -0.75], (3, 2)))
    state = sampler.shift(state._replace(mean=jnp.arange(6.0).reshape(3, 2)))
    np.testing.assert_allclose(state.mean, [[2, 3], [4, 5], [0, -0.75]])


def test_a_decision_draws_one_standard_deviation_and_keeps_it_between_rounds(key):
    spec = spec_of()  # halves of the ranges: 1 and 1.25
    sampler = cem(spec, 4, 3, 2, 2, 0.1, (0.3, 0.6))
    first = sampler.init(spec)
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(key, first)[1].std))
    stds = np.asarray(draw(jax.random.split(key, 2000)))
    halves = stds[:, :1, :1]
    np.testing.assert_allclose(stds, np.broadcast_to(halves * [1.0, 1.25], stds.shape), rtol=1e-6)
    assert halves.min() >= 0.3
    assert halves.max() <= 0.6
    assert abs(halves.mean() - 0.45) < 4 * 0.3 / np.sqrt(12 * 2000)
    assert abs(halves.std() - 0.3 / np.sqrt(12)) < 0.005
    later = first._replace(std=jnp.full((3, 2), 0.123), round=jnp.asarray(1))
    np.testing.assert_allclose(sampler.sample(key, later)[1].std, 0.123)


def test_candidates_are_drawn_around_the_mean_with_the_rounds_deviation(key):
    sampler = cem(ARM, 4000, 2, 6, 50, 0.1, (0.3, 0.6))
    state = CemState(
        mean=jnp.asarray([[0.2], [-0.3]]),
        std=jnp.asarray([[0.05], [0.1]]),
        action=jnp.zeros(1),
        round=jnp.asarray(3),
    )
    actions = np.asarray(sampler.sample(key, state)[0])[..., 0]
    np.testing.assert_allclose(actions.mean(axis=0), [0.2, -0.3], atol=0.007)
    np.testing.assert_allclose(actions.std(axis=0), [0.05, 0.1], rtol=0.06)


@pytest.mark.parametrize("scores", [[NAN] * 4, [-np.inf, NAN, -np.inf, NAN], [2.0, 2.0, 2.0, 2.0]])
def test_candidates_that_are_all_lost_or_equal_leave_finite_numbers(scores):
    state = tiny().update(tiny().init(ARM), FIRST[0], jnp.asarray(scores))
    assert np.isfinite(state.mean).all()
    assert np.isfinite(state.std).all()


def test_a_lost_candidate_is_no_elite_while_there_are_others():
    scores = jnp.asarray([NAN, -1e30, NAN, 5.0])
    state = tiny().update(tiny().init(ARM), FIRST[0], scores)
    np.testing.assert_allclose(state.mean[:, 0], [0.7, 0.1], rtol=1e-6)
