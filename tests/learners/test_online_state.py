"""The online loop's state: agents one after the other, a killed training, numbers that overflow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import checkpoints
from persim_jax.learners.base import Learner, Schedule
from persim_jax.learners.online import OnlineConfig, train_online
from persim_jax.learners.td3 import TD3Config, make_td3
from tests.learners import probes

# Counts its gradient steps; the greedy action is the count, pushed by exploration.
COUNTING = Learner(
    init=lambda key: jnp.zeros(()),
    update=lambda key, count, batch: (count + 1.0, {}),
    act=lambda key, count, obs, explore: count[None] + explore,
)
# Random sums: every source of randomness ends up in the learner, and every row of the buffer.
DRIFTING = Learner(
    init=jax.random.normal,
    update=lambda key, total, batch: (
        total + batch.obs.mean() + batch.actions.mean() + jax.random.normal(key),
        {},
    ),
    act=COUNTING.act,
)
CONFIG = OnlineConfig(
    num_envs=2,
    evaluate_every=10,
    budget=60,
    capacity=16,
    warm_up=4,
    batch_size=4,
    updates=2,
    explore=Schedule(0.1, 0.1, 0),
    hold=Schedule(1.0, 0.2, 30),
    episodes=3,
)
SEQUENTIAL = dataclasses.replace(CONFIG, sequential=True)
# Returns of the probes 0 to 2 are 1, around 0, and 1.
PROBES = jnp.arange(3)
NEVER = jnp.full(3, jnp.inf)


def train(learner, config, targets=NEVER, **hooks):
    keys = jax.random.split(jax.random.key(0), 3)
    return train_online(probes.make(True), learner, config, keys, PROBES, targets, **hooks)


def host(tree):
    """A copy that stays when the memory of the original is used again; keys as their data."""
    plain = lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf  # noqa: E731
    return jax.tree.map(lambda leaf: np.array(plain(leaf)), tree)


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def assert_same(first, second, **tolerance):
    compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: compare(a, b, **tolerance), host(first), host(second))


def assert_sequential_is_side_by_side(learner, **tolerance):
    states = {config: [] for config in (CONFIG, SEQUENTIAL)}
    for config, seen in states.items():
        train(learner, config, save=lambda state, seen=seen: seen.append(host(state)))
    for one, other in zip(*states.values(), strict=True):
        assert_same(one, other, **tolerance)


def test_one_after_the_other_is_side_by_side():
    assert_sequential_is_side_by_side(DRIFTING, rtol=1e-5, atol=1e-5)


def assert_turns_are_agents_alone(learner, config):
    env, keys, heard = probes.make(True), jax.random.split(jax.random.key(0), 3), []
    train(learner, config, save=lambda state: heard.append(host(state)))
    for agent in range(3):
        own, alone = slice(agent, agent + 1), []
        train_online(
            env,
            learner,
            config,
            keys[own],
            PROBES[own],
            NEVER[own],
            save=lambda state, alone=alone: alone.append(host(state)),
        )
        for one, together in zip(alone, heard, strict=True):
            of_agent = jax.tree.map(lambda leaf, own=own: leaf[own], together[1:])
            jax.tree.map(np.testing.assert_array_equal, one[1:], of_agent)


def test_an_agent_that_takes_turns_is_one_that_is_trained_alone_bit_for_bit():
    # So that agents may be trained in several processes and put together afterwards.
    assert_turns_are_agents_alone(DRIFTING, SEQUENTIAL)


TD3 = make_td3(probes.make(True).spec, TD3Config(hidden=(8,), learning_rate=1e-2))


@pytest.mark.slow
@pytest.mark.optimizes
def test_td3s_one_after_the_other_are_td3s_side_by_side():
    assert_sequential_is_side_by_side(TD3, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.optimizes
def test_td3s_that_take_turns_are_td3s_alone_bit_for_bit():
    assert_turns_are_agents_alone(TD3, SEQUENTIAL)


def test_an_agent_that_reached_its_target_costs_nothing_where_agents_take_turns():
    seen, heard = [], []
    # The first agent reaches 1 at once, the third as well, the second never.
    targets = jnp.array([1.0, jnp.inf, 0.5])
    save = lambda state: seen.append(host(state))  # noqa: E731
    train(COUNTING, SEQUENTIAL, targets, save=save, report=heard.append)
    assert [int(state.steps) for state in seen] == [10, 20, 30, 40, 50, 60]
    np.testing.assert_array_equal(seen[-1].kept.reached, [True, False, True])
    frozen = [jax.tree.map(lambda leaf: leaf[[0, 2]], state.lanes) for state in seen]
    for state in frozen[1:]:
        assert_same(frozen[0], state)
    np.testing.assert_array_equal(seen[-1].lanes.learner, [8.0, 58.0, 8.0])
    # What is said of a frozen agent is what it reached.
    np.testing.assert_array_equal(heard[-1].mean_returns[jnp.array([0, 2])], [1.0, 1.0])


both_ways = pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIG, id="side by side", marks=pytest.mark.slow),
        pytest.param(SEQUENTIAL, id="in turns"),
    ],
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def assert_resumes(learner, config, folder, targets=NEVER):
    """Kills a training after its third evaluation, whose checkpoint is whole, and goes on."""
    unbroken, states = [], []
    kept = train(learner, config, targets, save=lambda state: unbroken.append(host(state)))

    def save(state):
        checkpoints.save(folder, int(state.steps), state)
        if int(state.steps) == 30:
            raise Killed

    with pytest.raises(Killed):
        train(learner, config, targets, save=save)
    assert checkpoints.latest_step(folder) == 30
    resumed = train(
        learner,
        config,
        targets,
        restore=lambda state: checkpoints.restore(folder, 30, state),
        save=lambda state: states.append(host(state)),
    )
    assert_same(resumed, kept)
    assert [int(state.steps) for state in states] == [40, 50, 60]
    for one, other in zip(states, unbroken[3:], strict=True):
        assert_same(one, other)


@both_ways
def test_a_resumed_training_is_an_unbroken_one_bit_for_bit(config, tmp_path):
    # An agent that was done before the kill stays as it was.
    assert_resumes(DRIFTING, config, tmp_path, jnp.array([1.0, jnp.inf, jnp.inf]))


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_resumed_td3_is_an_unbroken_one_bit_for_bit(tmp_path):
    assert_resumes(TD3, SEQUENTIAL, tmp_path)


def test_a_training_that_was_done_when_it_was_killed_is_not_continued(tmp_path):
    targets, steps = jnp.full(3, -10.0), []

    def save(state):
        checkpoints.save(tmp_path, int(state.steps), state)
        steps.append(int(state.steps))

    kept = train(COUNTING, CONFIG, targets, save=save)
    restore = lambda state: checkpoints.restore(tmp_path, 10, state)  # noqa: E731
    again = train(COUNTING, CONFIG, targets, restore=restore, save=save)
    assert steps == [10]
    assert_same(again, kept)


@both_ways
def test_numbers_that_are_not_finite_stop_training_by_name_after_the_last_good_state(config):
    # Probe 2 shows its number in the observation: only there the learner overflows, at step 31.
    def update(key, count, batch):
        overflows = (batch.obs[0, 2] == 2.0) & (count >= 28.0)
        return count + jnp.where(overflows, jnp.inf, 1.0), {}

    seen = []
    with pytest.raises(
        FloatingPointError, match=r"agent\(s\) \[2\] left the finite .* steps 30 and 40: lower the"
    ):
        train(COUNTING._replace(update=update), config, save=lambda state: seen.append(host(state)))
    assert [int(state.steps) for state in seen] == [10, 20, 30]
    assert np.isfinite(seen[-1].lanes.learner).all()


@pytest.mark.slow
def test_returns_that_are_not_finite_stop_training_too():
    # An action that is no number makes rewards that are none, and leaves the learner as it was.
    def act(key, count, obs, explore):
        return jnp.where((obs[2] == 0.0) & (count > 20.0), jnp.nan, 0.0)[None]

    env = probes.make(True)
    env = env._replace(reward=lambda obs, action, next_obs: action[0])
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(FloatingPointError, match=r"agent\(s\) \[0\] .* steps 20 and 30"):
        train_online(env, COUNTING._replace(act=act), CONFIG, keys, PROBES, NEVER)
