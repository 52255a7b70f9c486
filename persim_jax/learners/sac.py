"""SAC: an actor whose actions are a squashed Gaussian, two critics, a learned temperature.

Haarnoja et al., 2018; the learner that continuous CQL adds its conservative term to.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners import continuous
from persim_jax.learners.base import Learner, polyak
from persim_jax.learners.continuous import adam, critic_values, descend
from persim_jax.networks import MLP
from persim_jax.types import Metrics, Params, Spec, Transitions

LOG_STD_BOUNDS = (-20.0, 2.0)
_LOG_2PI = 1.8378770664093453


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Settings of SAC; hashable.

    Attributes:
      hidden: Widths of the ReLU layers of actor and critics.
      actor_rate: Learning rate of the actor and of the temperature.
      critic_rate: Learning rate of the critics.
      discount: Of a reward one step later.
      target_rate: Polyak rate per gradient step.
      backup_entropy: Whether the target has the entropy of the next action in it. CQL's authors
        leave it out.
      temperature: At the start, positive.
    """

    hidden: tuple[int, ...] = (256, 256)
    actor_rate: float = 1e-4
    critic_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    backup_entropy: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant; of a temperature the logarithm is learned."""
        ranges.widths(self, "hidden")
        ranges.positive(self, "actor_rate", "critic_rate", "temperature")
        ranges.between(self, 0, 1, "discount", "target_rate")


@chex.dataclass(frozen=True)
class SACState:
    """What SAC has learned.

    Attributes:
      actor: Of the policy; all that acting needs.
      critics: Of both critics, leaves `[2, ...]`.
      target_critics: The critics', slower.
      log_temperature: `[]`.
      opt_states: Of the three Adams, by name.
    """

    actor: Params
    critics: Params
    target_critics: Params
    log_temperature: jax.Array
    opt_states: dict[str, optax.OptState]


def gaussian(
    spec: Spec, config: SACConfig, actor: Params, obs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and log standard deviation before squashing, each `[..., A]`."""
    net = MLP((*config.hidden, 2 * spec.action_size))
    mean, log_std = jnp.split(net.apply(actor, obs), 2, axis=-1)
    return mean, jnp.clip(log_std, *LOG_STD_BOUNDS)


