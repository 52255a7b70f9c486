"""Networks that predict a normal distribution, as the members of PE-TS do (Chua et al., 2018)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from persim_jax.networks import MLP

MAX_LOG_VAR, MIN_LOG_VAR = 0.5, -10.0
"""Where the learned bounds of a log-variance start."""
CLAMP_REACH = 40.0
"""Raw log-variances further from 0 than this are at a bound."""
BOUND_WEIGHT = 0.01
"""Of the distance of the bounds in the authors' loss."""


class Gaussian(NamedTuple):
    """Independent normal distributions.

    Attributes:
      mean: `[..., D]`.
      log_var: `[..., D]`, or None where there is no noise.
    """

    mean: jax.Array
    log_var: jax.Array | None


class GaussianMLP(nn.Module):
    """One member: hidden layers, and a linear head for the mean and one for the log-variance.

    `h = f(... f(W_1 x + b_1) ...)`, mean = W_m h + b_m and log_var = clamp(W_v h + b_v), shapes
    `[..., I] -> [..., D]`, see `soft_clamp`. The clamp's bounds are trained, one pair of vectors
    `[D]` for each member.

    Attributes:
      features: Widths of the hidden layers.
      size: D.
      activation: A name in `persim_jax.networks.ACTIVATIONS`.
      noisy: Whether there is a log-variance at all.
      skip: Whether the heads see x, too, `concat(h, x)`, so that what is linear stays linear
        outside the data.
    """

    features: tuple[int, ...]
    size: int
    activation: str = "swish"
    noisy: bool = True
    skip: bool = False

    def setup(self) -> None:
        """Declares hidden layers, heads and bounds."""
        head = (self.size,)
        self.trunk = MLP(
            self.features, self.activation, activate_final=True, initializer="truncated"
        )
        self.mean_head = MLP(head, initializer="truncated")
        if self.noisy:
            self.log_var_head = MLP(head, initializer="truncated")
            self.max_log_var = self.param(
                "max_log_var", nn.initializers.constant(MAX_LOG_VAR), head
            )
            self.min_log_var = self.param(
                "min_log_var", nn.initializers.constant(MIN_LOG_VAR), head
            )

    def __call__(self, x: jax.Array) -> Gaussian:
        """Maps `[..., I]` to distributions of `[..., D]`."""
        hidden = self.trunk(x)
        if self.skip:
            hidden = jnp.concatenate([hidden, x], axis=-1)
        if not self.noisy:
            return Gaussian(self.mean_head(hidden), None)
        raw = self.log_var_head(hidden)
        return Gaussian(self.mean_head(hidden), soft_clamp(raw, self.min_log_var, self.max_log_var))


def soft_clamp(log_var: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Brings `[..., D]` between the bounds `[D]`, with a gradient within `CLAMP_REACH`.

    log(exp(low) + 1 / (exp(-high) + exp(-log_var))), which is the authors' two softplus, first
    against the upper and then against the lower bound, in one formula that costs half. Where
    low << high the result lies between them, but for less than softplus(low - high).
    """
    shape = (1,) * (log_var.ndim - 1) + (-1,)
    low, high = low.reshape(shape), high.reshape(shape)
    # Beyond it exponentials overflow, and the gradient has long vanished.
    log_var = jnp.clip(log_var, -CLAMP_REACH, CLAMP_REACH)
    return jnp.log(jnp.exp(low) + 1.0 / (jnp.exp(-high) + jnp.exp(-log_var)))


def surprise(prediction: Gaussian, target: jax.Array, power: float = 0.0) -> jax.Array:
    """((mean - y)^2 / variance + log variance) variance^power of each number `[..., D]`.

    Twice the negative log-likelihood, less log(2 pi); without a variance the squared error. With a
    power above 0 the last factor, which has no gradient, gives back the weight that a member
    takes from what it has not learned yet by calling it noise (Seitzer et al., ICLR 2022). In
    noise-free dynamics the likelihood alone stays in such optima: what is known well outweighs
    the rest by e^10.
    """
    squared = jnp.square(prediction.mean - target)
    if prediction.log_var is None:
        return squared
    plain = squared * jnp.exp(-prediction.log_var) + prediction.log_var
    return plain * lax.stop_gradient(jnp.exp(power * prediction.log_var)) if power else plain


def bound_penalty(weights: Any, weight: float = BOUND_WEIGHT) -> jax.Array:
    """Weight times (sum of upper - sum of lower bounds) of one member, `[]`: draws them in."""
    if "max_log_var" not in weights:
        return jnp.zeros(())
    return weight * (weights["max_log_var"].sum() - weights["min_log_var"].sum())


def decay(weights: Any, decays: tuple[float, ...]) -> jax.Array:
    """Sum over layers of decay / 2 times the squared kernel, `[]`; biases are free.

    Args:
      weights: Of one member's `GaussianMLP`.
      decays: One for each hidden layer and one for the heads.
    """
    heads = [weights[name]["dense_0"] for name in ("mean_head", "log_var_head") if name in weights]
    hidden = [weights["trunk"][f"dense_{index}"] for index in range(len(decays) - 1)]
    each = (*decays[:-1], *(decays[-1] for _ in heads))
    layers = zip(each, hidden + heads, strict=True)
    return sum((0.5 * d * jnp.square(layer["kernel"]).sum() for d, layer in layers), jnp.zeros(()))


def draw(key: jax.Array, prediction: Gaussian) -> jax.Array:
    """A sample `[..., D]`, the mean where there is no noise; the key is consumed."""
    if prediction.log_var is None:
        return prediction.mean
    noise = jax.random.normal(key, prediction.mean.shape, prediction.mean.dtype)
    return prediction.mean + jnp.exp(0.5 * prediction.log_var) * noise
