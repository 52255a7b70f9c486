"""One step of one environment, held actions, and the returns of whole episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Env, EnvSpec
from persim_jax.learners.base import Learner
from persim_jax.learners.worlds import World, episode_returns, fresh, hold_random, interact

# A clock: the state is the time, an episode ends when it reaches the physics, reward is the action.
SPEC = EnvSpec(
    name="clock",
    obs_names=("time", "end"),
    covariate_names=("end",),
    num_actions=5,
    action_low=(),
    action_high=(),
    max_steps=6,
    dt=1.0,
)
CLOCK = Env(
    spec=SPEC,
    params=lambda covariates: covariates[0],
    reset=lambda key, params: jnp.zeros(()),
    step=lambda key, state, action, params: state + 1.0,
    observe=lambda state, params: jnp.stack([state, params]),
    state_from_obs=lambda obs, params: obs[0],
    reward=lambda obs, action, next_obs: action.astype(jnp.float32),
    terminated=lambda obs: obs[0] >= obs[1],
    planning_bonus=lambda obs: jnp.zeros(()),
)
ALWAYS_TWO = Learner(
    init=lambda key: (),
    update=lambda key, state, batch: (state, {}),
    act=lambda key, state, obs, explore: jnp.full((), 2, jnp.int32),
)


def play(key, end, num_steps, hold=0.0, max_hold=1, max_steps=6):
    """Steps one environment; returns the rows and the worlds after each step."""
    params = jnp.asarray(end)
    start_key, steps_key = jax.random.split(key)

    def one(world, key):
        after, row = interact(
            CLOCK, ALWAYS_TWO, max_hold, max_steps, key, (), params, world, jnp.zeros(()),
            jnp.asarray(hold),
        )  # fmt: skip
        return after, (row, after)

    keys = jax.random.split(steps_key, num_steps)
    return jax.lax.scan(one, fresh(CLOCK, start_key, params), keys)[1]


def test_a_termination_is_stored_and_starts_a_new_episode(key):
    rows, worlds = play(key, end=3.0, num_steps=7)
    np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 0, 1, 2, 0])
    # The next observation is the one that ended the episode, not that of the new one.
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 3, 1, 2, 3, 1])
    np.testing.assert_array_equal(rows.terminated, [0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(worlds.age, [1, 2, 0, 1, 2, 0, 1])


def test_a_time_limit_starts_a_new_episode_and_is_no_termination(key):
    rows, worlds = play(key, end=100.0, num_steps=8)
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 3, 4, 5, 6, 1, 2])
    np.testing.assert_array_equal(rows.terminated, np.zeros(8))
    np.testing.assert_array_equal(worlds.age, [1, 2, 3, 4, 5, 0, 1, 2])


def test_episodes_of_training_may_be_cut_shorter_and_that_is_no_termination(key):
    rows, worlds = play(key, end=100.0, num_steps=5, max_steps=2)
    np.testing.assert_array_equal(rows.next_obs[:, 0], [1, 2, 1, 2, 1])
    np.testing.assert_array_equal(rows.terminated, np.zeros(5))
    np.testing.assert_array_equal(worlds.age, [1, 0, 1, 0, 1])


def test_without_holding_the_learner_acts(key):
    rows, _ = play(key, end=100.0, num_steps=8)
    np.testing.assert_array_equal(rows.actions, 2)
    np.testing.assert_array_equal(rows.rewards, 2.0)


def test_a_held_action_is_played_until_it_runs_out(key):
    rows, worlds = play(key, end=100.0, num_steps=200, hold=1.0, max_hold=4)
    left, actions = np.asarray(worlds.left), np.asarray(rows.actions)
    ended = np.asarray(worlds.age) == 0
    assert set(actions.tolist()) == {0, 1, 2, 3, 4}
    assert left.max() == 3  # of at most four steps one is taken at once
    for t in range(199):
        if left[t] > 0:
            assert actions[t + 1] == actions[t]
            assert ended[t + 1] or left[t + 1] == left[t] - 1
    assert (left[ended] == 0).all()  # nothing is held into a new episode


@pytest.mark.parametrize("left", [0, 3])
def test_a_hold_begins_only_when_none_is_on(key, left):
    world = World(state=(), age=jnp.array(0), held=jnp.array(4), left=jnp.array(left))
    begin = jax.vmap(hold_random, (0, None, None, None, None, None))
    keys = jax.random.split(key, 3000)
    actions, held, after = begin(keys, SPEC, jnp.array(1), world, jnp.asarray(0.3), 2)
    if left:
        np.testing.assert_array_equal(actions, 4)
        np.testing.assert_array_equal(after, 2)
    else:
        # Of those that begin, 0.3, one in five draws the learner's own action.
        share = np.mean(np.asarray(actions) != 1)
        np.testing.assert_allclose(share, 0.3 * 0.8, atol=4.0 * np.sqrt(0.25 / 3000.0))
        assert set(np.asarray(after).tolist()) == {0, 1}
        np.testing.assert_array_equal(held[np.asarray(after) > 0], actions[np.asarray(after) > 0])


@pytest.mark.parametrize(("end", "steps"), [(1.0, 1), (4.0, 4), (6.0, 6), (50.0, 6)])
def test_returns_count_to_the_end_or_the_time_limit(key, end, steps):
    def act(key, params, obs):
        return params

    returns = episode_returns(CLOCK, act, key, jnp.array(3), jnp.asarray(end), 5)
    np.testing.assert_array_equal(returns, np.full(5, 3.0 * steps))


def test_episodes_that_end_early_earn_nothing_more(key):
    # The first observation is drawn, so that episodes differ in length: 3, 2 or 1 steps.
    env = CLOCK._replace(
        reset=lambda key, params: jax.random.randint(key, (), 0, 3).astype(jnp.float32)
    )

    def act(key, params, obs):
        return jnp.ones((), jnp.int32)

    returns = np.asarray(episode_returns(env, act, key, (), jnp.asarray(3.0), 300))
    assert set(returns.tolist()) == {1.0, 2.0, 3.0}
