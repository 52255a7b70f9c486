"""Scaling of vectors to zero mean and unit standard deviation."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

MIN_STD = 1e-8
"""Below this a coordinate is constant in the data and is only centred."""


@chex.dataclass(frozen=True)
class Normalizer:
    """Mean and standard deviation of each coordinate, both `[D]`, in the coordinate's units."""

    mean: jax.Array
    std: jax.Array


def identity(size: int) -> Normalizer:
    """A normalizer that changes nothing."""
    return Normalizer(mean=jnp.zeros(size), std=jnp.ones(size))


def fit(values: jax.Array, center: bool = True) -> Normalizer:
    """Computes a normalizer of `values [B, D]`.

    Args:
      values: `[B, D]` with B >= 1.
      center: If false the mean is kept at zero and the scale is the root mean square, so that a
        zero stays a zero.

    Returns:
      Mean `[D]` and standard deviation `[D]`; coordinates that do not vary get 1.
    """
    chex.assert_rank(values, 2)
    mean = values.mean(axis=0) if center else jnp.zeros(values.shape[1], values.dtype)
    std = jnp.sqrt(jnp.mean(jnp.square(values - mean[None]), axis=0))
    # The mean of equal numbers is off by rounding, so that their deviation alone does not tell.
    constant = (values.max(axis=0) == values.min(axis=0)) if center else False
    return Normalizer(mean=mean, std=jnp.where(constant | (std < MIN_STD), jnp.ones_like(std), std))


def apply(normalizer: Normalizer, values: jax.Array) -> jax.Array:
    """(values - mean) / std on the last axis `[..., D]`."""
    shape = (1,) * (values.ndim - 1) + normalizer.mean.shape
    return (values - normalizer.mean.reshape(shape)) / normalizer.std.reshape(shape)


def invert(normalizer: Normalizer, values: jax.Array) -> jax.Array:
    """Values * std + mean on the last axis `[..., D]`."""
    shape = (1,) * (values.ndim - 1) + normalizer.mean.shape
    return values * normalizer.std.reshape(shape) + normalizer.mean.reshape(shape)
