"""Planning against brute force, a known optimum, and scores worked out by hand."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import PlannerConfig, candidate_score, mpc_policy, plan
from persim_jax.planning.samplers import Sampler, random_shooting
from persim_jax.rollout import unroll
from tests import oracles
from tests.toys import END, gains_model, line_env, line_params

HORIZON = 5
LINE = line_env(num_actions=2)


class Seen(NamedTuple):
    """What a sampler of all sequences was told."""

    actions: jax.Array
    scores: jax.Array


@functools.cache
def everything(num_actions, horizon):
    """Every sequence is a candidate; its state after a decision is what the scores were."""
    sequences = oracles.all_sequences(num_actions, horizon)
    return Sampler(
        num_rounds=1,
        init=lambda spec: Seen(jnp.asarray(sequences), jnp.zeros(len(sequences))),
        sample=lambda key, state: (jnp.asarray(sequences), state),
        update=lambda state, actions, scores: Seen(actions, scores),
        best=lambda state: state.actions[jnp.argmax(state.scores), 0],
        shift=lambda state: state,
    )


@functools.partial(jax.jit, static_argnames=("model", "task", "config"))
def exhaustive(model, task, config, bound, obs, key=None):
    """The decision over all sequences and each one's score."""
    sampler = everything(task.spec.num_actions, config.horizon)
    key = jax.random.key(0) if key is None else key
    state = sampler.init(task.spec)
    action, seen = plan(key, model, bound, task, sampler, state, obs, config)
    return action, seen.scores


def config_of(horizon=HORIZON, num_actions=2, **kwargs):
    return PlannerConfig(num_candidates=num_actions**horizon, horizon=horizon, **kwargs)


def member(gain):
    """One member of the line with two actions, in numpy."""
    return lambda obs, action: obs + np.array([gain * (action - 0.5), 1.0])


def reward(obs, action, next_obs):
    return next_obs[0] - 0.5 * obs[0] + 0.1 * action


GAINS = [0.5, 2.5, -1.0]


@pytest.mark.parametrize("position", [-1.0, 0.1, 0.9, 1.6])
def test_scores_and_decision_equal_brute_force(position):
    obs = np.array([position, 0.0])
    ended = lambda obs: obs[0] >= END  # noqa: E731
    expected = oracles.brute_force([member(g) for g in GAINS], reward, ended, obs, 2, HORIZON)
    bound = jnp.asarray(GAINS)
    action, scores = exhaustive(gains_model(3, 2), LINE, config_of(), bound, jnp.asarray(obs))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert int(action) == oracles.all_sequences(2, HORIZON)[expected.argmax(), 0]


def test_scores_are_means_over_members_each_alone():
    obs = jnp.asarray([0.3, 0.0])
    _, together = exhaustive(gains_model(3, 2), LINE, config_of(), jnp.asarray(GAINS), obs)
    alone = [
        exhaustive(gains_model(1, 2), LINE, config_of(), jnp.asarray([gain]), obs)[1]
        for gain in GAINS
    ]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [0, 8])
def test_candidates_of_a_round_meet_the_same_noise(chunk_size, key):
    # The line is linear in its noise: common noise moves all scores by one number.
    obs, bound = jnp.asarray([-50.0, 0.0]), jnp.asarray(GAINS)
    config = config_of(chunk_size=chunk_size)
    _, clean = exhaustive(gains_model(3, 2), LINE, config, bound, obs)
    _, noisy = exhaustive(gains_model(3, 2, noise=0.7), LINE, config, bound, obs, key)
    _, other = exhaustive(gains_model(3, 2, noise=0.7), LINE, config, bound, obs, jax.random.key(8))
    moved = np.asarray(noisy - clean)
    np.testing.assert_allclose(moved, np.full_like(moved, moved[0]), atol=1e-3)
    assert abs(moved[0]) > 0.01
    assert not np.allclose(noisy, other, atol=0.01)


@functools.cache
def tug_of_war():
    """Two members are pulled apart; the square of the distance pays, a push costs 1.5.

    From their own states, pushing twice takes members to 1 and 2: 1 + 4 - 3 > 0, so it pays. From
    the mean state, which stays at 0, it takes them to 1 and 1: 1 + 1 - 3 < 0, so it does not.
    """
    pay = lambda obs, action, next_obs: (  # noqa: E731
        jnp.square(next_obs[0]) - 1.5 * jnp.abs(action.astype(jnp.float32) - 1.0)
    )
    return line_env(3)._replace(reward=pay, terminated=lambda obs: obs[0] > 1e9)


def test_members_follow_their_own_states_not_the_mean():
    own = lambda gain: lambda obs, action: obs + np.array([gain * (action - 1), 1.0])  # noqa: E731
    pay = lambda obs, action, next_obs: next_obs[0] ** 2 - 1.5 * abs(action - 1)  # noqa: E731
    arguments = ([own(1.0), own(-1.0)], pay, lambda obs: False, np.zeros(2), 3, 2)
    expected = oracles.brute_force(*arguments)
    other = oracles.brute_force(*arguments, from_mean=True)
    sequences = oracles.all_sequences(3, 2)
    assert sequences[other.argmax(), 0] == 1  # the other reading stays where it is
    bound = jnp.asarray([1.0, -1.0])
    action, scores = exhaustive(gains_model(2), tug_of_war(), config_of(2, 3), bound, jnp.zeros(2))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    assert int(action) != 1


def score_of(actions, gains, task, bonus_weight=0.0):
    """Score of one sequence of the three actions from 0."""
    model, bound = gains_model(len(gains)), jnp.asarray(gains)
    actions = jnp.asarray(actions, jnp.int32)
    encoded = model.encode_actions(bound, actions)
    key, obs = jax.random.key(0), jnp.zeros(2)
    score = jax.jit(
        lambda: candidate_score(key, model, bound, task, obs, actions, encoded, bonus_weight)
    )
    return float(score())


