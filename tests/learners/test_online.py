"""The online loop: who stops when, and with which parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.base import Env, EnvSpec
from persim_jax.learners.base import Learner, Schedule
from persim_jax.learners.dqn import DQNConfig, make_dqn
from persim_jax.learners.online import Kept, OnlineConfig, keep, train_online

# One step, whose reward is the action times the agent's physics: with the counting learner below
# the greedy return after n gradient steps is n times the physics, exactly.
COUNTING_ENV = Env(
    spec=EnvSpec(
        name="counting",
        obs_names=("gain",),
        covariate_names=("gain",),
        num_actions=0,
        action_low=(-1.0,),
        action_high=(1.0,),
        max_steps=5,
        dt=1.0,
    ),
    params=lambda covariates: covariates[0],
    reset=lambda key, params: jnp.zeros(()),
    step=lambda key, state, action, params: state,
    observe=lambda state, params: params[None],
    state_from_obs=lambda obs, params: jnp.zeros(()),
    reward=lambda obs, action, next_obs: obs[0] * action[0],
    terminated=lambda obs: jnp.ones((), bool),
    planning_bonus=lambda obs: jnp.zeros(()),
)
COUNTING = Learner(
    init=lambda key: jnp.zeros(()),
    update=lambda key, count, batch: (count + 1.0, {}),
    act=lambda key, count, obs, explore: count[None] + 100.0 * explore,
)
# Two environments, five rounds of two steps each, then an evaluation; gradient steps from the
# second step of the environments on: after n evaluations 5 n - 1 gradient steps, two each.
COUNTING_CONFIG = OnlineConfig(
    num_envs=2,
    evaluate_every=10,
    budget=60,
    capacity=8,
    warm_up=4,
    batch_size=2,
    updates=2,
    explore=Schedule(1.0, 1.0, 0),
    episodes=3,
)


def count_after(evaluations):
    return 2.0 * (5 * evaluations - 1)


def train_counting(gains, targets, config=COUNTING_CONFIG, report=None):
    keys = jax.random.split(jax.random.key(0), len(gains))
    gains, targets = jnp.asarray(gains), jnp.asarray(targets)
    return train_online(COUNTING_ENV, COUNTING, config, keys, gains, targets, report)


def test_each_agent_keeps_exactly_the_parameters_that_met_its_target():
    # At or above: the second target is met to the digit.
    kept = train_counting([1.0, 2.0, 0.5], [10.0, 2.0 * count_after(3), 0.5 * count_after(4) - 0.1])
    evaluations = np.array([2, 3, 4])
    np.testing.assert_array_equal(kept.reached, True)
    np.testing.assert_array_equal(kept.steps, 10 * evaluations)
    np.testing.assert_array_equal(kept.learner, count_after(evaluations))
    np.testing.assert_array_equal(kept.mean_return, [1, 2, 0.5] * count_after(evaluations))


def test_training_ends_when_all_have_reached_their_targets():
    heard = []
    train_counting([1.0, 1.0], [0.0, 20.0], report=heard.append)
    assert [progress.steps for progress in heard] == [10, 20, 30]
    np.testing.assert_array_equal(heard[0].kept.reached, [True, False])
    # The first agent goes on learning beside the second, but what it keeps stays.
    np.testing.assert_array_equal(heard[2].mean_returns, count_after(3))
    np.testing.assert_array_equal(heard[2].kept.mean_return, [count_after(1), count_after(3)])


def test_an_agent_that_is_done_may_diverge_beside_one_that_is_not():
    # Past 20 gradient steps, which is after two evaluations, the first agent is no number any more.
    def update(key, count, batch):
        lost = (batch.obs.mean() < 1.5) & (count >= 20.0)
        return jnp.where(lost, jnp.nan, count + 1.0), {}

    learner, keys = COUNTING._replace(update=update), jax.random.split(jax.random.key(0), 2)
    gains, last = jnp.asarray([1.0, 2.0]), 2.0 * count_after(4)
    train = functools.partial(train_online, COUNTING_ENV, learner, COUNTING_CONFIG, keys, gains)
    kept = train(jnp.asarray([count_after(1), last]))
    np.testing.assert_array_equal(kept.reached, True)
    np.testing.assert_array_equal(kept.learner, count_after(np.array([1, 4])))
    with pytest.raises(FloatingPointError, match=r"agent\(s\) \[0\] left .* steps 20 and 30"):
        train(jnp.asarray([1000.0, last]))


def test_an_agent_that_never_reaches_its_target_keeps_its_best():
    # The second agent gets worse with every gradient step.
    kept = train_counting([1.0, -1.0], [1000.0, 1000.0])
    np.testing.assert_array_equal(kept.reached, False)
    np.testing.assert_array_equal(kept.steps, [60, 10])
    np.testing.assert_array_equal(kept.learner, [count_after(6), count_after(1)])


def test_a_learner_that_has_not_learned_yet_is_not_judged():
    config = OnlineConfig(
        num_envs=2, evaluate_every=10, budget=40, capacity=8, warm_up=20, batch_size=2, episodes=3
    )
    kept = train_counting([1.0], [-5.0], config)
    np.testing.assert_array_equal(kept.steps, 30)
    np.testing.assert_array_equal(kept.learner, 6.0)


def test_only_the_first_round_is_traced():
    traces, heard = [], []

    def update(key, count, batch):
        traces.append(1)
        return COUNTING.update(key, count, batch)

    learner, keys = COUNTING._replace(update=update), jax.random.split(jax.random.key(0), 2)

    def report(progress):
        heard.append(len(traces))

    target = jnp.full(2, jnp.inf)
    train_online(COUNTING_ENV, learner, COUNTING_CONFIG, keys, jnp.ones(2), target, report)
    assert heard[0] > 0
    assert heard == [heard[0]] * 6


def test_keep_never_takes_a_worse_one():
    old = Kept(
        learner=jnp.array(7.0),
        mean_return=jnp.array(3.0),
        steps=jnp.array(10),
        reached=jnp.array(False),
    )
    new = keep(old, jnp.array(8.0), jnp.array(2.0), jnp.array(20), jnp.array(5.0))
    jax.tree.map(np.testing.assert_array_equal, new, old)
    new = keep(old, jnp.array(8.0), jnp.array(jnp.nan), jnp.array(20), jnp.array(5.0))
    jax.tree.map(np.testing.assert_array_equal, new, old)


def assert_side_by_side_is_one_at_a_time(env, learner, config, keys, params, **tolerance):
    num_agents = keys.shape[0]
    together = train_online(env, learner, config, keys, params, jnp.full(num_agents, jnp.inf))
    for agent in range(num_agents):
        take = functools.partial(jax.tree.map, lambda leaf, own=agent: leaf[own : own + 1])
        alone = train_online(env, learner, config, take(keys), take(params), jnp.full(1, jnp.inf))
        compare = functools.partial(np.testing.assert_allclose, **tolerance)
        jax.tree.map(compare, alone, take(together))


def test_agents_side_by_side_are_agents_one_at_a_time():
    # Every source of randomness ends up in the parameters: resets, held actions, minibatches.
    env = COUNTING_ENV._replace(
        reset=lambda key, params: jax.random.normal(key),
        observe=lambda state, params: (state * params)[None],
    )

    def update(key, total, batch):
        return total + batch.obs.mean() + batch.actions.mean() + jax.random.normal(key), {}

    learner = Learner(init=jax.random.normal, update=update, act=COUNTING.act)
    config = dataclasses.replace(COUNTING_CONFIG, hold=Schedule(0.5, 0.5, 0), max_hold=3)
    keys = jax.random.split(jax.random.key(3), 3)
    gains = jnp.array([1.0, 2.0, 3.0])
    assert_side_by_side_is_one_at_a_time(env, learner, config, keys, gains, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.optimizes
def test_dqns_side_by_side_are_dqns_one_at_a_time():
    env = envs.make("cart_pole")
    config = OnlineConfig(
        num_envs=4,
        evaluate_every=200,
        budget=400,
        capacity=200,
        warm_up=40,
        batch_size=16,
        hold=Schedule(1.0, 0.1, 200),
        max_hold=3,
        episodes=4,
    )
    params = jax.vmap(env.params)(jnp.array([[6.0, 0.5], [10.0, 0.3], [14.0, 0.7]]))
    learner = make_dqn(env.spec, DQNConfig(hidden=(8,), target_rate=0.1, double=True))
    keys = jax.random.split(jax.random.key(3), 3)
    assert_side_by_side_is_one_at_a_time(env, learner, config, keys, params, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 8, "evaluate_every": 100}, "evaluate_every is 100.*multiple of the 8"),
        ({"evaluate_every": 0}, "evaluate_every is 0: make it a positive multiple"),
        ({"num_envs": 8, "warm_up": 7}, "warm_up is 7.*empty before the first 8"),
    ],
)
def test_settings_that_would_be_rounded_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OnlineConfig(**settings)


def test_a_budget_that_ends_before_anything_is_learned_is_refused():
    # Evaluations at 10 and 20; the first gradient step comes with step 20, and is judged after it.
    config = dataclasses.replace(COUNTING_CONFIG, budget=15, warm_up=20)
    with pytest.raises(ValueError, match=r"budget is 15 and warm_up 20: .* at step 20, .* nothing"):
        train_counting([1.0], [-5.0], config)
