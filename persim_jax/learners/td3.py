"""TD3: deterministic actor, twin critics, delayed and smoothed targets (Fujimoto et al., 2018)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners.base import Learner, polyak
from persim_jax.networks import MLP
from persim_jax.types import Metrics, Params, Spec, Transitions


@dataclasses.dataclass(frozen=True)
class TD3Config:
    """Settings of TD3; hashable. Noise is in units of half the range of an action.

    Attributes:
      hidden: Widths of the ReLU layers of actor and critics.
      learning_rate: Of Adam, for both.
      discount: Of a reward one step later.
      target_rate: Polyak rate of all targets, at each step of the actor.
      target_noise: Standard deviation of the noise on the target's action.
      noise_clip: Where that noise is cut.
      policy_delay: Steps of the critics for one of the actor. A batch is split into as many parts.
      obs_scale: What each observation coordinate is multiplied by before a network sees it, length
        D; empty leaves the observation alone.
    """

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    target_noise: float = 0.2
    noise_clip: float = 0.5
    policy_delay: int = 2
    obs_scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        ranges.widths(self, "hidden")
        ranges.positive(self, "learning_rate")
        ranges.between(self, 0, 1, "discount", "target_rate")
        ranges.not_negative(self, "target_noise", "noise_clip")
        ranges.counts(self, 1, "policy_delay")


@chex.dataclass(frozen=True)
class TD3State:
    """What TD3 has learned.

    Attributes:
      params: Of the actor; all that acting needs.
      critics: Of both critics, leaves `[2, ...]`.
      target_params: The actor's, slower.
      target_critics: The critics', slower.
      actor_opt_state: Of Adam.
      critic_opt_state: Of Adam.
    """

    params: Params
    critics: Params
    target_params: Params
    target_critics: Params
    actor_opt_state: optax.OptState
    critic_opt_state: optax.OptState


def actor_action(spec: Spec, config: TD3Config, params: Params, obs: jax.Array) -> jax.Array:
    """The deterministic policy, `center + half_range * tanh(network(obs))`.

    Args:
      spec: Of the task.
      config: Settings.
      params: Of the actor.
      obs: `[..., D]`.

    Returns:
      Actions within their bounds, `[..., A]`.
    """
    squashed = jnp.tanh(_actor(spec, config).apply(params, _scaled(config, obs)))
    low, high = _bounds(spec, squashed)
    return (low + high) / 2 + (high - low) / 2 * squashed


def critic_values(
    spec: Spec, config: TD3Config, critics: Params, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    """Both critics' values of actions.

    Args:
      spec: Of the task.
      config: Settings.
      critics: Leaves `[2, ...]`.
      obs: `[..., D]`.
      actions: `[..., A]`.

    Returns:
      `Q_1(obs, actions), Q_2(obs, actions)`, `[2, ...]`.
    """
    del spec
    inputs = jnp.concatenate([_scaled(config, obs), actions], axis=-1)
    # One after the other and not by vmap: small batched products are slow on a CPU.
    both = [jax.tree.map(lambda leaf, i=i: leaf[i], critics) for i in range(2)]
    return jnp.stack([_critic(config).apply(critic, inputs)[..., 0] for critic in both])


def td3_targets(
    key: jax.Array, spec: Spec, config: TD3Config, state: TD3State, batch: Transitions
) -> jax.Array:
    """Values that the critics are regressed on.

    `y = r + discount * (1 - terminated) * min_i Q_i'(s', clip(pi'(s') + clip(noise)))`, the noise
    cut at `noise_clip`, the action at its bounds. A time limit is no termination: there the target
    bootstraps.

    Args:
      key: Consumed.
      spec: Of the task.
      config: Settings.
      state: Targets in it.
      batch: B transitions.

    Returns:
      `[B]`.
    """
    actions = actor_action(spec, config, state.target_params, batch.next_obs)
    low, high = _bounds(spec, actions)
    noise = config.target_noise * jax.random.normal(key, actions.shape, actions.dtype)
    noise = jnp.clip(noise, -config.noise_clip, config.noise_clip) * (high - low) / 2
    actions = jnp.clip(actions + noise, low, high)
    values = critic_values(spec, config, state.target_critics, batch.next_obs, actions).min(axis=0)
    return batch.rewards + config.discount * jnp.where(batch.terminated, 0.0, values)


@functools.lru_cache(maxsize=64)
def make_td3(spec: Spec, config: TD3Config) -> Learner:
    """Builds TD3 for a task with continuous actions.

    An update takes a batch of `policy_delay * B` rows: the critics step once on each part of B
    rows, then the actor and all targets on the last one. That is the published rhythm without a
    branch, which under vmap would cost both sides.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `TD3State`; `explore` of `act` is the standard deviation of Gaussian noise. Its
      `update` refuses a batch that is no multiple of `policy_delay`.

    Raises:
      ValueError: If actions are discrete or `obs_scale` has another length than an observation.
    """
    if spec.discrete:
        raise ValueError(f"{spec.name} has discrete actions: TD3 needs continuous ones, use DQN")
    if config.obs_scale and len(config.obs_scale) != spec.obs_size:
        raise ValueError(
            f"obs_scale has {len(config.obs_scale)} numbers, an observation {spec.obs_size}: "
            "give one for each coordinate, or none"
        )
    return Learner(
        init=functools.partial(_init, spec, config),
        update=functools.partial(_update, spec, config),
        act=functools.partial(_act, spec, config),
    )


def _init(spec: Spec, config: TD3Config, key: jax.Array) -> TD3State:
    actor_key, *critic_keys = jax.random.split(key, 3)
    obs, action = jnp.zeros(spec.obs_size), jnp.zeros(spec.action_size)
    params = _actor(spec, config).init(actor_key, obs)
    critics = jax.vmap(lambda key: _critic(config).init(key, jnp.concatenate([obs, action])))(
        jnp.stack(critic_keys)
    )
    optimizer = optax.adam(config.learning_rate)
    return TD3State(
        params=params,
        critics=critics,
        target_params=params,
        target_critics=critics,
        actor_opt_state=optimizer.init(params),
        critic_opt_state=optimizer.init(critics),
    )


def _update(
    spec: Spec, config: TD3Config, key: jax.Array, state: TD3State, batch: Transitions
) -> tuple[TD3State, Metrics]:
    rows = batch.rewards.shape[0]
    if rows % config.policy_delay:
        raise ValueError(
            f"a batch has {rows} rows: make it a multiple of policy_delay, {config.policy_delay}, "
            "each part being one step of the critics"
        )
    parts = jax.tree.map(lambda leaf: leaf.reshape(config.policy_delay, -1, *leaf.shape[1:]), batch)
    loss = jnp.zeros(())
    for index, part_key in enumerate(jax.random.split(key, config.policy_delay)):
        part = jax.tree.map(lambda leaf, index=index: leaf[index], parts)
        state, loss = _critic_step(spec, config, part_key, state, part)
    state, value = _actor_step(spec, config, state, part)
    return state, {"loss": loss, "q": value}


def _critic_step(
    spec: Spec, config: TD3Config, key: jax.Array, state: TD3State, batch: Transitions
) -> tuple[TD3State, jax.Array]:
    targets = td3_targets(key, spec, config, state, batch)

    def loss_of(critics: Params) -> jax.Array:
        values = critic_values(spec, config, critics, batch.obs, batch.actions)
        return jnp.square(values - targets[None]).mean(axis=1).sum()

    loss, gradient = jax.value_and_grad(loss_of)(state.critics)
    critics, opt_state = _adam(config, gradient, state.critic_opt_state, state.critics)
    return state.replace(critics=critics, critic_opt_state=opt_state), loss  # type: ignore[attr-defined]


def _actor_step(
    spec: Spec, config: TD3Config, state: TD3State, batch: Transitions
) -> tuple[TD3State, jax.Array]:
    first = jax.tree.map(lambda leaf: leaf[0], state.critics)

    def loss_of(params: Params) -> jax.Array:
        actions = actor_action(spec, config, params, batch.obs)
        inputs = jnp.concatenate([_scaled(config, batch.obs), actions], axis=-1)
        return -_critic(config).apply(first, inputs).mean()

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    params, opt_state = _adam(config, gradient, state.actor_opt_state, state.params)
    new = state.replace(  # type: ignore[attr-defined]
        params=params,
        actor_opt_state=opt_state,
        target_params=polyak(params, state.target_params, config.target_rate),
        target_critics=polyak(state.critics, state.target_critics, config.target_rate),
    )
    return new, -loss


def _act(
    spec: Spec, config: TD3Config, key: jax.Array, state: TD3State, obs: Any, explore: Any
) -> jax.Array:
    action = actor_action(spec, config, state.params, obs)
    low, high = _bounds(spec, action)
    noise = explore * jax.random.normal(key, action.shape, action.dtype) * (high - low) / 2
    return jnp.clip(action + noise, low, high)


def _adam(config: TD3Config, gradient: Params, opt_state: Any, params: Params) -> tuple[Any, Any]:
    updates, opt_state = optax.adam(config.learning_rate).update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _actor(spec: Spec, config: TD3Config) -> MLP:
    return MLP((*config.hidden, spec.action_size))


def _critic(config: TD3Config) -> MLP:
    return MLP((*config.hidden, 1))


def _scaled(config: TD3Config, obs: jax.Array) -> jax.Array:
    if not config.obs_scale:
        return obs
    return obs * jnp.broadcast_to(jnp.asarray(config.obs_scale, obs.dtype), obs.shape)


def _bounds(spec: Spec, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bounds of an action as arrays of the shape of `like [..., A]`."""
    low, high = jnp.asarray(spec.action_low, like.dtype), jnp.asarray(spec.action_high, like.dtype)
    return jnp.broadcast_to(low, like.shape), jnp.broadcast_to(high, like.shape)
