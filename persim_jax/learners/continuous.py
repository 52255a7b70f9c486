"""What continuous BCQ, SAC and CQL share: unit actions, two critics, Adam for each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from persim_jax.networks import MLP
from persim_jax.types import Params, Spec

NUM_CRITICS = 2


def check_continuous(spec: Spec, name: str, instead: str) -> None:
    """Raises if a task's actions are discrete.

    Raises:
      ValueError: They are; says which learner to use instead.
    """
    if spec.discrete:
        raise ValueError(
            f"{spec.name} has discrete actions: {name} needs continuous ones, use {instead}"
        )


def _range(spec: Spec, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Center and half of the range of an action, in the shape of `like [..., A]`."""
    low, high = jnp.asarray(spec.action_low, like.dtype), jnp.asarray(spec.action_high, like.dtype)
    shape = like.shape
    return jnp.broadcast_to((low + high) / 2, shape), jnp.broadcast_to((high - low) / 2, shape)


def to_unit(spec: Spec, actions: jax.Array) -> jax.Array:
    """Actions within their bounds as numbers in [-1, 1], `[..., A] -> [..., A]`.

    A coordinate whose bounds are equal, as those of data that never vary it are, is 0.
    """
    center, half = _range(spec, actions)
    return (actions - center) / jnp.where(half > 0, half, jnp.ones_like(half))


def from_unit(spec: Spec, actions: jax.Array) -> jax.Array:
    """The inverse of `to_unit`, for numbers outside [-1, 1] the nearest bound."""
    center, half = _range(spec, actions)
    return center + half * jnp.clip(actions, -1.0, 1.0)


def join(*parts: jax.Array) -> jax.Array:
    """Concatenates the last axes, which is how networks get observation and action."""
    return jnp.concatenate(parts, axis=-1)


def init_critics(key: jax.Array, hidden: Sequence[int], spec: Spec) -> Params:
    """Two critics of observation and unit action, leaves `[2, ...]`; consumes `key`."""
    inputs = jnp.zeros(spec.obs_size + spec.action_size)
    keys = jax.random.split(key, NUM_CRITICS)
    return jax.vmap(lambda key: critic(hidden).init(key, inputs))(keys)


def critic(hidden: Sequence[int]) -> MLP:
    """The network whose output `[..., 1]` is the value of an action."""
    return MLP((*hidden, 1))


def critic_values(
    hidden: Sequence[int], critics: Params, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """Both critics' values.

    Args:
      hidden: Widths of a critic's layers.
      critics: Leaves `[2, ...]`.
      obs: `[..., D]`.
      actions: Unit actions `[..., A]`.

    Returns:
      `Q_1(obs, actions), Q_2(obs, actions)`, `[2, ...]`.
    """
    inputs = join(obs, actions)
    # One after the other and not by vmap: small batched products are slow on a CPU.
    both = [jax.tree.map(lambda leaf, i=i: leaf[i], critics) for i in range(NUM_CRITICS)]
    return jnp.stack([critic(hidden).apply(one, inputs)[..., 0] for one in both])


def bootstrap(
    rewards: jax.Array, terminated: jax.Array, next_values: jax.Array, discount: float
) -> jax.Array:
    """`r + discount * (1 - terminated) * V(s')`, all `[B]`; a time limit bootstraps."""
    targets = rewards + discount * jnp.where(terminated, 0.0, next_values)
    return jax.lax.stop_gradient(targets)


def adam(rate: float) -> optax.GradientTransformation:
    """Adam on a part's parameters as one vector."""
    return optax.flatten(optax.adam(rate))


def descend(rate: float, gradient: Params, opt_state: Any, params: Params) -> tuple[Params, Any]:
    """One step of Adam; returns the new parameters and the optimiser's new state."""
    updates, opt_state = adam(rate).update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state
