"""Stochastic policies with a Fisher metric, for learners that follow a policy gradient.

A network maps an observation to the parameters of a distribution over actions. The Fisher matrix of
the network's weights is `J^T F J`, with the network's Jacobian J and the distribution's own Fisher
matrix F, which is known in closed form; so no score has to be sampled.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import ranges
from persim_jax.networks import MLP
from persim_jax.types import Params, PyTree, Spec

SMALL_START = 0.01
"""What the last layer is multiplied by at the start, so that a new policy has hardly a preference
(0.01 as in mjrl)."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Settings of a stochastic policy; hashable.

    Attributes:
      hidden: Widths of its tanh layers.
      init_log_std: Of a Gaussian, logarithm of the standard deviation at the start, in units of
        half of an action's range.
      min_log_std: Smallest that learning may make it.
      max_log_std: Largest.
    """

    hidden: tuple[int, ...] = (64, 64)
    init_log_std: float = -0.25
    min_log_std: float = -1.0
    max_log_std: float = 1.0

    def __post_init__(self) -> None:
        """Refuses bounds that nothing lies between, and layers without a unit."""
        ranges.widths(self, "hidden")
        if not self.min_log_std <= self.init_log_std <= self.max_log_std:
            raise ValueError(
                f"init_log_std is {self.init_log_std}: it must lie between min_log_std, "
                f"{self.min_log_std}, and max_log_std, {self.max_log_std}"
            )


class Normal(NamedTuple):
    """Independent normal distributions of the coordinates of an action.

    Attributes:
      mean: `[A]`, in the action's units.
      log_std: `[A]`, in units of half of the action's range.
    """

    mean: jax.Array
    log_std: jax.Array


class StochasticPolicy(NamedTuple):
    """A distribution over actions for each observation, as a record of pure, unbatched functions.

    The distribution is a pytree: logits `[actions]`, or a `Normal`.

    Attributes:
      init: `(key) -> params`, a dict whose "net" are the network's; the key is consumed.
      distribution: `(params, obs [D]) -> distribution`.
      log_prob: `(distribution, action) -> []`.
      sample: `(key, distribution) -> action`; the key is consumed. A continuous action may lie
        outside the task's bounds.
      mode: `(distribution) -> action`, the likeliest action within the bounds.
      fisher: `(distribution, tangent) -> cotangent`: the distribution's Fisher matrix times a
        change of its parameters.
      project: `(params) -> params` within the policy's limits, for after a step.
    """

    init: Callable[[jax.Array], Params]
    distribution: Callable[[Params, jax.Array], PyTree]
    log_prob: Callable[[PyTree, jax.Array], jax.Array]
    sample: Callable[[jax.Array, PyTree], jax.Array]
    mode: Callable[[PyTree], jax.Array]
    fisher: Callable[[PyTree, PyTree], PyTree]
    project: Callable[[Params], Params]


@functools.lru_cache
def make_policy(spec: Spec, config: PolicyConfig) -> StochasticPolicy:
    """A categorical policy where actions are discrete, else a Gaussian one.

    Args:
      spec: Of the task.
      config: Sizes and limits.

    Returns:
      The policy; the same for the same arguments.
    """
    return _categorical(spec, config) if spec.discrete else _gaussian(spec, config)


def _categorical(spec: Spec, config: PolicyConfig) -> StochasticPolicy:
    """`p(a | s) = softmax(f(s))_a`; the Fisher matrix of logits is diag(p) - p p^T."""
    net = MLP((*config.hidden, spec.num_actions), activation="tanh")

    def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(logits)[action]

    def fisher(logits: jax.Array, tangent: jax.Array) -> jax.Array:
        shares = jax.nn.softmax(logits)
        return shares * (tangent - jnp.dot(shares, tangent))

    return StochasticPolicy(
        init=lambda key: {"net": _small_end(net.init(key, jnp.zeros(spec.obs_size)))},
        distribution=lambda params, obs: net.apply(params["net"], obs),
        log_prob=log_prob,
        sample=lambda key, logits: jax.random.categorical(key, logits).astype(jnp.int32),
        mode=lambda logits: jnp.argmax(logits).astype(jnp.int32),
        fisher=fisher,
        project=lambda params: params,
    )


def _gaussian(spec: Spec, config: PolicyConfig) -> StochasticPolicy:
    """`p(a | s) = N(center + half f(s), (half exp(log_std))^2)`, one log_std for all states.

    Center and half are those of the action's range. The Fisher matrix of the mean is 1 / std^2,
    that of log_std is 2.
    """
    low, high = (np.asarray(b, np.float32) for b in (spec.action_low, spec.action_high))
    # A coordinate without a range is scaled by 1 and left where it is by the task's bounds.
    center, half = (low + high) / 2, np.where(high > low, (high - low) / 2, np.float32(1))
    net = MLP((*config.hidden, spec.action_size), activation="tanh")

    def init(key: jax.Array) -> Params:
        params = _small_end(net.init(key, jnp.zeros(spec.obs_size)))
        # Of the network's own dtype, also where JAX knows 64 bits.
        log_std = jnp.full(spec.action_size, config.init_log_std, jnp.float32)
        return {"net": params, "log_std": log_std}

    def distribution(params: Any, obs: jax.Array) -> Normal:
        return Normal(center + half * net.apply(params["net"], obs), params["log_std"])

    def log_prob(normal: Normal, action: jax.Array) -> jax.Array:
        scaled = (action - normal.mean) / (half * jnp.exp(normal.log_std))
        constant = jnp.log(half) + 0.5 * np.log(2 * np.pi).astype(np.float32)
        return -(0.5 * jnp.square(scaled) + normal.log_std + constant).sum()

    def fisher(normal: Normal, tangent: Normal) -> Normal:
        std = half * jnp.exp(normal.log_std)
        return Normal(tangent.mean / jnp.square(std), 2.0 * tangent.log_std)

    def project(params: Any) -> Params:
        log_std = jnp.clip(params["log_std"], config.min_log_std, config.max_log_std)
        return {**params, "log_std": log_std}

    def sample(key: jax.Array, normal: Normal) -> jax.Array:
        noise = jax.random.normal(key, normal.mean.shape)
        return normal.mean + half * jnp.exp(normal.log_std) * noise

    return StochasticPolicy(
        init=init,
        distribution=distribution,
        log_prob=log_prob,
        sample=sample,
        mode=lambda normal: jnp.clip(normal.mean, low, high),
        fisher=fisher,
        project=project,
    )


def _small_end(params: Any) -> Params:
    """Makes the last layer's weights small."""
    layers = dict(params["params"])
    last = f"dense_{len(layers) - 1}"
    layers[last] = jax.tree.map(lambda leaf: SMALL_START * leaf, layers[last])
    return {"params": layers}
