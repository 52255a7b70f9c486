"""The offline loop: lanes that know nothing of each other, resumed runs, lanes that diverge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from persim_jax.learners.base import Learner
from persim_jax.learners.cql_discrete import DiscreteCQLConfig, make_discrete_cql
from persim_jax.learners.offline import GOOD, Lanes, OfflineConfig, train_offline
from persim_jax.types import Transitions

pytestmark = pytest.mark.optimizes

SPEC = envs.make("mountain_car").spec
LEARNER = make_discrete_cql(SPEC, DiscreteCQLConfig(hidden=(5,)))
CONFIG = OfflineConfig(num_steps=40, batch_size=4, chunk=10, width=1)
ROWS = 30
LANES = Lanes(jnp.array([0, 3, 13], jnp.int32), jnp.array([3, 10, 17], jnp.int32))
KEYS = jax.random.split(jax.random.key(5), 3)


def transitions(rows=ROWS):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return Transitions(
        agent=jnp.zeros(rows, jnp.int32),
        obs=draw(rows, 2),
        actions=jnp.asarray(rng.integers(0, 3, rows), jnp.int32),
        rewards=draw(rows),
        next_obs=draw(rows, 2),
        terminated=jnp.asarray(rng.random(rows) < 0.2),
    )


DATA = transitions()


def train(config=CONFIG, keys=KEYS, data=DATA, lanes=LANES, learner=LEARNER, **hooks):
    return train_offline(learner, config, keys, data, lanes, **hooks)


def same(first, second, rtol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, rtol), first, second)


def lane(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def counting():
    """A learner whose state is how often it has met each observation."""

    def update(key, state, batch):
        del key
        seen = state + jnp.zeros_like(state).at[batch.agent].add(1)
        return seen, {"loss": jnp.zeros(()), "q": jnp.zeros(())}

    return Learner(init=lambda key: jnp.zeros(ROWS, jnp.int32), update=update, act=None)


def test_a_lane_draws_its_own_rows_with_replacement_and_about_equally():
    data = DATA.replace(agent=jnp.arange(ROWS, dtype=jnp.int32))
    config = dataclasses.replace(CONFIG, num_steps=500, chunk=500, batch_size=17)
    seen = np.asarray(train(config, data=data, learner=counting()).learner)
    for counts, first, size in zip(seen, LANES.first, LANES.size, strict=True):
        mine = counts[first : first + size]
        # Lane 0 has 3 rows, fewer than a batch.
        assert mine.sum() == counts.sum() == 500 * 17
        expected = 500 * 17 / size
        assert np.all(np.abs(mine - expected) < 5 * np.sqrt(expected))


def test_lanes_do_not_depend_on_each_other():
    together = train().learner
    for index in range(3):
        alone = Lanes(LANES.first[index : index + 1], LANES.size[index : index + 1])
        found = train(keys=KEYS[index : index + 1], lanes=alone)
        same(lane(found.learner, 0), lane(together, index))


def test_lanes_with_other_keys_or_data_differ():
    one = Lanes(LANES.first[:1], LANES.size[:1])
    kernels = [
        np.asarray(jax.tree.leaves(train(keys=keys, lanes=one, data=data).learner.params)[1])
        for keys, data in ((KEYS[:1], DATA), (KEYS[1:2], DATA), (KEYS[:1], transitions(60)))
    ]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


@pytest.mark.parametrize("width", [0, 2])
def test_side_by_side_is_one_after_the_other(width):
    same(train(dataclasses.replace(CONFIG, width=width)).learner, train().learner, rtol=1e-4)


def test_a_resumed_training_repeats_an_unbroken_one():
    states = []
    whole = train(on_chunk=lambda state, metrics: states.append(state))
    assert [int(state.step) for state in states] == [10, 20, 30, 40]
    steps = []
    on_chunk = lambda state, metrics: steps.append(int(state.step))  # noqa: E731
    resumed = train(restore=lambda state: states[1], on_chunk=on_chunk)
    same(resumed, whole)
    assert steps == [30, 40]
    # One that was done is not gone on with.
    done = train(restore=lambda state: states[-1], on_chunk=lambda *_: pytest.fail("it was done"))
    same(done, whole)


def test_every_chunk_tells_the_mean_metrics_of_each_lane():
    found = []
    train(on_chunk=lambda state, metrics: found.append(metrics))
    assert len(found) == 4
    assert all(metrics["loss"].shape == (3,) for metrics in found)
    losses = np.array([metrics["loss"] for metrics in found])
    assert np.all(np.isfinite(losses))


def spoiled():
    """Lane 1's rewards are such that its values leave the bounds, others' are not."""
    rows = jnp.arange(ROWS)
    bad = (rows >= 3) & (rows < 13)
    return DATA.replace(rewards=jnp.where(bad, jnp.inf, DATA.rewards))


def test_a_lane_that_diverges_stops_and_the_others_go_on():
    state = train(data=spoiled())
    # The first gradient step, which is told as step 1, as that of an ensemble is.
    assert np.asarray(state.diverged_at).tolist() == [GOOD, 1, GOOD]
    good = train()
    for index in (0, 2):
        same(lane(state.learner, index), lane(good.learner, index))
    # As it was before the chunk, which here is as it began.
    same(lane(state.learner, 1).step, 0)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.learner.params))


def exploding(limit):
    """A learner whose value doubles at each step and whose loss stays finite."""

    def update(key, state, batch):
        del key, batch
        return 2.0 * state, {"loss": jnp.zeros(()), "q": state}

    learner = Learner(init=lambda key: jnp.ones(()), update=update, act=None)
    return train(dataclasses.replace(CONFIG, max_value=limit), learner=learner)


def test_the_step_is_the_first_whose_value_leaves_the_bounds():
    # Values 1, 2, 4, ... at steps 1, 2, 3, ...: 2^13 at step 14, the first above 5000.
    state = exploding(5000.0)
    assert np.asarray(state.diverged_at).tolist() == [14, 14, 14]
    np.testing.assert_array_equal(state.learner, 2.0**10)
    # No lane is left, so training ends there.
    assert int(state.step) == 20
    assert np.all(np.asarray(exploding(1e15).diverged_at) == GOOD)


def test_a_diverged_lane_stays_as_it_is():
    state = train(dataclasses.replace(CONFIG, num_steps=10), data=spoiled())
    later = train(data=spoiled())
    assert int(later.diverged_at[1]) == int(state.diverged_at[1]) == 1
    same(lane(later.learner, 1), lane(state.learner, 1))


@pytest.mark.parametrize(
    ("first", "size", "message"),
    [
        ([0, 0], [3, 0], "lane 1 has 0 transitions from row 0 on"),
        ([0, 25], [3, 6], "lane 1 has 6 transitions from row 25 on, the data have 30 rows"),
        ([-1, 0], [3, 3], "lane 0 has 3 transitions from row -1 on"),
    ],
)
def test_rows_that_do_not_exist_are_refused(first, size, message):
    lanes = Lanes(jnp.asarray(first), jnp.asarray(size))
    with pytest.raises(ValueError, match=message):
        train(keys=KEYS[:2], lanes=lanes)


def test_transitions_without_rewards_are_refused():
    with pytest.raises(ValueError, match="no rewards: offline learners need one for each"):
        train(data=DATA.replace(rewards=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 15}, "num_steps is 15: make it a multiple of chunk, 10"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"width": -2}, "width is -2: give a number of lanes, 0 for all or -1"),
    ],
)
def test_settings_that_would_be_rounded_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
