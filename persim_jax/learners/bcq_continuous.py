"""BCQ for continuous actions: Q-learning among slightly perturbed actions that the data may hold.

Fujimoto et al., 2019, "Off-policy deep reinforcement learning without exploration".
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners import continuous
from persim_jax.learners.base import Learner, polyak
from persim_jax.learners.continuous import adam, critic_values, descend, join
from persim_jax.networks import MLP
from persim_jax.types import Metrics, Params, Spec, Transitions

LATENT_BOUND = 0.5
"""Latents are cut to this when actions are decoded, to stay near what the data hold."""
LOG_STD_BOUNDS = (-4.0, 15.0)


@dataclasses.dataclass(frozen=True)
class ContinuousBCQConfig:
    """Settings of continuous BCQ; hashable. The authors' values are in parentheses.

    Attributes:
      hidden: Widths of the ReLU layers of critics and perturbation (400, 300).
      vae_hidden: Of encoder and decoder (750, 750).
      learning_rate: Of each Adam (1e-3).
      discount: Of a reward one step later.
      target_rate: Polyak rate per gradient step.
      perturbation: Largest change of a decoded action, as a share of half its range (0.05).
      softness: Weight of the smaller of the two values; the larger has the rest (0.75).
      num_target_actions: Actions among which the target takes the best (10).
      num_actions: Actions among which acting takes the best (100).
    """

    hidden: tuple[int, ...] = (256, 256)
    vae_hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    discount: float = 0.99
    target_rate: float = 0.005
    perturbation: float = 0.05
    softness: float = 0.75
    num_target_actions: int = 10
    num_actions: int = 100

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        ranges.widths(self, "hidden", "vae_hidden")
        ranges.positive(self, "learning_rate")
        ranges.between(self, 0, 1, "discount", "target_rate", "softness")
        ranges.not_negative(self, "perturbation")
        ranges.counts(self, 1, "num_target_actions", "num_actions")


@chex.dataclass(frozen=True)
class ContinuousBCQState:
    """What continuous BCQ has learned.

    Attributes:
      vae: Encoder and decoder.
      actor: The perturbation's parameters.
      critics: Of both critics, leaves `[2, ...]`.
      target_actor: The perturbation's, slower.
      target_critics: The critics', slower.
      opt_states: Of the three Adams, by name.
      latents: `[num_actions, latent]`, what acting decodes, drawn once: the same observation always
        meets the same candidates, so that acting is deterministic.
    """

    vae: dict[str, Params]
    actor: Params
    critics: Params
    target_actor: Params
    target_critics: Params
    opt_states: dict[str, optax.OptState]
    latents: jax.Array


def latent_size(spec: Spec) -> int:
    """Twice the number of action coordinates, as the authors have it."""
    return 2 * spec.action_size


def draw_latents(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers cut to `LATENT_BOUND`; consumes `key`."""
    return jnp.clip(jax.random.normal(key, shape), -LATENT_BOUND, LATENT_BOUND)


def decode(
    spec: Spec, config: ContinuousBCQConfig, decoder: Params, obs: jax.Array, latents: jax.Array
) -> jax.Array:
    """The data's policy: unit actions `[..., A]` of observations and latents."""
    net = MLP((*config.vae_hidden, spec.action_size))
    return jnp.tanh(net.apply(decoder, join(obs, latents)))


def perturb(
    spec: Spec, config: ContinuousBCQConfig, actor: Params, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """`clip(a + perturbation * tanh(network(s, a)), -1, 1)`, `[..., A]`."""
    net = MLP((*config.hidden, spec.action_size))
    change = config.perturbation * jnp.tanh(net.apply(actor, join(obs, actions)))
    return jnp.clip(actions + change, -1.0, 1.0)


def vae_loss(
    key: jax.Array,
    spec: Spec,
    config: ContinuousBCQConfig,
    vae: dict[str, Params],
    obs: jax.Array,
    actions: jax.Array,
) -> jax.Array:
    """`mean (a' - a)^2 + KL / 2` of the conditional autoencoder, both means over batch and size.

    `KL = -1/2 (1 + log std^2 - mean^2 - std^2)` to the standard normal.

    Args:
      key: Consumed.
      spec: Of the task.
      config: Settings.
      vae: "encoder" and "decoder", differentiated.
      obs: `[B, D]`.
      actions: Unit actions `[B, A]`.

    Returns:
      `[]`.
    """
    net = MLP((*config.vae_hidden, 2 * latent_size(spec)))
    mean, log_std = jnp.split(net.apply(vae["encoder"], join(obs, actions)), 2, axis=-1)
    log_std = jnp.clip(log_std, *LOG_STD_BOUNDS)
    latents = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)
    again = decode(spec, config, vae["decoder"], obs, latents)
    divergence = -0.5 * (1.0 + 2.0 * log_std - jnp.square(mean) - jnp.exp(2.0 * log_std))
    return jnp.square(again - actions).mean() + 0.5 * divergence.mean()


def soft_clipped(values: jax.Array, softness: float) -> jax.Array:
    """`softness * min_i Q_i + (1 - softness) * max_i Q_i`, `[2, ...] -> [...]`."""
    return softness * values.min(axis=0) + (1.0 - softness) * values.max(axis=0)


