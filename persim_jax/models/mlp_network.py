"""The network of the MLP models, one member: hidden layers on state, action and perhaps agent."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from persim_jax.models.ensemble import TARGETS
from persim_jax.networks import ACTIVATIONS, MLP, uniform_fan_in
from persim_jax.normalizer import Normalizer
from persim_jax.precision import dot_general

AGENTS = ("none", "embedding", "separate")


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """Sizes and choices of an MLP model; hashable.

    Attributes:
      num_agents: Rows of the agent table, N.
      obs_size: Numbers in an observation, D.
      action_size: Number of discrete actions, or width A of a continuous one.
      discrete: Whether actions are integers.
      agents: How agents are told apart. "none" is one network of state and action. "embedding" is
        one network that also sees a learned vector of the agent, concatenated to the two. With
        "separate" each agent has a network of its own, which sees that agent's transitions only.
      networks: Rows of the agents that have a network of their own, L of them; empty is all. For
        any other agent predictions are NaN.
      embedding_size: Width of an agent's vector.
      hidden: Widths of the hidden layers; none makes a linear model.
      activation: "relu", "swish" or "tanh".
      layer_norm: Standardise the inputs of the activations over a layer.
      skip: Give the last layer the inputs beside the hidden features.
      ensemble_size: M.
      normalize_obs: Scale observations by their statistics in the data.
      normalize_delta: Scale the targets, so that every coordinate counts alike in the loss.
      target: "delta" or "auto", see `ensemble.fit_carry`.
      huber: Scaled error from which the loss grows linearly; 0 is the squared loss throughout.
    """

    num_agents: int
    obs_size: int
    action_size: int
    discrete: bool
    agents: str = "none"
    networks: tuple[int, ...] = ()
    embedding_size: int = 0
    hidden: tuple[int, ...] = (64,)
    activation: str = "relu"
    layer_norm: bool = False
    skip: bool = False
    ensemble_size: int = 5
    normalize_obs: bool = True
    normalize_delta: bool = True
    target: str = "delta"
    huber: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what would silently be another choice."""
        choices = {"agents": AGENTS, "target": TARGETS, "activation": tuple(ACTIVATIONS)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown: use one of {known}")
        if (self.agents == "embedding") != (self.embedding_size > 0):
            raise ValueError(
                f"embedding_size is {self.embedding_size} with agents {self.agents!r}: it is the "
                "width of the vectors of 'embedding', and 0 otherwise"
            )
        wrong = [row for row in self.networks if not 0 <= row < self.num_agents]
        if wrong or len(set(self.networks)) < len(self.networks):
            raise ValueError(
                f"networks are {self.networks}: name each agent's row once, from 0 to "
                f"{self.num_agents - 1}"
            )
        if self.networks and self.agents != "separate":
            raise ValueError(f"networks are {self.networks} with agents {self.agents!r}: one for "
                             "each agent is agents='separate'")  # fmt: skip

    @property
    def input_size(self) -> int:
        """Numbers that the first layer sees."""
        return self.obs_size + self.action_size + self.embedding_size

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the agents that have a network of their own, `[L]`."""
        return self.networks or tuple(range(self.num_agents))

    @property
    def num_parameters(self) -> int:
        """Trained numbers of one member, or of one of its networks with "separate"."""
        widths = (self.input_size, *self.hidden)
        layers = sum((before + 1) * after for before, after in itertools.pairwise(widths))
        last = widths[-1] + (self.input_size if self.hidden and self.skip else 0)
        return layers + (last + 1) * self.obs_size + self.num_agents * self.embedding_size


class MLPNormalizer(NamedTuple):
    """Scaling of inputs and targets; with "separate" each network has its own, leaves `[L, ...]`.

    Attributes:
      obs: Of the observation, `[D]`.
      delta: Of the target, next_obs - carry * obs, `[D]`.
      carry: `[D]`, see `ensemble.fit_carry`.
    """

    obs: Normalizer
    delta: Normalizer
    carry: jax.Array


class MLPNetwork(nn.Module):
    """One member: `concat(state, action[, vector]) -> hidden -> scaled target`."""

    config: MLPConfig

    def setup(self) -> None:
        """Declares the layers."""
        c = self.config
        if c.agents == "embedding":
            init = uniform_fan_in(c.num_agents)
            self.embedding = self.param("embedding", init, (c.num_agents, c.embedding_size))
        if c.hidden:
            self.trunk = MLP(
                c.hidden, c.activation, activate_final=True, layer_norm=c.layer_norm
            )  # fmt: skip
        fan_in = c.hidden[-1] + c.skip * c.input_size if c.hidden else c.input_size
        init = uniform_fan_in(fan_in)
        self.head = nn.Dense(c.obs_size, kernel_init=init, bias_init=init, dot_general=dot_general)

    def __call__(self, agent: jax.Array, obs: jax.Array, actions: jax.Array) -> jax.Array:
        """Scaled target `[..., D]` of scaled `obs [..., D]`, encoded `actions [..., A]`."""
        inputs = [obs, actions]
        if self.config.agents == "embedding":
            inputs.append(jnp.take(self.embedding, agent, axis=0))
        return self.layers(jnp.concatenate(inputs, axis=-1))

    def layers(self, inputs: jax.Array) -> jax.Array:
        """`[..., I] -> [..., D]`."""
        if not self.config.hidden:
            return self.head(inputs)
        features = self.trunk(inputs)
        if self.config.skip:
            features = jnp.concatenate([features, inputs], axis=-1)
        return self.head(features)


def without_agents(config: MLPConfig) -> MLPConfig:
    """The config of a network whose weights are those of one agent."""
    return dataclasses.replace(config, agents="none", networks=(), embedding_size=0)


def fold_embedding(config: MLPConfig, weights: Any, agent: jax.Array) -> Any:
    """Weights of the network of state and action that one agent's vector makes of it.

    The vector is constant for an agent, so what it adds to a layer goes into that layer's bias.

    Args:
      config: With agents "embedding".
      weights: Of one member.
      agent: `[]` row.

    Returns:
      Weights of `without_agents(config)`.
    """
    vector = jnp.take(weights["embedding"], agent, axis=0)
    known = config.obs_size + config.action_size

    def folded(layer: Any, before: int) -> Any:
        """A layer whose inputs are `before` features, then state, action and vector."""
        split = before + known
        return {
            "kernel": layer["kernel"][:split],
            "bias": layer["bias"] + vector @ layer["kernel"][split:],
        }

    if not config.hidden:
        return {"head": folded(weights["head"], 0)}
    trunk = weights["trunk"] | {"dense_0": folded(weights["trunk"]["dense_0"], 0)}
    head = folded(weights["head"], config.hidden[-1]) if config.skip else weights["head"]
    return {"trunk": trunk, "head": head}
