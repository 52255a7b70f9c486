"""PerSim's factor model: the paper's Section 4, Step 1.

The difference of states that agent n makes by action a in state s is a sum over r factors,

    delta_d(n, s, a) = sum_l u_l(n) v_l(s, d) w_l(a),

with three encoders that share no weights: agents u, states v, actions w. An ensemble of M such
models differs by initialisation and by the order of its minibatches.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from persim_jax import normalizer as normalizer_lib
from persim_jax.models.base import DynamicsModel, History, ModelParams
from persim_jax.networks import MLP, uniform_fan_in
from persim_jax.normalizer import Normalizer
from persim_jax.precision import dot_general
from persim_jax.types import Metrics, Transitions


@dataclasses.dataclass(frozen=True)
class FactorConfig:
    """Sizes and choices of the factor model; hashable.

    Attributes:
      num_agents: Rows of the agent table, N.
      obs_size: D.
      action_size: Number of discrete actions, or width A of a continuous one.
      discrete: Whether actions are integers.
      rank: r, the number of latent factors.
      state_features: Widths of the state encoder's hidden layers.
      action_features: Widths of the action encoder's hidden layers; none makes it one linear map.
      activation: "relu", "swish" or "tanh".
      skip: Give the state encoder's last layer the state itself beside the hidden features, so
        that what is linear in the state stays linear outside the data.
      ensemble_size: M.
      normalize_obs: Scale the inputs of the state encoder by their statistics in the data.
      normalize_delta: Scale the targets, so that every coordinate counts alike in the loss.
      agent_start: Initial value of the agent encoder's shared bias; None draws it as PyTorch does.
        At 1 every agent starts as the population.
      agent_penalty: Weight of the mean square of an agent's own embedding row in the loss, which
        holds an agent with little data close to the population.
      huber: Scaled error from which the loss grows linearly and no longer as the square, so that
        rare jumps (a wall) do not drown what is smooth; 0 is the squared loss throughout.
    """

    num_agents: int
    obs_size: int
    action_size: int
    discrete: bool
    rank: int
    state_features: tuple[int, ...] = (256,)
    action_features: tuple[int, ...] = ()
    activation: str = "relu"
    skip: bool = False
    ensemble_size: int = 5
    normalize_obs: bool = False
    normalize_delta: bool = False
    agent_start: float | None = None
    agent_penalty: float = 0.0
    huber: float = 0.0


class FactorNormalizer(NamedTuple):
    """Scaling of the state encoder's input and of the target."""

    obs: Normalizer
    delta: Normalizer


class BoundFactor(NamedTuple):
    """The ensemble folded for one agent, in raw units.

    Attributes:
      trunk: Weights of the state encoder's hidden layers, leaves `[M, ...]`.
      kernel: `[M, F, X, D]`, the last layer with the agent's factors folded in. X is the number of
        actions when they are discrete, their factors folded in too; the rank otherwise.
      bias: `[M, X, D]`.
      action_weights: Weights of the action encoder, used when actions are continuous.
      obs_normalizer: Scaling of the inputs.
      delta_mean: `[D]`, added to every difference.
    """

    trunk: Any
    kernel: jax.Array
    bias: jax.Array
    action_weights: Any
    obs_normalizer: Normalizer
    delta_mean: jax.Array


