"""The multilayer perceptron that every learner and model is built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from persim_jax.precision import dot_general

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "swish": nn.swish,
    "tanh": nn.tanh,
}
INITIALIZERS = ("torch", "lecun", "truncated")


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Draws from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for a linear layer.

    Args:
      fan_in: Number of inputs of the layer; a bias cannot read it off its own shape.

    Returns:
      A flax initialiser `(key, shape, dtype) -> array`; the key is consumed.

    Raises:
      ValueError: If `fan_in` is not positive.
    """
    if fan_in < 1:
        raise ValueError(
            f"fan_in is {fan_in}: give the layer an input with at least one coordinate"
        )
    bound = fan_in**-0.5

    def initialize(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize


def standardize(x: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-5) over the last axis, `[..., F] -> [..., F]`."""
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered * lax.rsqrt(jnp.square(centered).mean(axis=-1, keepdims=True) + 1e-5)


class MLP(nn.Module):
    """Dense layers with an activation between them and, by default, none after the last.

    `x -> W_L f(... f(W_1 x + b_1) ...) + b_L`, shapes `[..., D] -> [..., features[-1]]`. Layers are
    named `dense_0`, `dense_1`, ... in the parameters.

    Attributes:
      features: Width of each layer, the output's last.
      activation: A name in `ACTIVATIONS`.
      activate_final: Whether the activation also follows the last layer.
      initializer: "torch" (uniform kernels and biases, `uniform_fan_in`), "lecun" (normal kernels,
        zero biases) or "truncated" (kernels from N(0, 1 / (4 fan_in)) cut at two standard
        deviations, zero biases: what PE-TS and its descendants start from). Not called `init`,
        which is flax's own method.
      layer_norm: Whether the inputs of every activation are brought to mean 0 and variance 1 over
        the features of a layer (Ba et al., 2016; without its trained scale and shift).

    Raises:
      ValueError: When it is built with a name that is none of these or without features.
    """

    features: tuple[int, ...]
    activation: str = "relu"
    activate_final: bool = False
    initializer: str = "torch"
    layer_norm: bool = False

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        if not self.features:
            raise ValueError("features is empty: give the width of the output at least")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation {self.activation!r} is unknown: use one of {sorted(ACTIVATIONS)}"
            )
        if self.initializer not in INITIALIZERS:
            raise ValueError(f"initializer {self.initializer!r} is unknown: use {INITIALIZERS}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[..., D]` to `[..., features[-1]]`."""
        activation = ACTIVATIONS[self.activation]
        for index, width in enumerate(self.features):
            x = self._dense(width, fan_in=x.shape[-1], name=f"dense_{index}")(x)
            if self.activate_final or index + 1 < len(self.features):
                x = activation(standardize(x) if self.layer_norm else x)
        return x

    def _dense(self, width: int, fan_in: int, name: str) -> nn.Dense:
        if self.initializer == "lecun":
            return nn.Dense(width, name=name, dot_general=dot_general)
        if self.initializer == "truncated":
            kernel_init = nn.initializers.truncated_normal(0.5 * fan_in**-0.5)
            return nn.Dense(width, kernel_init=kernel_init, name=name, dot_general=dot_general)
        uniform = uniform_fan_in(fan_in)
        return nn.Dense(
            width, kernel_init=uniform, bias_init=uniform, name=name, dot_general=dot_general
        )
