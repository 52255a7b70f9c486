"""Scaling of vectors to zero mean and unit standard deviation."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

MIN_STD = 1e-8
"""Below this a deviation may be rounding, and its squares may be no float32."""
LEAST_STD = 1e-30
"""Below this a coordinate is constant in any unit and is only centred."""


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
    std = _deviation(values - mean[None])
    constant = is_constant(values, std, center)
    return Normalizer(mean=mean, std=jnp.where(constant, jnp.ones_like(std), std))


def is_constant(values: Any, std: Any, center: bool = True) -> Any:
    """Which coordinates of `values [B, D]` do not vary in any unit, `[D]` bool.

    Args:
      values: Of JAX or of numpy.
      std: `[D]`, their deviation from the mean, or from zero where they are not centred.
      center: Whether it is from the mean.
    """
    # The mean of equal numbers is off by rounding, so that their deviation alone does not tell.
    constant = (values.max(axis=0) == values.min(axis=0)) if center else False
    # What is as small as the rounding of the values and of their mean is no variation either.
    rounding = 4 * jnp.finfo(values.dtype).eps * abs(values).max(axis=0)
    return constant | (std < LEAST_STD) | ((std < MIN_STD) & (std <= rounding))


def binary_unit(values: Any) -> np.ndarray:
    """A power of two by which `values [B, D]` are as large as one, `[D]`, on the host.

    Squares of numbers in such units are float32, whatever the numbers measure, and no digit of
    them is lost; 1 where all are zero.
    """
    largest = np.abs(np.asarray(values)).max(axis=0)
    unit: np.ndarray = np.ldexp(np.ones_like(largest), np.frexp(largest)[1] - 1)
    return np.where(largest > 0, unit, np.ones_like(unit))


def _deviation(away: jax.Array) -> jax.Array:
    """Root mean square of `[B, D]` in any unit: squares of 1e-20 or 1e20 are no float32."""
    plain = jnp.sqrt(jnp.mean(jnp.square(away), axis=0))
    largest = jnp.abs(away).max(axis=0)
    unit = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    scaled = unit * jnp.sqrt(jnp.mean(jnp.square(away / unit[None]), axis=0))
    return jnp.where((plain >= MIN_STD) & jnp.isfinite(plain), plain, scaled)


def apply(normalizer: Normalizer, values: jax.Array) -> jax.Array:
    """(values - mean) / std on the last axis `[..., D]`."""
    shape = (1,) * (values.ndim - 1) + normalizer.mean.shape
    return (values - normalizer.mean.reshape(shape)) / normalizer.std.reshape(shape)


def invert(normalizer: Normalizer, values: jax.Array) -> jax.Array:
    """Values * std + mean on the last axis `[..., D]`."""
    shape = (1,) * (values.ndim - 1) + normalizer.mean.shape
    return values * normalizer.std.reshape(shape) + normalizer.mean.reshape(shape)
