"""The ring buffer against a deque: rows carry their own number, so a mix-up shows."""

import collections

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from persim_jax.learners import replay as replay_lib


def rows_of(numbers):
    """Rows whose every field says which row it is."""
    numbers = jnp.asarray(numbers, jnp.int32)
    return {
        "number": numbers,
        "obs": numbers.astype(jnp.float32)[:, None] + jnp.array([[0.0, 0.5]]),
    }


def empty(capacity):
    return replay_lib.init(capacity, jax.tree.map(lambda leaf: leaf[0], rows_of([0])))


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    capacity=st.sampled_from([3, 5]),
    counts=st.lists(st.integers(1, 3), min_size=1, max_size=8),
)
def test_holds_the_newest_rows(capacity, counts):
    replay, expected, number = empty(capacity), collections.deque(maxlen=capacity), 1
    for count in counts:
        numbers = range(number, number + count)
        replay = replay_lib.add(replay, rows_of(list(numbers)))
        expected.extend(numbers)
        number += count
    held = np.asarray(replay.rows["number"])[: int(replay.size)]
    assert int(replay.size) == len(expected)
    assert sorted(held.tolist()) == list(expected)
    # The oldest row is the one that the next would overwrite.
    if len(expected) == capacity:
        assert held[int(replay.position)] == expected[0]
    np.testing.assert_array_equal(replay.rows["obs"][: int(replay.size), 0], held)
    np.testing.assert_array_equal(replay.rows["obs"][: int(replay.size), 1], held + 0.5)


@hypothesis.settings(max_examples=20)
@hypothesis.given(num_rows=st.integers(1, 9), seed=st.integers(0, 2**31 - 1))
def test_samples_whole_rows_that_are_held(num_rows, seed):
    replay = replay_lib.add(empty(10), rows_of(list(range(1, num_rows + 1))))
    batch = replay_lib.sample(jax.random.key(seed), replay, 16)
    numbers = np.asarray(batch["number"])
    assert set(numbers.tolist()) <= set(range(1, num_rows + 1))
    np.testing.assert_array_equal(batch["obs"], np.stack([numbers, numbers + 0.5], axis=1))


def test_samples_every_row_equally_often(key):
    replay = replay_lib.add(empty(5), rows_of([0, 1, 2, 3, 4]))
    numbers = np.asarray(replay_lib.sample(key, replay, 20_000)["number"])
    # 4 standard deviations of a binomial share with p = 1/5.
    bound = 4.0 * np.sqrt(0.2 * 0.8 / 20_000)
    np.testing.assert_allclose(np.bincount(numbers) / 20_000, 0.2, atol=bound)


def test_agents_side_by_side_do_not_mix():
    replays = jax.vmap(lambda _: empty(4))(jnp.arange(2))
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), rows_of([1, 2]), rows_of([11, 12]))
    replays = jax.vmap(replay_lib.add)(replays, batches)
    np.testing.assert_array_equal(replays.rows["number"], [[1, 2, 0, 0], [11, 12, 0, 0]])


def test_adding_leaves_the_old_value_alone():
    replay = empty(3)
    replay_lib.add(replay, rows_of([7]))
    assert int(replay.size) == 0
    np.testing.assert_array_equal(replay.rows["number"], 0)


def test_a_buffer_without_room_is_refused():
    with pytest.raises(ValueError, match="capacity is 0"):
        empty(0)


def test_more_rows_than_capacity_are_refused():
    with pytest.raises(ValueError, match="4 rows do not fit into a buffer of 3"):
        replay_lib.add(empty(3), rows_of([1, 2, 3, 4]))
