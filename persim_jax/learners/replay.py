"""A replay buffer as a value: a ring of rows of any pytree."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from persim_jax.types import PyTree


@chex.dataclass(frozen=True)
class Replay:
    """Rows seen so far, the newest overwriting the oldest.

    Attributes:
      rows: Pytree whose leaves are `[capacity, ...]`.
      position: `[]` int32, where the next row goes.
      size: `[]` int32, number of rows that hold data.
    """

    rows: PyTree
    position: jax.Array
    size: jax.Array


def init(capacity: int, example: PyTree) -> Replay:
    """Makes an empty buffer.

    Args:
      capacity: Number of rows that it can hold.
      example: One row; only its structure, shapes and dtypes count.

    Returns:
      A buffer of zeros with size 0.

    Raises:
      ValueError: If `capacity` is not positive.
    """
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}: a buffer needs room for at least one row")

    def empty(leaf: jax.Array) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return jnp.zeros((capacity, *leaf.shape), leaf.dtype)

    zero = jnp.zeros((), jnp.int32)
    return Replay(rows=jax.tree.map(empty, example), position=zero, size=zero)


def add(replay: Replay, batch: PyTree) -> Replay:
    """Writes B rows behind the newest one, over the oldest where the buffer is full.

    Args:
      replay: The buffer.
      batch: Pytree as the example of `init`, leaves `[B, ...]`.

    Returns:
      The buffer with the rows in it.

    Raises:
      ValueError: If B is larger than the capacity, because rows would overwrite each other.
    """
    capacity = jax.tree.leaves(replay.rows)[0].shape[0]
    count = jax.tree.leaves(batch)[0].shape[0]
    if count > capacity:
        raise ValueError(f"{count} rows do not fit into a buffer of {capacity}: raise its capacity")
    places = (replay.position + jnp.arange(count, dtype=jnp.int32)) % capacity
    return Replay(
        rows=jax.tree.map(lambda old, new: old.at[places].set(new), replay.rows, batch),
        position=(replay.position + count) % capacity,
        size=jnp.minimum(replay.size + count, capacity),
    )


def sample(key: jax.Array, replay: Replay, batch_size: int) -> PyTree:
    """Draws rows uniformly with replacement.

    Args:
      key: Consumed.
      replay: A buffer with at least one row; an empty one gives rows of zeros, because a size is
        data and data cannot raise under `jit`.
      batch_size: Number of rows, B.

    Returns:
      Pytree with leaves `[B, ...]`.
    """
    places = jax.random.randint(key, (batch_size,), 0, jnp.maximum(replay.size, 1))
    return jax.tree.map(lambda rows: rows[places], replay.rows)