class FactorNetwork(nn.Module):
    """One member: three encoders and their product."""

    config: FactorConfig

    def setup(self) -> None:
        """Declares the three encoders."""
        c = self.config
        # PyTorch's linear layer on a one-hot agent is an embedding row plus a shared bias.
        row_init = uniform_fan_in(c.num_agents)
        bias_init = row_init if c.agent_start is None else nn.initializers.constant(c.agent_start)
        self.agent_encoder = nn.Embed(c.num_agents, c.rank, embedding_init=row_init)
        self.agent_bias = self.param("agent_bias", bias_init, (c.rank,))
        self.state_trunk = MLP(c.state_features, c.activation, activate_final=True)
        head_init = uniform_fan_in(c.state_features[-1] + c.skip * c.obs_size)
        self.state_head = nn.Dense(
            c.obs_size * c.rank, kernel_init=head_init, bias_init=head_init, name="state_head",
            dot_general=dot_general,
        )  # fmt: skip
        self.action_encoder = MLP((*c.action_features, c.rank), c.activation)

    def agent_factors(self, agent: jax.Array) -> jax.Array:
        """u(n): `[...] -> [..., r]`."""
        row = self.agent_encoder(agent)
        return row + self.agent_bias.reshape((1,) * (row.ndim - 1) + (-1,))

    def state_features(self, obs: jax.Array) -> jax.Array:
        """Inputs of the state encoder's last layer: scaled `[..., D] -> [..., F]`."""
        hidden = self.state_trunk(obs)
        return jnp.concatenate([hidden, obs], axis=-1) if self.config.skip else hidden

    def state_factors(self, obs: jax.Array) -> jax.Array:
        """v(s): scaled `[..., D] -> [..., D, r]`."""
        flat = self.state_head(self.state_features(obs))
        return flat.reshape(*flat.shape[:-1], self.config.obs_size, self.config.rank)

    def action_factors(self, actions: jax.Array) -> jax.Array:
        """w(a): `[...]` int32 or `[..., A] -> [..., r]`."""
        return self.action_encoder(encode(self.config, actions))

    def __call__(self, agent: jax.Array, obs: jax.Array, actions: jax.Array) -> jax.Array:
        """Scaled difference `[..., D]`: the sum over l of u_l(n) v_l(s, d) w_l(a)."""
        u, v, w = self.agent_factors(agent), self.state_factors(obs), self.action_factors(actions)
        return factor_product(u, v, w)