def test_a_plan_on_which_a_member_leaves_the_finite_numbers_has_no_score():
    # One for each step: 3 is what the plan would be worth if nobody looked at its states.
    task = line_env(3)._replace(
        reward=lambda obs, action, next_obs: jnp.ones(()), terminated=lambda obs: obs[0] < -9.0
    )
    assert np.isnan(score_of([2, 2, 2], [1.0, 3e38], task))


def test_rewards_after_a_predicted_termination_do_not_count():
    # One member: positions 1, then 2, which ends it: rewards 1 + 0.2 and 2 - 0.5 + 0.2.
    task = line_env(3)
    assert score_of([2, 2, 2, 0], [1.0], task) == pytest.approx(1.2 + 1.7)
    # The other never ends: -1 + 0.2, -2 + 0.5 + 0.2, -3 + 1 + 0.2, -2 + 1.5 + 0.
    slow = 0.2 - 1 + 0.7 - 2 + 1.2 - 3 - 0.5
    assert score_of([2, 2, 2, 0], [-1.0], task) == pytest.approx(slow)
    assert score_of([2, 2, 2, 0], [1.0, -1.0], task) == pytest.approx((2.9 + slow) / 2)


def test_the_bonus_is_the_mean_over_members_of_the_path_up_to_its_end():
    task = line_env(3)._replace(reward=lambda obs, action, next_obs: jnp.zeros(()))
    # Gain 1: positions 1, 0, 1, 0, at most 1. Gain 3: it ends at 3. Gain -1: -1, 0, -1, 0.
    assert score_of([2, 0, 2, 0], [1.0], task, 0.5) == pytest.approx(0.5)
    assert score_of([2, 0, 2, 0], [1.0, 3.0, -1.0], task, 0.5) == pytest.approx(0.5 * 4 / 3)
    # Pushed on beyond its end it would be at 12.
    assert score_of([2, 2, 2, 2], [3.0], task, 0.5) == pytest.approx(0.5 * 3)
    assert score_of([2, 2, 2, 2], [3.0], task) == 0.0


@functools.cache
def target_task():
    """Three actions move a point by -1, 0 or 1; the distance to 3 costs its square."""
    cost = lambda obs, action, next_obs: -jnp.square(next_obs[0] - 3.0)  # noqa: E731
    return line_env(3)._replace(reward=cost, terminated=lambda obs: obs[0] > 1e9)


@pytest.mark.parametrize("chunk_size", [0, 100])
def test_an_integrator_is_driven_to_its_target_and_kept_there(chunk_size):
    task = target_task()
    config = PlannerConfig(num_candidates=1000, horizon=4, chunk_size=chunk_size)
    model, bound = true_dynamics(task), line_params(1.0)
    policy = mpc_policy(model, bound, task, config)
    run = jax.jit(lambda key: unroll(key, model, bound, task, policy, jnp.zeros(2), 6))
    np.testing.assert_allclose(run(jax.random.key(0)).obs[:, 0], [0, 1, 2, 3, 3, 3, 3])


def test_ties_are_broken_at_random_and_not_in_favour_of_the_old_plan():
    task = line_env(3)._replace(reward=lambda obs, action, next_obs: jnp.zeros(()))
    config = PlannerConfig(num_candidates=10, horizon=3)
    model, sampler = gains_model(1), random_shooting(task.spec, 10, 3)
    state = sampler.init(task.spec)
    state = state._replace(plan=jnp.full(3, 2, jnp.int32), has_plan=jnp.asarray(True))
    decide = lambda key: plan(  # noqa: E731
        key, model, jnp.ones(1), task, sampler, state, jnp.zeros(2), config
    )[0]
    actions = np.asarray(jax.jit(jax.vmap(decide))(jax.random.split(jax.random.key(1), 1500)))
    # The old plan, all 2, is one candidate of ten; the nine others begin with anything.
    expected = np.array([0.9 / 3, 0.9 / 3, 0.1 + 0.9 / 3])
    counts = np.bincount(actions, minlength=3)
    assert ((counts - 1500 * expected) ** 2 / (1500 * expected)).sum() < 9.21


def test_the_plan_is_kept_from_decision_to_decision():
    task = target_task()
    policy = mpc_policy(gains_model(1), jnp.ones(1), task, PlannerConfig("random_shooting", 600, 4))
    action, state = jax.jit(policy.act)(jax.random.key(3), policy.init(), jnp.zeros(2))
    assert int(action) == 2
    # The plan right, right, right, stay, one step on; its last place is for a fresh action.
    np.testing.assert_array_equal(state.plan[:-1], [2, 2, 1])
    assert bool(state.has_plan)


def test_chunks_change_no_score_even_of_noisy_dynamics():
    model, obs, bound = gains_model(3, 2, 0.3), jnp.asarray([0.3, 0.0]), jnp.asarray(GAINS)
    scores = [
        np.asarray(exhaustive(model, LINE, config_of(chunk_size=c), bound, obs)[1]) for c in (0, 8)
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5, atol=1e-5)
    _, again = exhaustive(model, LINE, config_of(), bound, obs, jax.random.key(1))
    assert np.all(np.abs(scores[0] - again) > 1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampler": "guess"}, "guess"),
        ({"horizon": 0}, "must be positive"),
        ({"num_candidates": 10, "chunk_size": 3}, "must divide"),
        ({"chunk_size": -2}, "chunk_size -2"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PlannerConfig(**fields)
