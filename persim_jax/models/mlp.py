"""Ensembles of multilayer perceptrons: what a model without PerSim's factorisation predicts.

The scaled difference of states is f(s, a) for all agents alike, f(s, a, e_n) with a learned vector
e_n of agent n, or f_n(s, a) with a network for each agent; see `MLPConfig.agents`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import normalizer as normalizer_lib
from persim_jax.models.base import DynamicsModel, History, ModelParams
from persim_jax.models.ensemble import each_loss, each_member, fit_carry, fit_loss
from persim_jax.models.mlp_network import MLPConfig as MLPConfig
from persim_jax.models.mlp_network import (
    MLPNetwork,
    MLPNormalizer,
    fold_embedding,
    without_agents,
)
from persim_jax.precision import exact
from persim_jax.types import Metrics, Transitions


class BoundMLP(NamedTuple):
    """The ensemble as it is for one agent.

    Attributes:
      weights: Of a network of state and action, leaves `[M, ...]`.
      normalizer: The agent's.
    """

    weights: Any
    normalizer: MLPNormalizer


@functools.cache
def mlp_model(config: MLPConfig) -> DynamicsModel:
    """An MLP model as a `DynamicsModel`; the same record for the same config.

    With agents "separate" its data are `Transitions` with leaves `[B, L, ...]`, in which column l
    holds transitions of the agent in row `config.rows[l]`; see `per_agent_transitions`. Nothing
    of one column reaches another's network.
    """
    return DynamicsModel(
        num_members=config.ensemble_size,
        init=functools.partial(_init, config),
        fit_normalizer=functools.partial(_fit_normalizer, config),
        loss=functools.partial(_loss, config),
        bind=exact(functools.partial(_bind, config)),
        encode_actions=lambda bound, actions: encode(config, actions),
        start=_start,
        step=exact(functools.partial(_step, config)),
        observe=lambda model_state: model_state,
    )


def predict_delta(
    config: MLPConfig, params: ModelParams, agent: jax.Array, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """Prediction of every member in raw units, from weights that are not bound to an agent.

    Args:
      config: Sizes.
      params: Ensemble.
      agent: `[]` row of the agent.
      obs: `[D]`.
      action: `[]` int32 or `[A]`.

    Returns:
      Predicted next_obs - obs, `[M, D]`; NaN where the agent has no network.
    """
    weights, norm = params.weights, params.normalizer
    if config.agents == "separate":
        weights, norm = _of_network(config, params, agent)
    network, action = MLPNetwork(config), encode(config, action)
    scaled = normalizer_lib.apply(norm.obs, obs)
    found = jax.vmap(lambda w: network.apply({"params": w}, agent, scaled, action))(weights)
    return normalizer_lib.invert(norm.delta, found) + ((norm.carry - 1) * obs)[None]


def per_agent_transitions(data: Transitions, rows: tuple[int, ...]) -> Transitions:
    """Arranges transitions so that each agent's network meets its own, and as many as the others.

    Args:
      data: Leaves `[B, ...]`, on the host.
      rows: Rows of L agents.

    Returns:
      Leaves `[T, L, ...]`, T the most transitions that one of them has; those of an agent with
      fewer are repeated in turn, so that their counts differ by one at most.

    Raises:
      ValueError: An agent has no transition.
    """
    owners = np.asarray(data.agent)
    own = [np.flatnonzero(owners == row) for row in rows]
    empty = [row for row, found in zip(rows, own, strict=True) if not found.size]
    if empty:
        raise ValueError(
            f"the agents in rows {empty} have no transition: a network of their own has nothing to "
            "learn from"
        )
    length = max(found.size for found in own)
    index = np.stack([np.resize(found, length) for found in own], axis=1)
    arranged: Transitions = jax.tree.map(lambda leaf: np.asarray(leaf)[index], data)
    return arranged


def encode(config: MLPConfig, actions: jax.Array) -> jax.Array:
    """One-hot if integers, the vector itself otherwise: `[...]` or `[..., A] -> [..., A]`."""
    return jax.nn.one_hot(actions, config.action_size) if config.discrete else actions


def _init(config: MLPConfig, key: jax.Array) -> Any:
    network, agent = MLPNetwork(config), jnp.zeros((), jnp.int32)
    obs, action = jnp.zeros(config.obs_size), jnp.zeros(config.action_size)

    def init_one(key: jax.Array) -> Any:
        return network.init(key, agent, obs, action)["params"]

    def init_member(member: jax.Array) -> Any:
        own = jax.random.fold_in(key, member)
        if config.agents != "separate":
            return init_one(own)
        # By row, so that a network starts alike whichever others there are.
        return jax.vmap(lambda row: init_one(jax.random.fold_in(own, row)))(
            jnp.asarray(config.rows)
        )

    return jax.vmap(init_member)(jnp.arange(config.ensemble_size))


def _fit_normalizer(config: MLPConfig, data: Transitions) -> MLPNormalizer:
    def fit(obs: jax.Array, next_obs: jax.Array) -> MLPNormalizer:
        """Of `[B, D]`."""
        unit = normalizer_lib.identity(config.obs_size)
        carry = fit_carry(config.target, obs, next_obs)
        target = next_obs - obs * carry[None]
        return MLPNormalizer(
            obs=normalizer_lib.fit(obs) if config.normalize_obs else unit,
            delta=normalizer_lib.fit(target) if config.normalize_delta else unit,
            carry=carry,
        )

    obs, next_obs = jnp.asarray(data.obs), jnp.asarray(data.next_obs)
    if config.agents == "separate":
        return jax.vmap(fit, in_axes=1)(obs, next_obs)
    return fit(obs, next_obs)


def _loss(
    config: MLPConfig, params: ModelParams, batch: Transitions, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    del key
    network, norms = MLPNetwork(config), params.normalizer

    def errors(weights: Any, norm: MLPNormalizer, batch: Transitions) -> jax.Array:
        """Scaled errors `[B, D]` of one network on its transitions."""
        obs = normalizer_lib.apply(norm.obs, batch.obs)
        target = batch.next_obs - batch.obs * norm.carry[None]
        actions = encode(config, batch.actions)
        predicted = network.apply({"params": weights}, batch.agent, obs, actions)
        return predicted - normalizer_lib.apply(norm.delta, target)

    def member_loss(weights: Any, batch: Transitions) -> tuple[jax.Array, jax.Array]:
        if config.agents == "separate":
            found = jax.vmap(errors, in_axes=(0, 0, 1))(weights, norms, batch)
        else:
            found = errors(weights, norms, batch)
        return fit_loss(found, config.huber)

    losses, mse = each_loss(member_loss, (params.weights, batch))
    return losses, {"mse": mse}


def _bind(
    config: MLPConfig, params: ModelParams, agent: jax.Array, history: History | None
) -> BoundMLP:
    del history
    if config.agents == "separate":
        return BoundMLP(*_of_network(config, params, agent))
    if config.agents == "embedding":
        fold = functools.partial(fold_embedding, config)
        weights = jax.vmap(fold, in_axes=(0, None))(params.weights, agent)
        return BoundMLP(weights, params.normalizer)
    return BoundMLP(params.weights, params.normalizer)


def _of_network(config: MLPConfig, params: ModelParams, agent: jax.Array) -> tuple[Any, Any]:
    """Weights `[M, ...]` and normaliser of an agent's own network; NaN where it has none."""
    table = np.full(config.num_agents, len(config.rows), np.int32)
    table[list(config.rows)] = np.arange(len(config.rows))
    column = jnp.asarray(table)[agent]

    def take(leaf: jax.Array, axis: int) -> jax.Array:
        return jnp.take(leaf, column, axis=axis, mode="fill", fill_value=jnp.nan)

    weights = jax.tree.map(functools.partial(take, axis=1), params.weights)
    return weights, jax.tree.map(functools.partial(take, axis=0), params.normalizer)


def _start(bound: BoundMLP, obs: jax.Array) -> jax.Array:
    members = jax.tree.leaves(bound.weights)[0].shape[0]
    return jnp.broadcast_to(obs, (members, *obs.shape))


def _step(
    config: MLPConfig, key: jax.Array, bound: BoundMLP, obs: jax.Array, encoded: jax.Array
) -> jax.Array:
    del key
    norm, network = bound.normalizer, MLPNetwork(without_agents(config))

    def member(weights: Any, obs: jax.Array) -> jax.Array:
        inputs = jnp.concatenate([normalizer_lib.apply(norm.obs, obs), encoded])
        found = network.apply({"params": weights}, inputs, method=MLPNetwork.layers)
        return (norm.carry * obs + normalizer_lib.invert(norm.delta, found)).astype(obs.dtype)

    return each_member(member, (bound.weights, obs), max(config.hidden, default=1))
