"""What samplers of bounded continuous actions share: a box, a normal distribution, its noise."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax.types import Spec


class Box(NamedTuple):
    """Bounds of an action, each `[A]`."""

    low: jax.Array
    high: jax.Array
    middle: jax.Array
    half: jax.Array


def box_of(spec: Spec) -> Box:
    """The bounds of a task's actions, their middle and half their distance."""
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    return Box(low, high, (low + high) / 2, (high - low) / 2)


def require_box(sampler: str, spec: Spec) -> None:
    """Refuses a task whose actions are not in a box.

    Args:
      sampler: Name of the sampler that asks.
      spec: The task's.

    Raises:
      ValueError: Actions are discrete, or a bound is infinite or not above the other one.
    """
    if spec.discrete:
        raise ValueError(
            f"the sampler {sampler!r} draws continuous actions and {spec.name} has discrete ones: "
            "use the sampler 'random_shooting'"
        )
    low, high = np.asarray(spec.action_low), np.asarray(spec.action_high)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(
            f"the sampler {sampler!r} draws actions between bounds and {spec.name} has from "
            f"{spec.action_low} to {spec.action_high}: give finite bounds, the low ones below"
        )


def clip(box: Box, actions: jax.Array) -> jax.Array:
    """Actions `[..., A]` moved to the nearest ones within the bounds."""
    shape = (1,) * (actions.ndim - 1) + (-1,)
    return jnp.clip(actions, box.low.reshape(shape), box.high.reshape(shape))


def middle_plan(box: Box, horizon: int) -> jax.Array:
    """A plan `[H, A]` of the middle action, zero where bounds are symmetric."""
    return jnp.broadcast_to(box.middle, (horizon, *box.middle.shape))


def draw_std(key: jax.Array, box: Box, horizon: int, init_std: tuple[float, float]) -> jax.Array:
    """One standard deviation for a whole plan, uniform in a range given in halves of the box.

    Args:
      key: Consumed.
      box: Bounds.
      horizon: H.
      init_std: Least and greatest.

    Returns:
      `[H, A]`, the same number of halves everywhere.
    """
    low, high = init_std
    halves = low + (high - low) * jax.random.uniform(key)
    return jnp.broadcast_to(halves * box.half, (horizon, *box.half.shape))


def truncated_normal(
    key: jax.Array, box: Box, mean: jax.Array, std: jax.Array, num_candidates: int
) -> jax.Array:
    """Normal plans, conditioned on every action lying within the bounds.

    By the inverse of the distribution function, with U uniform in [0, 1):

        mean + sqrt(2) std erfinv(erf(a) + (erf(b) - erf(a)) U),
        a, b = (low - mean) / (sqrt(2) std), (high - mean) / (sqrt(2) std).

    It equals redrawing what falls outside. The mean lies within the bounds, so erf(a) <= 0 <=
    erf(b) and no digits are lost in either tail.

    Args:
      key: Consumed.
      box: Bounds.
      mean: `[H, A]` within the bounds.
      std: `[H, A]`, zero where nothing is to be drawn.
      num_candidates: K.

    Returns:
      `[K, H, A]`.
    """
    info = jnp.finfo(mean.dtype)
    # The smallest number instead of zero, as 0 / 0 is the case of a mean at a bound.
    scale = np.sqrt(2).astype(mean.dtype) * jnp.maximum(std, info.tiny)
    below = lax.erf((box.low[None] - mean) / scale).reshape(1, -1)
    above = lax.erf((box.high[None] - mean) / scale).reshape(1, -1)
    # Long rows: bits drawn as [K, H, A] with a short last axis cost three times as much on a CPU.
    uniform = jax.random.uniform(key, (num_candidates, mean.size), mean.dtype)
    # At -1, which 23 random bits do hit, the inverse is infinite and the action at a far bound.
    most = 1 - info.epsneg
    quantile = jnp.clip(below + (above - below) * uniform, -most, most)
    plans = mean.reshape(1, -1) + scale.reshape(1, -1) * lax.erf_inv(quantile)
    return clip(box, plans.reshape(num_candidates, *mean.shape))


def coloured_noise(
    key: jax.Array, num_candidates: int, horizon: int, action_size: int, beta: float
) -> jax.Array:
    """Normal noise whose power falls with frequency as f^-beta; variance 1 at every step.

    Fourier coefficients are independent, complex normal with standard deviation f^(-beta / 2); the
    mean of a sequence counts as the lowest frequency, 1 / H. After Timmer and Koenig (1995), as
    Pinneri et al. (2020) use it. Action coordinates are independent.

    Args:
      key: Consumed.
      num_candidates: K.
      horizon: H.
      action_size: A.
      beta: 0 is white noise; the greater, the slower the noise.

    Returns:
      `[K, H, A]`.
    """
    frequency = np.fft.rfftfreq(horizon)
    frequency[0] = 1 / horizon
    # How often a coefficient stands in the full spectrum: its conjugate is not stored.
    count = np.full(frequency.size, 2.0)
    count[0] = 1.0
    if horizon % 2 == 0:
        count[-1] = 1.0
    amplitude = frequency ** (-beta / 2)
    amplitude *= horizon / np.sqrt(2 * np.sum(count * np.square(amplitude)))
    # Those that stand there once are real, with all of their variance in the real part.
    real = np.where(count == 1, np.sqrt(2) * amplitude, amplitude)
    imaginary = np.where(count == 1, 0.0, amplitude)
    normal = jax.random.normal(key, (2, num_candidates, action_size, frequency.size))
    scale = jnp.asarray(np.stack([real, imaginary])[:, None, None], normal.dtype)
    parts = normal * scale
    noise = jnp.fft.irfft(lax.complex(parts[0], parts[1]), n=horizon)
    return jnp.moveaxis(noise, -1, 1)


def fit(elites: jax.Array, ddof: int) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of plans `[E, H, A]`, each `[H, A]`, with E - ddof as divisor."""
    return elites.mean(axis=0), elites.std(axis=0, ddof=ddof)


def blend(old: jax.Array, new: jax.Array, keep: jax.Array | float) -> jax.Array:
    """The share `keep` of the old and the rest of the new."""
    return keep * old + (1 - keep) * new


def shift_plan(plan: jax.Array, last: jax.Array) -> jax.Array:
    """A plan `[H, A]` one step on in time, with `last [A]` at its end."""
    return jnp.concatenate([plan[1:], last[None]])
