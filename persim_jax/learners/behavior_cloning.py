"""Behavior cloning: a policy that does what the data do."""

from __future__ import annotations

from typing import Any

import jax
import optax

from persim_jax.learners.policies import StochasticPolicy
from persim_jax.types import Params, Transitions


def clone_behavior(
    key: jax.Array,
    policy: StochasticPolicy,
    params: Any,
    data: Transitions,
    size: jax.Array,
    num_steps: int,
    batch_size: int,
    rate: float,
) -> Params:
    """Behavior cloning: Adam on `-log pi(a | s)` of the data, the network alone.

    The standard deviation of a Gaussian policy stays as it is: data of one deterministic policy
    would leave nothing to explore with. For the mean the loss then is the squared error.

    Args:
      key: Consumed.
      policy: Static.
      params: Of the policy.
      data: Leaves `[B, ...]`.
      size: `[]` int32, how many of the rows are data; those after them are padding.
      num_steps: Of Adam, static; 0 leaves the policy as it is.
      batch_size: Transitions of a step, drawn with replacement, static: there may be fewer.
      rate: Of Adam.
    """
    optimizer = adam(rate)

    def loss(net: Params, batch: Transitions) -> jax.Array:
        log_probs = jax.vmap(
            lambda obs, action: policy.log_prob(
                policy.distribution({**params, "net": net}, obs), action
            )
        )(batch.obs, batch.actions)
        return -log_probs.mean()

    def step(carry: Any, places: jax.Array) -> tuple[Any, None]:
        net, opt_state = carry
        batch = jax.tree.map(lambda rows: rows[places], data)
        updates, opt_state = optimizer.update(jax.grad(loss)(net, batch), opt_state, net)
        return (optax.apply_updates(net, updates), opt_state), None

    places = jax.random.randint(key, (num_steps, batch_size), 0, size)
    (net, _), _ = jax.lax.scan(step, (params["net"], optimizer.init(params["net"])), places)
    return {**params, "net": net}


def adam(rate: float) -> optax.GradientTransformation:
    """Adam on all parameters as one vector, which spares small networks most of its cost."""
    return optax.flatten(optax.adam(rate))