def sample_actions(
    key: jax.Array, spec: Spec, config: SACConfig, actor: Params, obs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Draws unit actions and says how dense the policy is there.

    `a = tanh(u)`, `log p(a) = sum_i (log N(u_i) - log(1 - a_i^2))`, the last term in a form that
    does not round to infinity: `2 (log 2 - u - softplus(-2 u))`.

    Args:
      key: Consumed.
      spec: Of the task.
      config: Settings.
      actor: Parameters of the policy.
      obs: `[..., D]`.

    Returns:
      Unit actions `[..., A]` and their log densities `[...]`.
    """
    mean, log_std = gaussian(spec, config, actor, obs)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    raw = mean + jnp.exp(log_std) * noise
    density = -0.5 * jnp.square(noise) - log_std - 0.5 * _LOG_2PI
    squash = 2.0 * (jnp.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))
    return jnp.tanh(raw), (density - squash).sum(axis=-1)


def sac_targets(
    key: jax.Array, spec: Spec, config: SACConfig, state: SACState, batch: Transitions
) -> jax.Array:
    """`r + discount * (1 - terminated) * (min_i Q_i'(s', a') [- temperature * log p(a')])`, `[B]`.

    Args:
      key: Consumed, for `a'` from the policy.
      spec: Of the task.
      config: Settings; `backup_entropy` brings the term in brackets in.
      state: Policy, targets and temperature.
      batch: B transitions.
    """
    actions, density = sample_actions(key, spec, config, state.actor, batch.next_obs)
    values = critic_values(config.hidden, state.target_critics, batch.next_obs, actions).min(axis=0)
    if config.backup_entropy:
        values = values - jnp.exp(state.log_temperature) * density
    return continuous.bootstrap(batch.rewards, batch.terminated, values, config.discount)


def td_error(values: jax.Array, targets: jax.Array) -> jax.Array:
    """Sum over critics of the mean squared error of `[2, B]` against `[B]`, `[]`."""
    return jnp.square(values - targets[None]).mean(axis=1).sum()


def improve_actor(
    key: jax.Array, spec: Spec, config: SACConfig, state: SACState, batch: Transitions
) -> SACState:
    """One step of actor and temperature, then the targets follow.

    The actor minimises `mean(temperature * log p(a) - min_i Q_i(s, a))`, the temperature
    `-mean(log temperature * (log p(a) - A))`, which holds the entropy at minus the number of action
    coordinates.

    Args:
      key: Consumed.
      spec: Of the task.
      config: Settings.
      state: With the critics as they are after their own step.
      batch: B transitions.

    Returns:
      The new state.
    """
    temperature = jnp.exp(state.log_temperature)

    def loss_of(actor: Params) -> tuple[jax.Array, jax.Array]:
        actions, density = sample_actions(key, spec, config, actor, batch.obs)
        values = critic_values(config.hidden, state.critics, batch.obs, actions).min(axis=0)
        return (temperature * density - values).mean(), density.mean()

    opt_states = dict(state.opt_states)
    gradient, density = jax.grad(loss_of, has_aux=True)(state.actor)
    actor, opt_states["actor"] = descend(
        config.actor_rate, gradient, opt_states["actor"], state.actor
    )
    # Where JAX knows 64 bits the data may be of them and the temperature is not.
    slope = (spec.action_size - density).astype(state.log_temperature.dtype)
    log_temperature, opt_states["temperature"] = descend(
        config.actor_rate, slope, opt_states["temperature"], state.log_temperature
    )
    return state.replace(  # type: ignore[attr-defined,no-any-return]
        actor=actor,
        log_temperature=log_temperature,
        target_critics=polyak(state.critics, state.target_critics, config.target_rate),
        opt_states=opt_states,
    )


def init_sac(spec: Spec, config: SACConfig, key: jax.Array) -> SACState:
    """The state before the first gradient step; consumes `key`."""
    actor_key, critic_key = jax.random.split(key)
    actor = MLP((*config.hidden, 2 * spec.action_size)).init(actor_key, jnp.zeros(spec.obs_size))
    critics = continuous.init_critics(critic_key, config.hidden, spec)
    # Not weakly typed, which would compile the second update anew.
    log_temperature = jnp.full((), math.log(config.temperature), jnp.float32)
    return SACState(
        actor=actor,
        critics=critics,
        target_critics=critics,
        log_temperature=log_temperature,
        opt_states={
            "actor": adam(config.actor_rate).init(actor),
            "critics": adam(config.critic_rate).init(critics),
            "temperature": adam(config.actor_rate).init(log_temperature),
        },
    )


def act_sac(
    spec: Spec, config: SACConfig, key: jax.Array, state: Any, obs: jax.Array, explore: jax.Array
) -> jax.Array:
    """`tanh(mean + explore * std * noise)` within the bounds of an action, `[D] -> [A]`."""
    mean, log_std = gaussian(spec, config, state.actor, obs)
    noise = explore * jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)
    return continuous.from_unit(spec, jnp.tanh(mean + noise))


@functools.lru_cache(maxsize=64)
def make_sac(spec: Spec, config: SACConfig) -> Learner:
    """Builds SAC for a task with continuous actions.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `SACState`; `explore` of `act` scales the policy's own noise, 1 is all of it.

    Raises:
      ValueError: If actions are discrete.
    """
    continuous.check_continuous(spec, "SAC", "DQN")

    def update(key: jax.Array, state: SACState, batch: Transitions) -> tuple[SACState, Metrics]:
        target_key, actor_key = jax.random.split(key)
        targets = sac_targets(target_key, spec, config, state, batch)
        actions = continuous.to_unit(spec, batch.actions)

        def loss_of(critics: Params) -> tuple[jax.Array, jax.Array]:
            values = critic_values(config.hidden, critics, batch.obs, actions)
            return td_error(values, targets), values.mean()

        (loss, q), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.critics)
        opt_states = dict(state.opt_states)
        critics, opt_states["critics"] = descend(
            config.critic_rate, gradient, opt_states["critics"], state.critics
        )
        state = state.replace(critics=critics, opt_states=opt_states)  # type: ignore[attr-defined]
        return improve_actor(actor_key, spec, config, state, batch), {"loss": loss, "q": q}

    return Learner(
        init=functools.partial(init_sac, spec, config),
        update=update,
        act=functools.partial(act_sac, spec, config),
    )
