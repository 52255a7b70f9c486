"""What a learner is, and the three small things that learners share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.types import Metrics, Params, Spec

LearnerState = Any
"""Parameters, targets and optimiser state of a learner as one pytree."""


class Learner(NamedTuple):
    """A policy that improves, as a record of pure functions; many learn at once through `vmap`.

    Learners come from `lru_cache`d factories, so that one config is one record and a `Learner` may
    be a static argument of `jit`.

    Attributes:
      init: `(key) -> l`; the key is consumed.
      update: `(key, l, batch) -> (l, metrics)` with a batch of `Transitions`; the key is consumed.
      act: `(key, l, obs [D], explore []) -> action`; `explore` is the amount of the learner's own
        exploration and 0 is greedy. For DQN it is the probability of a random action, for TD3 the
        standard deviation of the noise. The key is consumed.
    """

    init: Callable[[jax.Array], LearnerState]
    update: Callable[[jax.Array, LearnerState, Any], tuple[LearnerState, Metrics]]
    act: Callable[[jax.Array, LearnerState, jax.Array, jax.Array], jax.Array]


class Schedule(NamedTuple):
    """A value that moves along a straight line and then stays; hashable.

    Attributes:
      start: Value at step 0.
      end: Value from step `steps` on.
      steps: Length of the ramp; 0 means `end` from the beginning.
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: jax.Array) -> jax.Array:
        """Evaluates `start + (end - start) * min(step / steps, 1)`, `[] -> []`."""
        share = jnp.clip(step / max(self.steps, 1), 0.0, 1.0) if self.steps else jnp.ones(())
        return self.start + (self.end - self.start) * share


def polyak(params: Params, target_params: Params, rate: float) -> Params:
    """Moves target parameters towards the learned ones.

    `target <- target + rate * (params - target)`, leaf by leaf.

    Args:
      params: Learned parameters.
      target_params: Target parameters, same structure and shapes.
      rate: Share of the way, in [0, 1]; 1 copies.

    Returns:
      The new target parameters.
    """
    return jax.tree.map(lambda new, old: old + rate * (new - old), params, target_params)


def random_action(key: jax.Array, spec: Spec) -> jax.Array:
    """Draws an action uniformly from everything that the task allows.

    Args:
      key: Consumed.
      spec: Says how many actions there are or what bounds they have.

    Returns:
      `[]` int32 when actions are discrete, else `[A]` within the bounds.
    """
    if spec.discrete:
        return jax.random.randint(key, (), 0, spec.num_actions, jnp.int32)
    low, high = jnp.asarray(spec.action_low), jnp.asarray(spec.action_high)
    return jax.random.uniform(key, low.shape, low.dtype, low, high)