def factor_product(u: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
    """delta_d = sum over l of u_l v_{d, l} w_l.

    Args:
      u: Agent factors `[..., r]`.
      v: State factors `[..., D, r]`.
      w: Action factors `[..., r]`.

    Returns:
      Differences of states `[..., D]`.
    """
    return jnp.sum(u[..., None, :] * v * w[..., None, :], axis=-1)


def encode(config: FactorConfig, actions: jax.Array) -> jax.Array:
    """Float inputs of the action encoder: one-hot if discrete, the action itself otherwise."""
    return jax.nn.one_hot(actions, config.action_size) if config.discrete else actions


def predict_delta(
    config: FactorConfig, params: ModelParams, agent: jax.Array, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """Unfolded prediction of every member in raw units.

    Args:
      config: Sizes.
      params: Ensemble.
      agent: `[]` row of the agent.
      obs: `[D]`.
      action: `[]` int32 or `[A]`.

    Returns:
      Predicted next_obs - obs, `[M, D]`.
    """
    network, norm = FactorNetwork(config), params.normalizer
    scaled = normalizer_lib.apply(norm.obs, obs)
    deltas = jax.vmap(lambda w: network.apply({"params": w}, agent, scaled, action))(params.weights)
    return normalizer_lib.invert(norm.delta, deltas)


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
        bind=functools.partial(_bind, config),
        encode_actions=functools.partial(_encode_actions, config),
        start=_start,
        step=functools.partial(_step, config),
        observe=lambda model_state: model_state,
    )


def _init(config: FactorConfig, key: jax.Array) -> Any:
    network = FactorNetwork(config)
    action = jnp.zeros((), jnp.int32) if config.discrete else jnp.zeros(config.action_size)
    agent, obs = jnp.zeros((), jnp.int32), jnp.zeros(config.obs_size)

    def init_member(member: jax.Array) -> Any:
        return network.init(jax.random.fold_in(key, member), agent, obs, action)["params"]

    return jax.vmap(init_member)(jnp.arange(config.ensemble_size))


def _fit_normalizer(config: FactorConfig, data: Transitions) -> FactorNormalizer:
    unit = normalizer_lib.identity(config.obs_size)
    obs = normalizer_lib.fit(data.obs) if config.normalize_obs else unit
    if not config.normalize_delta:
        return FactorNormalizer(obs, unit)
    return FactorNormalizer(obs, normalizer_lib.fit(data.next_obs - data.obs))


def _loss(
    config: FactorConfig, params: ModelParams, batch: Transitions, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    del key
    network, norm = FactorNetwork(config), params.normalizer
    obs = normalizer_lib.apply(norm.obs, batch.obs)
    target = normalizer_lib.apply(norm.delta, batch.next_obs - batch.obs)

    def member_loss(weights: Any, agent: Any, obs: Any, actions: Any, target: Any) -> Any:
        predicted = network.apply({"params": weights}, agent, obs, actions)
        error = predicted - target
        mse = jnp.mean(jnp.square(error))
        # Twice the usual definition, so that small errors count as in the squared loss.
        fit = 2 * jnp.mean(optax.huber_loss(error, delta=config.huber)) if config.huber else mse
        if not config.agent_penalty:
            return fit, mse
        rows = weights["agent_encoder"]["embedding"][agent]
        return fit + config.agent_penalty * jnp.mean(jnp.square(rows)), mse

    arguments = (params.weights, batch.agent, obs, batch.actions, target)
    if jax.tree.leaves(params.weights)[0].shape[0] == 1:
        # A batched product of one is three times slower than a plain one on a CPU.
        losses, mse = member_loss(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return losses[None], {"mse": mse[None]}
    losses, mse = jax.vmap(member_loss)(*arguments)
    return losses, {"mse": mse}


def _bind(
    config: FactorConfig, params: ModelParams, agent: jax.Array, history: History | None
) -> BoundFactor:
    del history
    network, norm = FactorNetwork(config), params.normalizer

    def fold(weights: Any) -> tuple[jax.Array, jax.Array]:
        variables = {"params": weights}
        u = network.apply(variables, agent, method=FactorNetwork.agent_factors)
        kernel = weights["state_head"]["kernel"].reshape(-1, config.obs_size, config.rank)
        bias = weights["state_head"]["bias"].reshape(config.obs_size, config.rank)
        scale = norm.delta.std[:, None] * u[None, :]  # [D, r]
        kernel, bias = kernel * scale[None], bias * scale
        if not config.discrete:
            return jnp.moveaxis(kernel, 1, 2), bias.T
        actions = jnp.arange(config.action_size)
        w = network.apply(variables, actions, method=FactorNetwork.action_factors)
        return jnp.einsum("fdr,ar->fad", kernel, w), jnp.einsum("dr,ar->ad", bias, w)

    kernel, bias = jax.vmap(fold)(params.weights)
    return BoundFactor(
        trunk=params.weights["state_trunk"],
        kernel=kernel,
        bias=bias,
        action_weights=params.weights["action_encoder"],
        obs_normalizer=norm.obs,
        delta_mean=norm.delta.mean,
    )


def _encode_actions(config: FactorConfig, bound: BoundFactor, actions: jax.Array) -> jax.Array:
    """What multiplies the folded layer: one-hot `[..., 1, A]` or action factors `[..., M, r]`."""
    inputs = encode(config, actions)
    if config.discrete:
        return inputs[..., None, :]
    encoder = MLP((*config.action_features, config.rank), config.activation)
    factors = jax.vmap(lambda w: encoder.apply({"params": w}, inputs), out_axes=-2)
    return factors(bound.action_weights)


def _start(bound: BoundFactor, obs: jax.Array) -> jax.Array:
    return jnp.broadcast_to(obs, (bound.kernel.shape[0], *obs.shape))


def _step(
    config: FactorConfig, key: jax.Array, bound: BoundFactor, obs: jax.Array, encoded: jax.Array
) -> jax.Array:
    del key
    trunk = MLP(config.state_features, config.activation, activate_final=True)

    def member(weights: Any, kernel: Any, bias: Any, obs: Any, weight: Any) -> jax.Array:
        scaled = normalizer_lib.apply(bound.obs_normalizer, obs)
        features = trunk.apply({"params": weights}, scaled)
        if config.skip:
            features = jnp.concatenate([features, scaled])
        columns = (features @ kernel.reshape(kernel.shape[0], -1)).reshape(bias.shape) + bias
        return obs + jnp.sum(weight[:, None] * columns, axis=0) + bound.delta_mean

    weights = jnp.broadcast_to(encoded, (obs.shape[0], encoded.shape[-1]))
    return jax.vmap(member)(bound.trunk, bound.kernel, bound.bias, obs, weights)
