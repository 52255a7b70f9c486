"""Returns of whole episodes: lanes against numpy, and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.collect import memoryless
from persim_jax.evaluation.returns import evaluate_returns
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import PlannerConfig, mpc_policy
from persim_jax.rollout import unroll
from tests.toys import END, cache_size, greedy_act, line_env, line_params, tilted_act

ENV = line_env(max_steps=9)
GAINS = np.float32([0.4, 1.0, -0.5, 0.1])
AGENTS = np.int32([1, 0, 3, 1, 2, 0])
OBS = np.stack([np.float32([-0.3, 0.5, 1.0, 1.5, 0.2, 1.9]), np.zeros(6, np.float32)], axis=1)


def push_right(fitted, agent, settings):
    """Right below the agent's number in `fitted`."""
    del settings
    return memoryless(greedy_act, fitted[agent])


def wander(fitted, agent, settings):
    del settings
    return memoryless(tilted_act, fitted[agent])


def planned(fitted, agent, settings):
    model = true_dynamics(ENV)
    return mpc_policy(model, model.bind(fitted, agent, None), ENV, settings)


def numpy_episode(gain, threshold, obs):
    """Return and length of one greedy episode, in numpy."""
    total, position = 0.0, float(obs[0])
    for step in range(ENV.spec.max_steps):
        action = 2 if position < threshold else 0
        after = position + gain * (action - 1)
        total += after - 0.5 * position + 0.1 * action
        position = after
        if position >= END:
            return total, step + 1
    return total, ENV.spec.max_steps


def evaluate(policy_of, fitted, settings=None, params=None, lanes=slice(None), key=None):
    key = jax.random.key(0) if key is None else key
    params = line_params(GAINS) if params is None else params
    agents, obs = jnp.asarray(AGENTS[lanes]), jnp.asarray(OBS[lanes])
    found = evaluate_returns(key, ENV, params, policy_of, fitted, settings, agents, obs)
    return [np.asarray(part) for part in found]


THRESHOLDS = jnp.asarray([9.0, 9.0, -9.0, 9.0])


def test_every_lane_is_an_episode_of_its_own_agent_from_its_own_start():
    returns, lengths = evaluate(push_right, THRESHOLDS)
    expected = [
        numpy_episode(GAINS[agent], float(THRESHOLDS[agent]), obs)
        for agent, obs in zip(AGENTS, OBS, strict=True)
    ]
    np.testing.assert_allclose(returns, [e[0] for e in expected], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(lengths, [e[1] for e in expected])
    assert len(set(lengths.tolist())) >= 3  # lanes end at different times
    assert lengths.max() == ENV.spec.max_steps
    assert lengths.dtype == np.int32


def test_lanes_together_equal_lanes_one_at_a_time():
    returns, lengths = evaluate(push_right, THRESHOLDS)
    for lane in range(len(AGENTS)):
        alone = evaluate(push_right, THRESHOLDS, lanes=slice(lane, lane + 1))
        np.testing.assert_array_equal(alone, [returns[lane : lane + 1], lengths[lane : lane + 1]])


def test_a_noisy_lane_is_the_rollout_with_the_key_of_its_place():
    params, key = line_params(GAINS, noise=0.3), jax.random.key(8)
    returns, lengths = evaluate(wander, jnp.ones(4), params=params, key=key)
    model = true_dynamics(ENV)

    @jax.jit
    def alone(lane, agent, obs):
        policy = memoryless(tilted_act, jnp.asarray(1.0))
        bound = model.bind(params, agent, None)
        steps = ENV.spec.max_steps
        return unroll(jax.random.fold_in(key, lane), model, bound, ENV, policy, obs, steps)

    for lane, (agent, obs) in enumerate(zip(AGENTS, OBS, strict=True)):
        episode = alone(lane, agent, obs)
        np.testing.assert_allclose(returns[lane], episode.rewards.sum(), rtol=1e-5, atol=1e-5)
        assert lengths[lane] == episode.mask.sum()
    others, _ = evaluate(wander, jnp.ones(4), params=params, key=jax.random.key(9))
    assert np.all(others != returns)


def test_a_planner_runs_inside_with_its_static_settings():
    # One step ahead the most is paid for going right, left where the gain is negative.
    nearest = PlannerConfig(num_candidates=50, horizon=1)
    returns, lengths = evaluate(planned, line_params(GAINS), nearest)
    expected = [
        numpy_episode(GAINS[agent], np.copysign(9.0, GAINS[agent]), obs)
        for agent, obs in zip(AGENTS, OBS, strict=True)
    ]
    np.testing.assert_array_equal(lengths, [e[1] for e in expected])
    np.testing.assert_allclose(returns, [e[0] for e in expected], rtol=1e-5, atol=1e-5)


def test_other_agents_and_starts_of_the_same_number_are_not_compiled_again():
    evaluate(push_right, THRESHOLDS)
    before = cache_size(evaluate_returns)
    evaluate(push_right, THRESHOLDS + 1, key=jax.random.key(5))
    assert cache_size(evaluate_returns) == before


@pytest.mark.parametrize("threshold", [9.0, -9.0])
def test_an_episode_without_end_counts_up_to_its_limit(threshold):
    returns, lengths = evaluate(push_right, jnp.full(4, threshold), params=line_params([0.0] * 4))
    np.testing.assert_array_equal(lengths, ENV.spec.max_steps)
    push = 0.2 if threshold > 0 else 0.0
    np.testing.assert_allclose(returns, 9 * (0.5 * OBS[:, 0] + push), rtol=1e-5, atol=1e-5)


def test_an_episode_that_leaves_the_finite_numbers_says_after_how_many_steps():
    def reward(obs, action, next_obs):
        return jnp.where(next_obs[0] < 1000.0, next_obs[0], jnp.inf)

    env = line_env(max_steps=9)._replace(reward=reward, terminated=lambda obs: jnp.asarray(False))
    params = line_params(np.float32([400.0]))
    lane = jnp.zeros(1, jnp.int32)
    found = evaluate_returns(
        jax.random.key(0),
        env,
        params,
        push_right,
        jnp.asarray([1e9]),
        None,
        lane,
        jnp.zeros((1, 2)),
    )
    # 400, 800, and the third step is past the end of the numbers.
    assert not np.isfinite(found[0][0])
    assert found[1][0] == 2
