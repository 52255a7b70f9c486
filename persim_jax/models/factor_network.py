"""The network of the factor model, one member: three encoders and their product."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from persim_jax import normalizer as normalizer_lib
from persim_jax import ranges
from persim_jax.models.ensemble import TARGETS as TARGETS
from persim_jax.networks import MLP, uniform_fan_in
from persim_jax.normalizer import Normalizer
from persim_jax.precision import dot_general


@dataclasses.dataclass(frozen=True)
class FactorConfig:
    """Sizes and choices of the factor model; hashable.

    Attributes:
      num_agents: Rows of the agent table, N.
      obs_size: Numbers in an observation: D, or a window of D L + E (L - 1), see `lags`.
      action_size: Number of discrete actions, or width A of a continuous one.
      discrete: Whether actions are integers.
      rank: r, the number of latent factors.
      state_features: Widths of the state encoder's hidden layers.
      action_features: Widths of the action encoder's hidden layers; none makes it one linear map.
      activation: "relu", "swish" or "tanh".
      layer_norm: Standardise the inputs of the state encoder's activations over a layer, which
        bounds what it makes of states outside the data.
      angles: Coordinates of the observation that are angles, which the state encoder sees as sine
        and cosine: what is the same after a full turn should look the same.
      skip: Give the state encoder's last layer the state itself beside the hidden features, so
        that what is linear in the state stays linear outside the data.
      ensemble_size: M.
      normalize_obs: Scale the inputs of the state encoder by their statistics in the data.
      normalize_delta: Scale the targets, so that every coordinate counts alike in the loss.
      target: "delta" predicts differences, as the paper. "auto" predicts the next value itself of a
        coordinate that hardly carries over, see `ensemble.ABSOLUTE_RATIO`.
      agent_start: Initial value of the agent encoder's shared bias; None draws it as PyTorch does.
        At 1 every agent starts as the population.
      agent_penalty: Weight of the mean square of an agent's own embedding row in the loss, which
        holds an agent with little data close to the population.
      huber: Scaled error from which the loss grows linearly and no longer as the square, so that
        rare jumps (a wall) do not drown what is smooth; 0 is the squared loss throughout.
      num_inputs: I, exogenous inputs that the action encoder sees beside the action. Where there
        are any, an action is the vector concat(one-hot or continuous action, inputs),
        `[action_size + I]` in raw units, see `inputs.join_inputs`.
      normalize_actions: Scale continuous actions and inputs by their statistics in the data, so
        that no unit drowns another.
      lags: L. An observation is a window: the last L values of each of D coordinates, newest first,
        and after them the L - 1 encoded actions between them, newest first. The newest values are
        predicted, all others move down.
    """

    num_agents: int
    obs_size: int
    action_size: int
    discrete: bool
    rank: int
    state_features: tuple[int, ...] = (256,)
    action_features: tuple[int, ...] = ()
    activation: str = "relu"
    layer_norm: bool = False
    angles: tuple[int, ...] = ()
    skip: bool = False
    ensemble_size: int = 5
    normalize_obs: bool = False
    normalize_delta: bool = False
    target: str = "delta"
    agent_start: float | None = None
    agent_penalty: float = 0.0
    huber: float = 0.0
    num_inputs: int = 0
    normalize_actions: bool = False
    lags: int = 1

    def __post_init__(self) -> None:
        """Refuses what would silently be another choice, or no model at all."""
        ranges.counts(self, 1, "num_agents", "rank", "ensemble_size")
        if not self.state_features or min((*self.state_features, *self.action_features)) < 1:
            raise ValueError(
                f"state_features are {self.state_features} and action_features "
                f"{self.action_features}: give positive widths, one at least for states"
            )
        ranges.not_negative(self, "agent_penalty", "huber")
        if self.agent_start is not None and not math.isfinite(self.agent_start):
            raise ValueError(f"agent_start is {self.agent_start}: give a number or None")
        if self.target not in TARGETS:
            raise ValueError(f"target {self.target!r} is unknown: use one of {TARGETS}")
        wrong = [angle for angle in self.angles if not 0 <= angle < self.obs_size]
        if wrong or len(set(self.angles)) < len(self.angles):
            raise ValueError(
                f"angles are {self.angles}: name each coordinate of the observation once, from 0 "
                f"to {self.obs_size - 1}"
            )

        newest, rest = divmod(self.obs_size - self._past_actions, max(self.lags, 1))
        if self.lags < 1 or newest < 1 or rest:
            raise ValueError(
                f"obs_size is {self.obs_size} with {self.lags} lags: a window is all lags of the "
                f"coordinates and {self.action_input_size} numbers for each action between them"
            )

    @property
    def input_size(self) -> int:
        """Numbers that the state encoder sees."""
        return self.obs_size + len(self.angles)

    @property
    def target_size(self) -> int:
        """Numbers that are predicted, D."""
        return (self.obs_size - self._past_actions) // self.lags

    @property
    def _past_actions(self) -> int:
        return (self.lags - 1) * self.action_input_size

    @property
    def action_input_size(self) -> int:
        """Numbers that the action encoder sees, E: a one-hot or continuous action, and inputs."""
        return self.action_size + self.num_inputs

    @property
    def tabular_actions(self) -> bool:
        """Whether an action, inputs included, is one of `action_size` integers."""
        return self.discrete and not self.num_inputs


class FactorNormalizer(NamedTuple):
    """Scaling of the inputs of the encoders and of the target.

    Attributes:
      obs: Of the state encoder's input, `[input_size]`.
      delta: Of the target, next_obs - carry * obs, `[D]`.
      carry: `[D]`, 1 where the target is a difference and 0 where it is the next value itself.
      actions: Of the action encoder's input, `[E]`; None where actions are not scaled.
    """

    obs: Normalizer
    delta: Normalizer
    carry: jax.Array
    actions: Normalizer | None = None


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
        self.state_trunk = trunk(c)
        head_init = uniform_fan_in(c.state_features[-1] + c.skip * c.input_size)
        self.state_head = nn.Dense(
            c.target_size * c.rank, kernel_init=head_init, bias_init=head_init, name="state_head",
            dot_general=dot_general,
        )  # fmt: skip
        self.action_encoder = MLP((*c.action_features, c.rank), c.activation)

    def agent_factors(self, agent: jax.Array) -> jax.Array:
        """u(n): `[...] -> [..., r]`."""
        # flax's own lookup refuses a scalar index into a table of one row.
        row = jnp.take(self.agent_encoder.embedding, agent, axis=0)
        return row + self.agent_bias.reshape((1,) * (row.ndim - 1) + (-1,))

    def state_features(self, inputs: jax.Array) -> jax.Array:
        """Inputs of the state encoder's last layer: scaled `[..., I] -> [..., F]`."""
        hidden = self.state_trunk(inputs)
        return jnp.concatenate([hidden, inputs], axis=-1) if self.config.skip else hidden

    def state_factors(self, inputs: jax.Array) -> jax.Array:
        """v(s): scaled `[..., I] -> [..., D, r]`."""
        flat = self.state_head(self.state_features(inputs))
        return flat.reshape(*flat.shape[:-1], self.config.target_size, self.config.rank)

    def action_factors(self, actions: jax.Array) -> jax.Array:
        """w(a): `[...]` int32 or `[..., E]`, scaled by `scale_actions`, `-> [..., r]`."""
        return self.action_encoder(encode(self.config, actions))

    def __call__(self, agent: jax.Array, inputs: jax.Array, actions: jax.Array) -> jax.Array:
        """Scaled difference `[..., D]`: the sum over l of u_l(n) v_l(s, d) w_l(a)."""
        u, v = self.agent_factors(agent), self.state_factors(inputs)
        w = self.action_factors(actions)
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


