"""Episodes: the compiled rollout against a Python loop, and what holds around an episode's end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.collect import memoryless
from persim_jax.models.true_env import true_dynamics
from persim_jax.rollout import Policy, unroll
from tests.toys import END, gains_model, line_env, line_params, tilted_act

ENV = line_env()
STEPS = ENV.spec.max_steps
NUM_LANES = 24
FIELDS = ("obs", "actions", "rewards", "terminated", "mask")


@functools.partial(jax.jit, static_argnames=("max_steps", "early_exit"))
def episodes(max_steps=STEPS, early_exit=False):
    """Noisy episodes, lane after lane; about half of them end before the limit."""
    params = line_params([0.7], noise=0.2)
    model = true_dynamics(ENV)
    bound = model.bind(params, jnp.asarray(0), None)
    policy = memoryless(tilted_act, jnp.asarray(3.0))

    def one(lane):
        obs = jnp.stack([lane / NUM_LANES, jnp.zeros(())])
        key = jax.random.fold_in(jax.random.key(5), lane.astype(jnp.int32))
        return unroll(key, model, bound, ENV, policy, obs, max_steps, early_exit)

    return jax.lax.map(one, jnp.arange(NUM_LANES, dtype=jnp.float32))


def python_loop(lane):
    """One of the same episodes, with nothing but the environment and the policy."""
    params = {"gain": jnp.asarray(0.7), "noise": jnp.asarray(0.2)}
    obs = jnp.asarray([lane / NUM_LANES, 0.0])
    key = jax.random.fold_in(jax.random.key(5), lane)
    rows = []
    for t in range(STEPS):
        key_act, key_step = jax.random.split(jax.random.fold_in(key, t))
        action = tilted_act(key_act, jnp.asarray(3.0), obs)
        next_obs = ENV.step(key_step, obs, action, params)
        ended = bool(ENV.terminated(next_obs))
        rows.append((next_obs, int(action), float(ENV.reward(obs, action, next_obs)), ended))
        obs = next_obs
        if ended:
            break
    return [np.asarray(column) for column in zip(*rows, strict=True)]


def test_some_episodes_end_early_and_some_do_not():
    lengths = np.asarray(episodes().mask.sum(axis=1))
    assert (lengths < STEPS).sum() >= 5
    assert (lengths == STEPS).sum() >= 5
    assert len(set(lengths.tolist())) >= 4


@pytest.mark.parametrize("early_exit", [False, True])
def test_a_rollout_is_a_python_loop(early_exit):
    found = jax.tree.map(np.asarray, episodes(early_exit=early_exit))
    lengths = found.mask.sum(axis=1)
    for lane in (int(lengths.argmin()), int(lengths.argmax()), 7):
        next_obs, actions, rewards, terminated = python_loop(lane)
        steps = len(actions)
        assert steps == lengths[lane]
        np.testing.assert_allclose(found.obs[lane, 1 : steps + 1], next_obs, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.actions[lane, :steps], actions)
        np.testing.assert_allclose(found.rewards[lane, :steps], rewards, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found.terminated[lane, :steps], terminated)


def test_stopping_early_changes_no_bit():
    whole, stopped = episodes(), episodes(early_exit=True)
    for field in FIELDS:
        np.testing.assert_array_equal(whole[field], stopped[field], err_msg=field)
        assert whole[field].dtype == stopped[field].dtype


def test_nothing_counts_after_the_end():
    found = jax.tree.map(np.asarray, episodes())
    for lane in range(NUM_LANES):
        steps = found.mask[lane].sum()
        np.testing.assert_array_equal(found.mask[lane], np.arange(STEPS) < steps)
        np.testing.assert_array_equal(found.rewards[lane, steps:], 0.0)
        np.testing.assert_array_equal(found.actions[lane, steps:], 0)
        rest = found.obs[lane, steps:]
        np.testing.assert_array_equal(rest, np.broadcast_to(rest[:1], rest.shape))
        # Termination is where the goal was passed, and nowhere else.
        expected = (found.obs[lane, 1:, 0] >= END) & found.mask[lane]
        np.testing.assert_array_equal(found.terminated[lane], expected)


@pytest.mark.parametrize("early_exit", [False, True])
def test_a_longer_episode_repeats_a_shorter_one(early_exit):
    short, long = episodes(4, early_exit), episodes(early_exit=early_exit)
    np.testing.assert_array_equal(short.obs, long.obs[:, :5])
    for field in FIELDS[1:]:
        np.testing.assert_array_equal(short[field], long[field][:, :4], err_msg=field)


def walk(model, bound, start, actions, early_exit=False):
    """Follows given actions by a policy whose state counts the steps."""
    table = jnp.asarray(actions, jnp.int32)
    policy = Policy(
        init=lambda: jnp.zeros((), jnp.int32), act=lambda key, t, obs: (table[t], t + 1)
    )
    key, obs = jax.random.key(0), jnp.asarray(start)
    return unroll(key, model, bound, ENV, policy, obs, len(actions), early_exit)


@pytest.mark.parametrize("early_exit", [False, True])
def test_truncation_is_no_termination_and_the_last_step_may_terminate(early_exit):
    model, bound = true_dynamics(ENV), line_params(1.0)
    short = walk(model, bound, [0.0, 0.0], [2], early_exit)
    assert bool(short.mask.all())
    assert not bool(short.terminated.any())
    full = walk(model, bound, [0.0, 0.0], [2, 2], early_exit)
    np.testing.assert_array_equal(full.terminated, [False, True])
    np.testing.assert_array_equal(full.mask, [True, True])
    # next - 0.5 obs + 0.1 action: 1 - 0 + 0.2 and 2 - 0.5 + 0.2.
    np.testing.assert_allclose(full.rewards, [1.2, 1.7], rtol=1e-6)


def test_the_policy_sees_the_mean_of_members_that_follow_their_own_states():
    # Gains -1 and 4: positions -1, 4 and then -2, 8; their means 1.5 and 3 end the episode there.
    found = walk(gains_model(2), jnp.asarray([-1.0, 4.0]), [0.0, 0.0], [2, 2, 2])
    np.testing.assert_allclose(found.obs, [[0, 0], [1.5, 1], [3, 2], [3, 2]])
    np.testing.assert_array_equal(found.terminated, [False, True, False])
    np.testing.assert_allclose(found.rewards, [1.7, 2.45, 0.0], rtol=1e-6)


def test_the_state_of_the_policy_goes_from_step_to_step():
    found = walk(true_dynamics(ENV), line_params(0.25), [0.0, 0.0], [2, 1, 0, 2])
    np.testing.assert_array_equal(found.actions, [2, 1, 0, 2])
    np.testing.assert_allclose(found.obs[:, 0], [0, 0.25, 0.25, 0, 0.25])
