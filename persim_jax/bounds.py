"""Continuous actions outside their bounds: clipped, as the environments do, and counted."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.types import Spec


def num_outside(spec: Spec, actions: jax.Array | np.ndarray) -> int:
    """How many of the actions `[..., A]` have a coordinate outside its bounds; 0 if discrete.

    An action that is not a number is not outside: what takes it must refuse it.
    """
    if spec.discrete:
        return 0
    array = np.asarray(actions)
    low, high = (np.asarray(b, array.dtype) for b in (spec.action_low, spec.action_high))
    return int(((array < low) | (array > high)).any(axis=-1).sum())


def clip(spec: Spec, actions: jax.Array) -> jax.Array:
    """Clips continuous actions `[..., A]` to their bounds and warns with their number.

    Where a trace hides their values nobody can count them.

    Args:
      spec: Of the task; discrete actions come back as they are.
      actions: Any leading axes.

    Returns:
      Actions within their bounds, same shape.
    """
    traced = isinstance(actions, jax.core.Tracer)
    outside = 0 if traced else num_outside(spec, actions)
    if spec.discrete or not (traced or outside):
        return actions
    low, high = (jnp.asarray(b, actions.dtype) for b in (spec.action_low, spec.action_high))
    if outside:
        count = int(np.prod(actions.shape[:-1]))
        warnings.warn(
            f"{outside} of {count} actions were outside the bounds of {spec.name}, "
            f"{spec.action_low} to {spec.action_high}, and were clipped, as the environment does",
            stacklevel=3,
        )
    return jnp.clip(
        actions, jnp.broadcast_to(low, actions.shape), jnp.broadcast_to(high, actions.shape)
    )
