"""Exogenous inputs: what acts on an agent beside its actions, is known and is never predicted.

A model with inputs takes the vector concat(action, inputs) where others take an action. So that
planners, which choose actions only, need not know of them, a schedule of inputs over the horizon
can be bound to the model.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.models.base import DynamicsModel
from persim_jax.models.factor_network import FactorConfig


def join_inputs(config: FactorConfig, actions: jax.Array, inputs: jax.Array | None) -> jax.Array:
    """Puts the inputs beside the actions, in raw units.

    Args:
      config: Sizes of the model.
      actions: `[...]` integers or `[..., A]`.
      inputs: `[..., I]`; leading axes that are absent are broadcast. None for a model without.

    Returns:
      What the model's `encode_actions` takes: `[..., action_size + I]`, the first part one-hot
      where actions are integers; the actions themselves where the model has no inputs.

    Raises:
      ValueError: The model has inputs and none are given, or the other way round.
    """
    given = 0 if inputs is None else inputs.shape[-1]
    if given != config.num_inputs:
        raise ValueError(
            f"{given} inputs are given at each step: this model takes {config.num_inputs}"
        )
    if inputs is None:
        return actions
    if config.discrete:
        actions = jax.nn.one_hot(actions, config.action_size, dtype=inputs.dtype)
    inputs = jnp.broadcast_to(inputs, (*actions.shape[:-1], config.num_inputs))
    return jnp.concatenate([actions, inputs], axis=-1)


class Scheduled(NamedTuple):
    """A bound model and the inputs that it will meet.

    Attributes:
      bound: The model bound to one agent.
      inputs: `[H, I]`, or `[I]` where they stay the same.
    """

    bound: Any
    inputs: jax.Array


@functools.lru_cache(maxsize=64)
def with_schedule(model: DynamicsModel, config: FactorConfig) -> DynamicsModel:
    """A model with inputs as one without: the same record for the same model.

    Its bound is `Scheduled`, made by hand from what the model's own `bind` returns; its
    `encode_actions` takes `[..., H]` or `[..., H, A]` and joins the schedule.
    """

    def encode_actions(bound: Scheduled, actions: jax.Array) -> Any:
        return model.encode_actions(bound.bound, join_inputs(config, actions, bound.inputs))

    def step(key: jax.Array, bound: Scheduled, state: Any, encoded: Any) -> Any:
        return model.step(key, bound.bound, state, encoded)

    return model._replace(
        bind=_unbindable,
        encode_actions=encode_actions,
        start=lambda bound, obs: model.start(bound.bound, obs),
        step=step,
    )


def _unbindable(params: Any, agent: jax.Array, history: Any) -> Any:
    raise TypeError("bind the model itself and give the result to Scheduled with the inputs")
