"""The networks of CaDM, one member: a context encoder, forward and backward dynamics.

Lee et al., "Context-aware dynamics model for generalization in model-based reinforcement learning",
ICML 2020. What an agent is, is read off its last steps.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from persim_jax import normalizer as normalizer_lib
from persim_jax import ranges
from persim_jax.models.base import History
from persim_jax.models.ensemble import TARGETS
from persim_jax.models.gaussian import BOUND_WEIGHT, Gaussian, GaussianMLP
from persim_jax.networks import MLP
from persim_jax.normalizer import Normalizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CadmChoices:
    """Choices of CaDM that do not follow from the data; hashable.

    Attributes:
      features: Widths of the hidden layers of the forward and of the backward network.
      activation: Of these: "relu", "swish" or "tanh".
      skip: Whether these networks' heads see the inputs beside the hidden features, which the
        authors' do not; see `GaussianMLP`.
      context_features: Widths of the context encoder's hidden layers (ReLU).
      context_size: C, numbers in a context.
      history_length: H, the last steps that a context is made of.
      future_length: F, steps from true states whose losses share a context.
      back_weight: Weight of the backward network's loss.
      variance_power: Of a noisy network's loss, see `gaussian.surprise`; 0 is the likelihood.
      bound_weight: Of the distance between the bounds of its log-variances.
      decays: Weight of half the squared kernels of the forward and of the backward network in the
        loss, for each hidden layer and the heads.
      context_decays: The same for the context encoder's hidden layers; the last is its output's,
        too.
      normalize_context: Scale the differences of states in a history by their statistics in the
        data, as everything else. The authors leave them as they are.
      angles: Coordinates that are angles, which networks see as sine and cosine.
      unseen: Coordinates that the networks do not see.
      absolute: Coordinates whose target is the next value itself and not the difference.
      target: "delta", or "auto", which makes those coordinates absolute too that hardly carry
        over, see `persim_jax.models.ensemble.ABSOLUTE_RATIO`.
    """

    features: tuple[int, ...] = (200,) * 4
    activation: str = "swish"
    skip: bool = False
    context_features: tuple[int, ...] = (256, 128, 64)
    context_size: int = 10
    history_length: int = 10
    future_length: int = 10
    back_weight: float = 0.5
    variance_power: float = 0.0
    bound_weight: float = BOUND_WEIGHT
    decays: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    context_decays: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5)
    normalize_context: bool = False
    angles: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    absolute: tuple[int, ...] = ()
    target: str = "delta"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CadmConfig(CadmChoices):
    """Sizes and choices of CaDM; hashable.

    Attributes:
      obs_size: D.
      action_size: Number of discrete actions, or width A of a continuous one.
      discrete: Whether actions are integers, which the networks see as one-hot vectors.
      ensemble_size: M.
      noisy: Whether the forward network predicts a variance, as in PE-TS.
      particles: P, paths of each member in a rollout.
    """

    obs_size: int
    action_size: int
    discrete: bool
    ensemble_size: int = 1
    noisy: bool = False
    particles: int = 1

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        if self.target not in TARGETS:
            raise ValueError(f"target {self.target!r} is unknown: use one of {TARGETS}")
        sizes = ("ensemble_size", "particles", "context_size", "history_length", "future_length")
        ranges.counts(self, 1, *sizes)
        ranges.widths(self, "features", "context_features")
        ranges.not_negative(self, "back_weight", "variance_power", "bound_weight")
        if not self.context_features:
            raise ValueError("context_features is empty: give the context encoder a hidden layer")
        layers = {"decays": len(self.features) + 1, "context_decays": len(self.context_features)}
        for name, size in layers.items():
            if len(getattr(self, name)) != size:
                raise ValueError(
                    f"{name} are {getattr(self, name)}: there are {size} layers, give one for each"
                )
        for name in ("angles", "unseen", "absolute"):
            chosen = getattr(self, name)
            wrong = [index for index in chosen if not 0 <= index < self.obs_size]
            if wrong or len(set(chosen)) < len(chosen):
                raise ValueError(
                    f"{name} are {chosen}: name each coordinate of the observation once, from 0 to "
                    f"{self.obs_size - 1}"
                )
        if set(self.unseen) & set(self.angles) or len(self.unseen) == self.obs_size:
            raise ValueError(
                f"unseen are {self.unseen} and angles {self.angles} of {self.obs_size} coordinates:"
                " what is not seen is no angle, and something must be seen"
            )

    @property
    def input_size(self) -> int:
        """Numbers of a state that the networks see, I."""
        return self.obs_size - len(self.unseen) + len(self.angles)

    @property
    def history_size(self) -> int:
        """Numbers that the context encoder sees."""
        return self.history_length * (self.obs_size + self.action_size)


class CadmNormalizer(NamedTuple):
    """Scaling of what goes into the networks and of what comes out.

    Attributes:
      obs: Of the visible state, `[I]`.
      actions: `[A]`; None where actions are one-hot.
      target: Of next_obs - carry * obs, `[D]`.
      back_target: Of obs - carry * next_obs, `[D]`.
      carry: `[D]`, 1 where the target is a difference and 0 where it is the value itself.
      context: Of the differences in a history, `[D]`.
      items_per_step: `[]`, steps in a window's future on average.
    """

    obs: Normalizer
    actions: Normalizer | None
    target: Normalizer
    back_target: Normalizer
    carry: jax.Array
    context: Normalizer
    items_per_step: jax.Array


class CadmNetwork(nn.Module):
    """One member: context encoder, forward and backward network."""

    config: CadmConfig

    def setup(self) -> None:
        """Declares the three networks."""
        c = self.config
        self.encoder = MLP((*c.context_features, c.context_size), "relu", initializer="truncated")
        self.forward = forward_network(c)
        self.backward = GaussianMLP(c.features, c.obs_size, c.activation, noisy=False, skip=c.skip)

    def context(self, history: jax.Array) -> jax.Array:
        """Scaled histories `[..., history_size] -> [..., C]`."""
        return self.encoder(history)

    def ahead(self, inputs: jax.Array, context: jax.Array) -> Gaussian:
        """Scaled targets of steps from inputs `[..., I + A]` under contexts `[..., C]`."""
        return self.forward(jnp.concatenate([inputs, context], axis=-1))

    def back(self, inputs: jax.Array, context: jax.Array) -> jax.Array:
        """Scaled targets `[..., D]` of steps back to where inputs `[..., I + A]` came from."""
        return self.backward(jnp.concatenate([inputs, context], axis=-1)).mean

    def __call__(self, history: jax.Array, inputs: jax.Array) -> tuple[Gaussian, jax.Array]:
        """Both ways at once, which makes all weights."""
        context = self.context(history)
        return self.ahead(inputs, context), self.back(inputs, context)


def forward_network(config: CadmConfig) -> GaussianMLP:
    """The forward network, which a rollout runs with the context folded into its weights."""
    c = config
    return GaussianMLP(c.features, c.obs_size, c.activation, noisy=c.noisy, skip=c.skip)


def visible(config: CadmConfig, obs: jax.Array) -> jax.Array:
    """What the networks see of a state, before scaling: `[..., D] -> [..., I]`.

    Sines of the angles stand in their places, cosines at the end.
    """
    cosines: list[jax.Array] = []
    if config.angles:
        angles = jnp.asarray(config.angles)
        turned = obs[..., angles]
        cosines, obs = [jnp.cos(turned)], obs.at[..., angles].set(jnp.sin(turned))
    if config.unseen:
        seen = [index for index in range(config.obs_size) if index not in config.unseen]
        obs = obs[..., jnp.asarray(seen)]
    return jnp.concatenate([obs, *cosines], axis=-1)


def encode_action(
    config: CadmConfig, normalizer: Normalizer | None, actions: jax.Array, dtype: jnp.dtype
) -> jax.Array:
    """One-hot vectors of integers, scaled actions otherwise: `[..., A]`."""
    if config.discrete:
        return jax.nn.one_hot(actions, config.action_size, dtype=dtype)
    return actions if normalizer is None else normalizer_lib.apply(normalizer, actions)


def joined_inputs(
    config: CadmConfig, norm: CadmNormalizer, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """Scaled states and actions side by side, `[..., I + A]`."""
    states = normalizer_lib.apply(norm.obs, visible(config, obs))
    return jnp.concatenate(
        [states, encode_action(config, norm.actions, actions, states.dtype)], axis=-1
    )


def last_steps(history: History, length: int) -> History:
    """The last steps that a history has, from the left and oldest first, the rest masked.

    Args:
      history: `[W, ...]`, W >= 1; slots without a step may stand anywhere in it.
      length: H.

    Returns:
      `[H, ...]`.
    """
    given = history.mask.shape[0]
    order = jnp.argsort(~history.mask, stable=True)
    total = history.mask.sum()
    count = jnp.minimum(total, length)
    slots = jnp.arange(length)
    rows = order[jnp.clip(total - count + slots, 0, given - 1)]
    return History(
        history.obs[rows], history.actions[rows], history.next_obs[rows], mask=slots < count
    )


def no_steps(config: CadmConfig, dtype: jnp.dtype) -> History:
    """The history at the start of an episode: `[H, ...]`, all of it masked."""
    length = config.history_length
    states = jnp.zeros((length, config.obs_size), dtype)
    width = () if config.discrete else (config.action_size,)
    actions = jnp.zeros((length, *width), jnp.int32 if config.discrete else dtype)
    return History(states, actions, states, mask=jnp.zeros(length, bool))


def encode_history(config: CadmConfig, norm: CadmNormalizer, history: History) -> jax.Array:
    """All differences of states and then all actions, oldest first: `[..., history_size]`.

    Slots without a step are zero.
    """
    deltas = history.next_obs - history.obs
    if config.normalize_context:
        deltas = normalizer_lib.apply(norm.context, deltas)
    actions = encode_action(config, norm.actions, history.actions, deltas.dtype)
    taken = history.mask[..., None]
    deltas, actions = jnp.where(taken, deltas, 0.0), jnp.where(taken, actions, 0.0)
    flat = (*history.mask.shape[:-1], -1)
    return jnp.concatenate([deltas.reshape(flat), actions.reshape(flat)], axis=-1)
