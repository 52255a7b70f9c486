"""PerSim's factor model: the paper's Section 4, Step 1.

The difference of states that agent n makes by action a in state s is a sum over r factors,

    delta_d(n, s, a) = sum_l u_l(n) v_l(s, d) w_l(a),

with three encoders that share no weights: agents u, states v, actions w. An ensemble of M such
models differs by initialisation and by the order of its minibatches.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax import normalizer as normalizer_lib
from persim_jax.models.base import DynamicsModel, History, ModelParams
from persim_jax.models.ensemble import each_loss, each_member, fit_carry, fit_loss
from persim_jax.models.factor_network import FactorConfig as FactorConfig
from persim_jax.models.factor_network import FactorNetwork, advance, encode, newest
from persim_jax.models.factor_network import FactorNormalizer as FactorNormalizer
from persim_jax.models.factor_network import factor_product as factor_product
from persim_jax.models.factor_network import scale_actions as scale_actions
from persim_jax.models.factor_network import state_inputs as state_inputs
from persim_jax.models.factor_network import trunk as trunk_of
from persim_jax.networks import MLP
from persim_jax.normalizer import Normalizer
from persim_jax.precision import exact
from persim_jax.types import Metrics, Transitions


class BoundFactor(NamedTuple):
    """The ensemble folded for one agent, in raw units.

    Attributes:
      trunk: Weights of the state encoder's hidden layers, leaves `[M, ...]`.
      kernel: `[M, F, X, D]`, the last layer with the agent's factors folded in. X is the number of
        actions when they are integers, their factors folded in too, and 1 + E where these are a
        linear map of few numbers; the rank otherwise.
      bias: `[M, X, D]`.
      action_weights: Weights of the action encoder, used when its factors are not folded in.
      obs_normalizer: Scaling of the state encoder's inputs.
      delta_mean: `[D]`, added to every target.
      carry: `[D]`, see `FactorNormalizer`.
      action_normalizer: Scaling of the action encoder's inputs, or None.
    """

    trunk: Any
    kernel: jax.Array
    bias: jax.Array
    action_weights: Any
    obs_normalizer: Normalizer
    delta_mean: jax.Array
    carry: jax.Array
    action_normalizer: Normalizer | None = None


def predict_delta(
    config: FactorConfig, params: ModelParams, agent: jax.Array, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """Unfolded prediction of every member in raw units.

    Args:
      config: Sizes.
      params: Ensemble.
      agent: `[]` row of the agent.
      obs: `[obs_size]`.
      action: `[]` int32 or `[E]`.

    Returns:
      Predicted next_obs - obs of the newest values, `[M, D]`.
    """
    network, norm = FactorNetwork(config), params.normalizer
    scaled = normalizer_lib.apply(norm.obs, state_inputs(config, obs))
    action = scale_actions(config, norm.actions, action)
    deltas = jax.vmap(lambda w: network.apply({"params": w}, agent, scaled, action))(params.weights)
    return (
        normalizer_lib.invert(norm.delta, deltas) + ((norm.carry - 1) * newest(config, obs))[None]
    )


def agent_factors(config: FactorConfig, params: ModelParams) -> jax.Array:
    """u(n) of every member and agent, `[M, N, r]`."""
    network, agents = FactorNetwork(config), jnp.arange(config.num_agents)
    method = FactorNetwork.agent_factors
    return jax.vmap(lambda w: network.apply({"params": w}, agents, method=method))(params.weights)


@functools.cache
def factor_model(config: FactorConfig) -> DynamicsModel:
    """The factor model as a `DynamicsModel`; the same record for the same config."""
    return DynamicsModel(
        num_members=config.ensemble_size,
        init=functools.partial(_init, config),
        fit_normalizer=functools.partial(_fit_normalizer, config),
        loss=functools.partial(_loss, config),
        bind=exact(functools.partial(_bind, config)),
        encode_actions=exact(functools.partial(_encode_actions, config)),
        start=_start,
        step=exact(functools.partial(_step, config)),
        observe=lambda model_state: model_state,
    )


def _init(config: FactorConfig, key: jax.Array) -> Any:
    network = FactorNetwork(config)
    integers, width = config.tabular_actions, config.action_input_size
    action = jnp.zeros((), jnp.int32) if integers else jnp.zeros(width)
    agent, inputs = jnp.zeros((), jnp.int32), jnp.zeros(config.input_size)

    def init_member(member: jax.Array) -> Any:
        return network.init(jax.random.fold_in(key, member), agent, inputs, action)["params"]

    return jax.vmap(init_member)(jnp.arange(config.ensemble_size))


def _fit_normalizer(config: FactorConfig, data: Transitions) -> FactorNormalizer:
    unit = normalizer_lib.identity(config.target_size)
    obs = normalizer_lib.identity(config.input_size)
    if config.normalize_obs:
        obs = normalizer_lib.fit(state_inputs(config, data.obs))
    carry = fit_carry(config.target, newest(config, data.obs), newest(config, data.next_obs))
    target = _target(config, carry, data)
    delta = normalizer_lib.fit(target) if config.normalize_delta else unit
    return FactorNormalizer(obs, delta, carry, _action_normalizer(config, data.actions))


def _action_normalizer(config: FactorConfig, actions: jax.Array) -> Normalizer | None:
    """Scaling of the action encoder's input `[E]`, in which a one-hot action stays as it is."""
    if config.tabular_actions or not config.normalize_actions:
        return None
    fitted = normalizer_lib.fit(actions)
    if not config.discrete:
        return fitted
    is_input = jnp.arange(config.action_input_size) >= config.action_size
    return Normalizer(
        mean=jnp.where(is_input, fitted.mean, 0.0), std=jnp.where(is_input, fitted.std, 1.0)
    )