def bcq_targets(
    key: jax.Array,
    spec: Spec,
    config: ContinuousBCQConfig,
    state: ContinuousBCQState,
    batch: Transitions,
) -> jax.Array:
    """`r + discount * (1 - terminated) * max_i soft(Q'(s', a_i))` over decoded, perturbed actions.

    Args:
      key: Consumed.
      spec: Of the task.
      config: Settings.
      state: Targets and decoder in it.
      batch: B transitions.

    Returns:
      `[B]`.
    """
    count = config.num_target_actions
    obs = jnp.repeat(batch.next_obs[:, None], count, axis=1)
    latents = draw_latents(key, (obs.shape[0], count, latent_size(spec)))
    actions = decode(spec, config, state.vae["decoder"], obs, latents)
    actions = perturb(spec, config, state.target_actor, obs, actions)
    values = critic_values(config.hidden, state.target_critics, obs, actions)
    best = soft_clipped(values, config.softness).max(axis=-1)
    return continuous.bootstrap(batch.rewards, batch.terminated, best, config.discount)


def greedy_action(
    spec: Spec, config: ContinuousBCQConfig, state: ContinuousBCQState, obs: jax.Array
) -> jax.Array:
    """The candidate that the first critic likes best, a unit action, `[D] -> [A]`."""
    many = jnp.broadcast_to(obs[None], (config.num_actions, *obs.shape))
    actions = decode(spec, config, state.vae["decoder"], many, state.latents)
    actions = perturb(spec, config, state.actor, many, actions)
    values = critic_values(config.hidden, state.critics, many, actions)[0]
    return actions[jnp.argmax(values)]


@functools.lru_cache(maxsize=64)
def make_continuous_bcq(spec: Spec, config: ContinuousBCQConfig) -> Learner:
    """Builds BCQ for a task with continuous actions.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `ContinuousBCQState`; `explore` of `act` is the standard deviation of Gaussian
      noise, as a share of half the range.

    Raises:
      ValueError: If actions are discrete.
    """
    continuous.check_continuous(spec, "continuous BCQ", "make_discrete_bcq")

    def act(key: jax.Array, state: Any, obs: jax.Array, explore: jax.Array) -> jax.Array:
        action = greedy_action(spec, config, state, obs)
        noise = explore * jax.random.normal(key, action.shape, action.dtype)
        return continuous.from_unit(spec, action + noise)

    return Learner(
        init=functools.partial(_init, spec, config),
        update=functools.partial(_update, spec, config),
        act=act,
    )


def _init(spec: Spec, config: ContinuousBCQConfig, key: jax.Array) -> ContinuousBCQState:
    encoder_key, decoder_key, actor_key, critic_key, latent_key = jax.random.split(key, 5)
    obs, action = jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size)
    latent = jnp.zeros(latent_size(spec))
    encoder = MLP((*config.vae_hidden, 2 * latent_size(spec)))
    decoder = MLP((*config.vae_hidden, spec.action_size))
    vae = {
        "encoder": encoder.init(encoder_key, join(obs, action)),
        "decoder": decoder.init(decoder_key, join(obs, latent)),
    }
    actor = MLP((*config.hidden, spec.action_size)).init(actor_key, join(obs, action))
    critics = continuous.init_critics(critic_key, config.hidden, spec)
    parts = {"vae": vae, "actor": actor, "critics": critics}
    return ContinuousBCQState(
        vae=vae,
        actor=actor,
        critics=critics,
        target_actor=actor,
        target_critics=critics,
        opt_states={n: adam(config.learning_rate).init(part) for n, part in parts.items()},
        latents=draw_latents(latent_key, (config.num_actions, latent_size(spec))),
    )


def _update(
    spec: Spec,
    config: ContinuousBCQConfig,
    key: jax.Array,
    state: ContinuousBCQState,
    batch: Transitions,
) -> tuple[ContinuousBCQState, Metrics]:
    vae_key, target_key, actor_key = jax.random.split(key, 3)
    rate, opt_states = config.learning_rate, dict(state.opt_states)
    actions = continuous.to_unit(spec, batch.actions)

    def loss_of_vae(vae: dict[str, Params]) -> jax.Array:
        return vae_loss(vae_key, spec, config, vae, batch.obs, actions)

    reconstruction, gradient = jax.value_and_grad(loss_of_vae)(state.vae)
    vae, opt_states["vae"] = descend(rate, gradient, opt_states["vae"], state.vae)
    state = state.replace(vae=vae)  # type: ignore[attr-defined]
    targets = bcq_targets(target_key, spec, config, state, batch)

    def loss_of_critics(critics: Params) -> tuple[jax.Array, jax.Array]:
        values = critic_values(config.hidden, critics, batch.obs, actions)
        return jnp.square(values - targets[None]).mean(axis=1).sum(), values.mean()

    (loss, q), gradient = jax.value_and_grad(loss_of_critics, has_aux=True)(state.critics)
    critics, opt_states["critics"] = descend(rate, gradient, opt_states["critics"], state.critics)

    def loss_of_actor(actor: Params) -> jax.Array:
        latents = draw_latents(actor_key, (actions.shape[0], latent_size(spec)))
        decoded = decode(spec, config, vae["decoder"], batch.obs, latents)
        moved = perturb(spec, config, actor, batch.obs, decoded)
        return -critic_values(config.hidden, critics, batch.obs, moved)[0].mean()

    gradient = jax.grad(loss_of_actor)(state.actor)
    actor, opt_states["actor"] = descend(rate, gradient, opt_states["actor"], state.actor)
    new = state.replace(  # type: ignore[attr-defined]
        actor=actor,
        critics=critics,
        target_actor=polyak(actor, state.target_actor, config.target_rate),
        target_critics=polyak(critics, state.target_critics, config.target_rate),
        opt_states=opt_states,
    )
    return new, {"loss": loss, "q": q, "imitation": reconstruction}
