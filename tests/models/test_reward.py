"""A learned reward against rewards that are known, and its word about its own error."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.reward import RewardConfig, fit_reward
from persim_jax.tasks import DataSpec, make_task
from persim_jax.types import Transitions

SPEC = DataSpec("toy", ("near", "far"), 0, (-1.0,), (1.0,), 10)
SMALL = RewardConfig(num_random=64)


def known(obs, action, next_obs):
    """Nearness of a coordinate to 1, less the square of the action: quadratic, in other units."""
    return 40.0 - 10.0 * jnp.square(next_obs[0] - 1.0) - 3.0 * jnp.square(action[0])


def transitions(seed, count=600, agents=12, reward=known):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count, 2)).astype(np.float32) * np.float32([1.0, 50.0])
    actions = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    next_obs = obs + 0.1 * actions * np.float32([[1.0, 20.0]])
    return Transitions(
        agent=np.arange(count, dtype=np.int32) % agents,
        obs=obs,
        actions=actions,
        rewards=np.asarray(jax.vmap(reward)(obs, actions, next_obs)),
        next_obs=next_obs,
        terminated=np.zeros(count, bool),
    )


def error_of(learned, data):
    found = jax.jit(jax.vmap(learned))(data.obs, jnp.asarray(data.actions), data.next_obs)
    return float(np.sqrt(np.mean(np.square(np.asarray(found) - data.rewards))))


@functools.cache
def fitted():
    return fit_reward(jax.random.key(0), transitions(0), 0, SMALL)


def test_a_quadratic_reward_is_found():
    learned, fresh = fitted(), transitions(1, count=4000)
    assert error_of(learned, fresh) < 0.001 * fresh.rewards.std()
    assert learned.r2 > 0.99999


def with_a_jump(obs, action, next_obs):
    return known(obs, action, next_obs) + jnp.where(next_obs[0] > 0.5, 30.0, 0.0)


def test_the_error_of_a_reward_that_jumps_is_what_fresh_data_say():
    data = transitions(0, count=2000, reward=with_a_jump)
    learned = fit_reward(jax.random.key(0), data, 0, SMALL)
    fresh = transitions(1, count=4000, reward=with_a_jump)
    error = error_of(learned, fresh)
    assert error > 1.0
    assert learned.rmse == pytest.approx(error, rel=0.3)
    assert learned.r2 == pytest.approx(1 - error**2 / fresh.rewards.var(), abs=0.02)
    assert f"{learned.rmse:.3g}" in str(learned)


def test_two_of_twelve_agents_are_held_out_whole_and_their_error_is_the_one_told():
    data = transitions(0)
    assert fitted().num_held_out == 100  # a fifth of twelve agents, rounded, with 50 rows each
    # Noise on one agent's rewards is the error's where this agent is held out: then half of the
    # held-out rows are off by 1000, whose root mean square is 707.
    errors = []
    for agent in range(12):
        rewards = np.where(data.agent == agent, data.rewards + 1000.0, data.rewards)
        other = data.replace(rewards=rewards.astype(np.float32))
        errors.append(fit_reward(jax.random.key(0), other, 0, SMALL).rmse)
    assert sum(600 < error < 800 for error in errors) == 2


def test_one_long_record_among_short_ones_is_split_by_transitions():
    # Of 1000 rows that are drawn the four short records have one or none.
    agents = np.repeat(np.arange(5, dtype=np.int32), [20_000, 5, 5, 5, 5])
    data = transitions(0, count=20_020).replace(agent=agents)
    for seed in range(3):
        learned = fit_reward(
            jax.random.key(seed), data, 0, RewardConfig(num_random=16, num_transitions=1000)
        )
        # Rows are drawn from all that are dealt out, so their number is near a fifth of 1000.
        assert 150 < learned.num_held_out < 250
        assert learned.r2 > 0.99


def test_noise_is_not_explained():
    rng = np.random.default_rng(3)
    data = transitions(0, count=1000).replace(rewards=rng.normal(size=1000).astype(np.float32))
    learned = fit_reward(jax.random.key(0), data, 0, SMALL)
    assert learned.r2 < 0.1
    assert learned.rmse > 0.8


def test_discrete_actions_have_their_own_price_also_from_one_agent():
    data = transitions(0, count=300, agents=1)
    actions = np.arange(300, dtype=np.int32) % 3
    prices = np.float32([0.0, -2.0, 5.0])
    data = data.replace(actions=actions, rewards=prices[actions] + data.obs[:, 0])
    learned = fit_reward(jax.random.key(0), data, 3, SMALL)
    price_of = jax.jit(learned)
    for action, price in enumerate(prices):
        found = price_of(jnp.float32([0.5, 0.0]), jnp.asarray(action), jnp.float32([0.5, 0.0]))
        assert float(found) == pytest.approx(price + 0.5, abs=0.05)
    assert learned.num_held_out == 60


def test_what_cannot_be_learned_is_refused():
    data = transitions(0, count=20)
    with pytest.raises(ValueError, match=r"all 20 rewards in the data are 7\.0: .* give a reward"):
        fit_reward(jax.random.key(0), data.replace(rewards=np.full(20, 7.0, np.float32)), 0)
    with pytest.raises(ValueError, match="there are 5 transitions"):
        fit_reward(jax.random.key(0), transitions(0, count=5), 0)
    with pytest.raises(ValueError, match=r"held_out is 0\.5"):
        RewardConfig(held_out=0.5)
    with pytest.raises(ValueError, match="num_random -1"):
        RewardConfig(num_random=-1)


def test_a_reward_of_single_moments_is_none_of_windows():
    names = (*SPEC.obs_names, "near[-1]", "far[-1]", "u[-1]")
    windows = dataclasses.replace(SPEC, obs_names=names)
    with pytest.raises(ValueError, match=r"of 2 numbers and meets one of shape \(5,\):.*with_lags"):
        make_task(windows, fitted())


def test_it_promises_no_more_than_the_data_and_is_a_reward_function_for_jit():
    learned, data = fitted(), transitions(0)
    far = jnp.float32([1e3, 1e3])
    for obs in (far, -far):
        found = jax.jit(learned)(obs, jnp.zeros(1), obs)
        assert data.rewards.min() <= found <= data.rewards.max()
    assert hash(learned) == hash(learned)
    assert make_task(SPEC, learned) == make_task(SPEC, learned)
