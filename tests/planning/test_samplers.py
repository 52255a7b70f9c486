"""Random shooting: what it draws, what it keeps, and how it chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import base
from persim_jax.planning.samplers import ShootingState, random_shooting
from tests.toys import line_env

SPEC = line_env().spec
# The 1 % points of the chi-square distribution with 1, 2, 4 and 6 degrees of freedom.
CHI_SQUARE = {1: 6.63, 2: 9.21, 4: 13.28, 6: 16.81}


def chi_square(counts):
    expected = counts.sum() / len(counts)
    return ((counts - expected) ** 2 / expected).sum()


def spec_of(num_actions):
    return base.EnvSpec("toy", ("x",), (), num_actions, (), (), 10, 1.0)


def sample(sampler, state, key):
    return jax.jit(sampler.sample)(key, state)


@pytest.mark.parametrize("num_actions", [2, 3, 5, 7])
def test_actions_are_uniform_and_independent(key, num_actions):
    spec = spec_of(num_actions)
    sampler = random_shooting(spec, 700, 30)
    actions = np.asarray(sample(sampler, sampler.init(spec), key)[0])
    assert actions.dtype == np.int32
    assert actions.shape == (700, 30)
    every = range(num_actions)
    assert set(np.unique(actions)) == set(every)
    counts = np.array([(actions == a).sum() for a in every])
    assert chi_square(counts) < CHI_SQUARE[num_actions - 1]
    # Neighbours in time and in the list of candidates agree as often as chance has it.
    for same in (actions[:, 1:] == actions[:, :-1], actions[1:] == actions[:-1]):
        share, n = same.mean(), same.size
        assert abs(share - 1 / num_actions) < 4 * np.sqrt(0.25 / n)


def test_every_key_draws_other_sequences(key):
    sampler = random_shooting(SPEC, 50, 10)
    first, second = (
        np.asarray(sample(sampler, sampler.init(SPEC), k)[0]) for k in jax.random.split(key)
    )
    assert 0.2 < (first == second).mean() < 0.5


def test_candidate_zero_is_the_plan_one_step_on_with_a_fresh_last_action(key):
    sampler = random_shooting(SPEC, 4, 5)
    state = sampler.init(SPEC)
    plans = jnp.asarray([[0, 0, 0, 0, 0], [2, 1, 0, 2, 1], [1, 1, 1, 1, 1], [0, 1, 2, 0, 1]])
    state = state._replace(tie_break=jnp.asarray([0.9, 0.1, 0.5, 0.5]))
    state = sampler.update(state, plans.astype(jnp.int32), jnp.asarray([0.0, 3.0, 1.0, 2.0]))
    assert int(sampler.best(state)) == 2
    state = sampler.shift(state)
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(key, state)[0]))
    actions = np.asarray(draw(jax.random.split(key, 900)))
    np.testing.assert_array_equal(actions[:, 0, :-1], np.broadcast_to([1, 0, 2, 1], (900, 4)))
    # The last action, and all of the other candidates, are drawn afresh.
    assert chi_square(np.bincount(actions[:, 0, -1], minlength=3)) < CHI_SQUARE[2]
    assert chi_square(np.bincount(actions[:, 1:].reshape(-1), minlength=3)) < CHI_SQUARE[2]


def test_the_first_decision_has_no_plan_to_start_from(key):
    sampler = random_shooting(SPEC, 4, 5)
    fresh = sampler.init(SPEC)
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(key, fresh)[0]))
    actions = np.asarray(draw(jax.random.split(key, 600)))
    for step in range(5):
        assert chi_square(np.bincount(actions[:, 0, step], minlength=3)) < CHI_SQUARE[2]


def test_a_plan_of_one_step_is_drawn_afresh(key):
    sampler = random_shooting(SPEC, 3, 1)
    state = sampler.init(SPEC)._replace(plan=jnp.asarray([2]), has_plan=jnp.asarray(True))
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(key, sampler.shift(state))[0]))
    actions = np.asarray(draw(jax.random.split(key, 600)))
    assert chi_square(np.bincount(actions[:, 0, 0], minlength=3)) < CHI_SQUARE[2]


def choose(scores, tie_break):
    """Which of the candidates [0], [1], ... is kept."""
    sampler = random_shooting(spec_of(len(scores)), len(scores), 1)
    state = ShootingState(
        plan=jnp.zeros(1, jnp.int32), has_plan=jnp.asarray(False), tie_break=jnp.asarray(tie_break)
    )
    actions = jnp.arange(len(scores), dtype=jnp.int32)[:, None]
    return int(sampler.best(sampler.update(state, actions, jnp.asarray(scores))))


def test_the_best_score_wins_and_the_tie_break_decides_between_equals_only():
    ties = [0.3, 0.99, 0.2, 0.0, 0.7]
    assert choose([1.0, 0.0, 5.0, 4.9999, -3.0], ties) == 2
    assert choose([7.0, 0.0, 7.0, 7.0, 6.9], ties) == 0
    assert choose([7.0, 0.0, 8.0, 8.0, 6.9], ties) == 2
    assert choose([-7.0] * 5, ties) == 1


def test_a_candidate_that_left_the_finite_numbers_is_the_worst():
    nan, inf = float("nan"), float("inf")
    assert choose([nan, 1.0, 2.0, nan], [0.9, 0.1, 0.1, 0.9]) == 2
    assert choose([nan, -inf, -5.0], [0.9, 0.9, 0.1]) == 2
    # Where all are lost the choice is random, not candidate 0 for ever.
    assert choose([nan, nan, nan], [0.1, 0.9, 0.2]) == 1


def test_the_tie_break_is_drawn_anew_for_every_decision(key):
    sampler = random_shooting(SPEC, 40, 2)
    numbers = [sample(sampler, sampler.init(SPEC), k)[1].tie_break for k in jax.random.split(key)]
    assert np.abs(numbers[0] - numbers[1]).min() > 0
    assert np.min(numbers) >= 0
    assert np.max(numbers) < 1


def test_continuous_actions_need_another_sampler():
    continuous = base.EnvSpec("arm", ("x",), (), 0, (-1.0,), (1.0,), 10, 1.0)
    with pytest.raises(ValueError, match="arm has continuous"):
        random_shooting(continuous, 10, 5)
