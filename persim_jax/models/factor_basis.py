"""The factor model as a linear regression on an agent's factors.

Given states and actions, the scaled target of a member is linear in the agent's factors u,

    target_d = sum_l Phi[d, l] u_l + residual_d,    Phi[d, l] = v_l(s, d) w_l(a),

so that an agent that was never in the data needs no training: regression finds its factors.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from persim_jax import normalizer as normalizer_lib
from persim_jax.models.base import ModelParams
from persim_jax.models.factor_network import (
    FactorConfig,
    FactorNetwork,
    FactorNormalizer,
    newest,
    scale_actions,
    state_inputs,
)
from persim_jax.precision import exact


@exact
def factor_basis(
    config: FactorConfig, params: ModelParams, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """Phi of every member: what multiplies an agent's factors.

    Args:
      config: Sizes.
      params: Ensemble.
      obs: `[..., D * L]`.
      actions: `[...]` int32 or `[..., E]`, inputs joined.

    Returns:
      `[M, ..., D, r]`, for scaled targets.
    """
    network = FactorNetwork(config)
    scaled = normalizer_lib.apply(params.normalizer.obs, state_inputs(config, obs))
    actions = scale_actions(config, params.normalizer.actions, actions)

    def member(weights: dict) -> jax.Array:
        variables = {"params": weights}
        v = network.apply(variables, scaled, method=FactorNetwork.state_factors)
        w = network.apply(variables, actions, method=FactorNetwork.action_factors)
        basis: jax.Array = v * w[..., None, :]
        return basis

    return jax.vmap(member)(params.weights)


def scaled_target(
    config: FactorConfig, norm: FactorNormalizer, obs: jax.Array, next_obs: jax.Array
) -> jax.Array:
    """What the model is trained to predict, scaled: twice `[..., D * L]` to `[..., D]`."""
    carry = norm.carry.reshape((1,) * (obs.ndim - 1) + (-1,))
    moved = newest(config, next_obs) - carry * newest(config, obs)
    return normalizer_lib.apply(norm.delta, moved)


def with_factors(
    config: FactorConfig, params: ModelParams, factors: jax.Array
) -> tuple[FactorConfig, ModelParams]:
    """The same model of other agents, each member repeated for several guesses of their factors.

    Args:
      config: Sizes of the trained model.
      params: Its ensemble of M members.
      factors: `[M, N, P, r]`, P guesses for each member and agent.

    Returns:
      Config and params of an ensemble of M * P members for N agents; guess p of member m is member
      m * P + p.
    """
    members, agents, guesses, rank = factors.shape
    weights = jax.tree.map(lambda leaf: jnp.repeat(leaf, guesses, axis=0), dict(params.weights))
    rows = factors.swapaxes(1, 2).reshape(members * guesses, agents, rank)
    weights["agent_encoder"] = {"embedding": rows}
    weights["agent_bias"] = jnp.zeros_like(weights["agent_bias"])
    config = dataclasses.replace(config, num_agents=agents, ensemble_size=members * guesses)
    return config, params._replace(weights=weights)
