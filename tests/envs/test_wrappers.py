"""Auto-reset against a loop in Python, on a counter whose every number is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import base, wrappers


@chex.dataclass(frozen=True)
class CounterState:
    count: jax.Array
    start: jax.Array


def make_counter(max_steps):
    """Counts up by the action from a random start in 0, 1, 2; ends at 10 or more."""
    spec = base.EnvSpec(
        name="counter",
        obs_names=("count", "start"),
        covariate_names=("none",),
        num_actions=3,
        action_low=(),
        action_high=(),
        max_steps=max_steps,
        dt=1.0,
    )

    def reset(key, params):
        start = jax.random.randint(key, (), 0, 3).astype(jnp.float32)
        return CounterState(count=start, start=start)

    return base.Env(
        spec=spec,
        params=lambda covariates: covariates,
        reset=reset,
        step=lambda key, state, action, params: state.replace(
            count=state.count + action.astype(jnp.float32)
        ),
        observe=lambda state, params: jnp.stack([state.count, state.start]),
        state_from_obs=lambda obs, params: CounterState(count=obs[0], start=obs[1]),
        reward=lambda obs, action, next_obs: 10.0 * next_obs[0] + obs[0],
        terminated=lambda obs: obs[0] >= 10.0,
        planning_bonus=lambda obs: jnp.zeros(()),
    )


def unroll(env, actions, seed=0):
    """Follows `actions` and returns the time steps with the observation after each."""
    params = jnp.zeros(1)
    keys = jax.random.split(jax.random.key(seed), len(actions) + 1)

    def body(state, inputs):
        state, timestep = env.step(*inputs[:1], state, inputs[1], params)
        return state, (timestep, env.observe(state, params))

    state = env.reset(keys[0], params)
    return jax.lax.scan(body, state, (keys[1:], jnp.asarray(actions, jnp.int32)))[1]


@pytest.mark.parametrize("max_steps", [4, 100])
def test_auto_reset_equals_a_loop(max_steps):
    actions = np.random.default_rng(0).integers(3, size=200)
    steps, obs_after = unroll(wrappers.auto_reset(make_counter(max_steps)), actions)
    count, length, total = float(steps.obs[0, 0]), 0, 0.0
    ends = {"terminated": 0, "truncated": 0}
    for t, action in enumerate(actions):
        np.testing.assert_array_equal(steps.obs[t, 0], count)
        next_count, length = count + action, length + 1
        reward = 10 * next_count + count
        total += reward
        terminated = next_count >= 10
        truncated = not terminated and length == max_steps
        assert steps.next_obs[t, 0] == next_count
        assert steps.reward[t] == reward
        assert (steps.terminated[t], steps.truncated[t]) == (terminated, truncated)
        assert (steps.episode_length[t], steps.episode_return[t]) == (length, total)
        ends["terminated"] += terminated
        ends["truncated"] += truncated
        if terminated or truncated:
            count, length, total = float(obs_after[t, 0]), 0, 0.0
            assert count == obs_after[t, 1]
        else:
            count = next_count
            assert obs_after[t, 0] == count
    # A counter that ends by its limit of four steps of at most two never counts from 2 to 10 ...
    assert ends["truncated"] > 20 if max_steps == 4 else ends["terminated"] > 10


def test_each_reset_draws_anew():
    steps, obs_after = unroll(wrappers.auto_reset(make_counter(1)), [0] * 60)
    assert np.all(steps.truncated)
    assert set(np.unique(obs_after[:, 1])) == {0.0, 1.0, 2.0}


def test_reaching_the_end_at_the_limit_is_a_termination():
    env = wrappers.auto_reset(make_counter(1))
    params = jnp.zeros(1)
    state = env.reset(jax.random.key(0), params)
    near = state.replace(env_state=state.env_state.replace(count=jnp.asarray(9.0)))
    _, timestep = env.step(jax.random.key(1), near, jnp.asarray(1), params)
    assert timestep.terminated
    assert not timestep.truncated


@pytest.mark.parametrize("name", ["mountain_car", "cart_pole"])
def test_true_environments_under_vmap_and_scan(name):
    env = wrappers.auto_reset(envs.make(name))
    size = len(env.spec.covariate_names)
    params = jax.vmap(envs.make(name).params)(jnp.full((3, size), 0.5))
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3), params)

    @jax.jit
    def run(state):
        def body(state, key):
            keys = jax.random.split(key, 3)
            return jax.vmap(env.step)(keys, state, jnp.ones(3, jnp.int32), params)

        return jax.lax.scan(body, state, jax.random.split(jax.random.key(1), env.spec.max_steps))

    final, steps = run(state)
    ended = steps.terminated | steps.truncated
    # Within a time limit every lane ends at least once, and lengths count up from one to the end.
    assert np.all(np.any(ended, axis=0))
    lengths = np.asarray(steps.episode_length)
    np.testing.assert_array_equal(lengths[1:], np.where(ended[:-1], 1, lengths[:-1] + 1))
    np.testing.assert_array_equal(final.episode_length, np.where(ended[-1], 0, lengths[-1]))
