"""What learned models of one step share: their target, their loss, their members side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from persim_jax import mesh as mesh_lib
from persim_jax.types import PyTree

TARGETS = ("delta", "auto")
ABSOLUTE_RATIO = 0.75
"""A coordinate is predicted itself where its standard deviation is below this share of that of its
difference. Of a coordinate whose steps do not depend on each other the share is 1 / sqrt(2)."""
WIDE = 128
"""Width of a layer from which members are stepped one by one on a CPU."""


def fit_carry(target: str, before: jax.Array, after: jax.Array) -> jax.Array:
    """What of a state is carried over to the next before the prediction is added.

    Args:
      target: "delta" predicts differences. "auto" predicts the next value itself of a coordinate
        that hardly carries over, see `ABSOLUTE_RATIO`.
      before: `[B, D]` states.
      after: `[B, D]` their next ones.

    Returns:
      `[D]`, 1 where the target is a difference and 0 where it is the next value itself.
    """
    carry = jnp.ones(before.shape[-1], before.dtype)
    if target == "auto":
        moved = (after - before).std(axis=0)
        carry = jnp.where(after.std(axis=0) < ABSOLUTE_RATIO * moved, 0.0, carry)
    return carry


def fit_loss(error: jax.Array, huber: float) -> tuple[jax.Array, jax.Array]:
    """Loss and mean squared error of scaled errors of any shape, both `[]`.

    Args:
      error: Predicted minus true, scaled.
      huber: Error from which the loss grows linearly; 0 is the squared loss throughout.
    """
    mse = jnp.mean(jnp.square(error))
    # Twice the usual definition, so that small errors count as in the squared loss.
    return (2 * jnp.mean(optax.huber_loss(error, delta=huber)) if huber else mse), mse


def each_member(function: Callable[..., Any], ensemble: PyTree, width: int) -> Any:
    """Applies a function of one member to all, `vmap` but for wide layers on a CPU.

    Args:
      function: `(*parts) -> array` of one member.
      ensemble: Its arguments as a tuple, leaves `[M, ...]`.
      width: Of the widest layer. On a CPU one product for each member is faster than a batched one
        where layers are wide.
    """
    if width >= WIDE and mesh_lib.resolved_chunk(mesh_lib.AUTO) == 1:
        count = jax.tree.leaves(ensemble)[0].shape[0]
        members = [jax.tree.map(lambda leaf, m=m: leaf[m], ensemble) for m in range(count)]
        return jnp.stack([function(*member) for member in members])
    return jax.vmap(function)(*ensemble)


def each_loss(
    function: Callable[..., tuple[jax.Array, jax.Array]], arguments: PyTree
) -> tuple[jax.Array, jax.Array]:
    """Applies `(*parts) -> (loss [], mse [])` of one member to all, leaves `[M, ...] -> [M]`.

    A batched product of one is three times slower than a plain one on a CPU, so one member is not
    batched.
    """
    if jax.tree.leaves(arguments)[0].shape[0] > 1:
        return jax.vmap(function)(*arguments)
    loss, mse = function(*jax.tree.map(lambda leaf: leaf[0], arguments))
    return loss[None], mse[None]