def _target(config: FactorConfig, carry: jax.Array, data: Transitions) -> jax.Array:
    """What is predicted, in raw units, `[..., D]`."""
    obs = newest(config, data.obs)
    return newest(config, data.next_obs) - obs * carry.reshape((1,) * (obs.ndim - 1) + (-1,))


def _loss(
    config: FactorConfig, params: ModelParams, batch: Transitions, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    del key
    network, norm = FactorNetwork(config), params.normalizer
    obs = normalizer_lib.apply(norm.obs, state_inputs(config, batch.obs))
    target = normalizer_lib.apply(norm.delta, _target(config, norm.carry, batch))
    actions = scale_actions(config, norm.actions, batch.actions)

    def member_loss(weights: Any, agent: Any, obs: Any, actions: Any, target: Any) -> Any:
        predicted = network.apply({"params": weights}, agent, obs, actions)
        fit, mse = fit_loss(predicted - target, config.huber)
        if not config.agent_penalty:
            return fit, mse
        rows = weights["agent_encoder"]["embedding"][agent]
        return fit + config.agent_penalty * jnp.mean(jnp.square(rows)), mse

    arguments = (params.weights, batch.agent, obs, actions, target)
    losses, mse = each_loss(member_loss, arguments)
    return losses, {"mse": mse}


def _bind(
    config: FactorConfig, params: ModelParams, agent: jax.Array, history: History | None
) -> BoundFactor:
    del history
    network, norm = FactorNetwork(config), params.normalizer

    def fold(weights: Any) -> tuple[jax.Array, jax.Array]:
        variables = {"params": weights}
        u = network.apply(variables, agent, method=FactorNetwork.agent_factors)
        kernel = weights["state_head"]["kernel"].reshape(-1, config.target_size, config.rank)
        bias = weights["state_head"]["bias"].reshape(config.target_size, config.rank)
        scale = norm.delta.std[:, None] * u[None, :]  # [D, r]
        kernel, bias = kernel * scale[None], bias * scale
        if not _folds_actions(config):
            return jnp.moveaxis(kernel, 1, 2), bias.T
        w = _action_table(config, variables)
        return jnp.einsum("fdr,ar->fad", kernel, w), jnp.einsum("dr,ar->ad", bias, w)

    kernel, bias = jax.vmap(fold)(params.weights)
    return BoundFactor(
        trunk=params.weights["state_trunk"],
        kernel=kernel,
        bias=bias,
        action_weights=params.weights["action_encoder"],
        obs_normalizer=norm.obs,
        delta_mean=norm.delta.mean,
        carry=norm.carry,
        action_normalizer=norm.actions,
    )


def _folds_actions(config: FactorConfig) -> bool:
    """Whether action factors are folded: few actions, or a linear map from fewer than r numbers."""
    linear = not config.action_features and config.action_input_size + 1 < config.rank
    return config.tabular_actions or linear


def _action_table(config: FactorConfig, variables: Any) -> jax.Array:
    """Action factors `[X, r]`: of each discrete action, or of 1 and of each coordinate."""
    table = functools.partial(
        FactorNetwork(config).apply, variables, method=FactorNetwork.action_factors
    )
    if config.tabular_actions:
        return jnp.asarray(table(jnp.arange(config.action_size)))
    size = config.action_input_size
    constant = table(jnp.zeros((1, size)))
    return jnp.concatenate([constant, table(jnp.eye(size)) - constant])


def _encode_actions(config: FactorConfig, bound: BoundFactor, actions: jax.Array) -> Any:
    """What `_step` takes: `_weights_of`; with lags, also the action `[..., E]` to remember."""
    weights = _weights_of(config, bound, actions)
    return (weights, encode(config, actions)) if config.lags > 1 else weights


def _weights_of(config: FactorConfig, bound: BoundFactor, actions: jax.Array) -> jax.Array:
    """What multiplies the folded layer.

    One-hot `[..., 1, A]`, (1, action) `[..., 1, E + 1]` or action factors `[..., M, r]`.
    """
    inputs = encode(config, scale_actions(config, bound.action_normalizer, actions))
    if config.tabular_actions:
        return inputs[..., None, :]
    if _folds_actions(config):
        return jnp.concatenate([jnp.ones_like(inputs[..., :1]), inputs], axis=-1)[..., None, :]
    encoder = MLP((*config.action_features, config.rank), config.activation)
    factors = jax.vmap(lambda w: encoder.apply({"params": w}, inputs), out_axes=-2)
    return factors(bound.action_weights)


def _start(bound: BoundFactor, obs: jax.Array) -> jax.Array:
    return jnp.broadcast_to(obs, (bound.kernel.shape[0], *obs.shape))


def _step(
    config: FactorConfig, key: jax.Array, bound: BoundFactor, obs: jax.Array, encoded: Any
) -> jax.Array:
    del key
    encoded, taken = encoded if config.lags > 1 else (encoded, None)
    trunk = trunk_of(config)

    def member(weights: Any, kernel: Any, bias: Any, obs: Any, weight: Any) -> jax.Array:
        scaled = normalizer_lib.apply(bound.obs_normalizer, state_inputs(config, obs))
        features = trunk.apply({"params": weights}, scaled)
        if config.skip:
            features = jnp.concatenate([features, scaled])
        columns = (features @ kernel.reshape(kernel.shape[0], -1)).reshape(bias.shape) + bias
        moved = jnp.sum(weight[:, None] * columns, axis=0) + bound.delta_mean
        after = (bound.carry * newest(config, obs) + moved).astype(obs.dtype)
        return after if taken is None else advance(config, obs, after, taken)

    weights = jnp.broadcast_to(encoded, (obs.shape[0], encoded.shape[-1]))
    ensemble = (bound.trunk, bound.kernel, bound.bias, obs, weights)
    return each_member(member, ensemble, max(config.state_features))