def trunk(config: FactorConfig) -> MLP:
    """The state encoder's hidden layers."""
    return MLP(
        config.state_features, config.activation, activate_final=True, layer_norm=config.layer_norm
    )


def state_inputs(config: FactorConfig, obs: jax.Array) -> jax.Array:
    """What the state encoder sees, before scaling: `[..., D] -> [..., I]`.

    The sines of the angles stand in their places, the cosines at the end.
    """
    if not config.angles:
        return obs
    angles = jnp.asarray(config.angles)
    turned = obs[..., angles]
    return jnp.concatenate([obs.at[..., angles].set(jnp.sin(turned)), jnp.cos(turned)], axis=-1)


def newest(config: FactorConfig, obs: jax.Array) -> jax.Array:
    """The newest value of each coordinate, `[..., obs_size] -> [..., D]`."""
    return obs if config.lags == 1 else obs[..., : config.target_size]


def advance(
    config: FactorConfig, obs: jax.Array, next_newest: jax.Array, action: jax.Array
) -> jax.Array:
    """The next window: all values and actions move down by one, the oldest drop out.

    Args:
      config: Sizes, with more than one lag.
      obs: `[obs_size]`.
      next_newest: `[D]`.
      action: `[E]`, the encoded action in raw units that led there.

    Returns:
      `[obs_size]`.
    """
    split, width = config.target_size * config.lags, config.action_input_size
    values, actions = obs[: split - config.target_size], obs[split : obs.size - width]
    # Where JAX knows 64 bits a one-hot action has as many, and the window may not.
    return jnp.concatenate([next_newest, values, action.astype(obs.dtype), actions])


def scale_actions(
    config: FactorConfig, normalizer: Normalizer | None, actions: jax.Array
) -> jax.Array:
    """Actions as the action encoder takes them: scaled `[..., E]`; integers stay as they are."""
    if config.tabular_actions or normalizer is None:
        return actions
    return normalizer_lib.apply(normalizer, actions)


def encode(config: FactorConfig, actions: jax.Array) -> jax.Array:
    """Float inputs of the action encoder: one-hot if integers, the vector itself otherwise."""
    return jax.nn.one_hot(actions, config.action_size) if config.tabular_actions else actions
