"""DQN: Q-learning with a network, a slow target and a Huber loss (Mnih et al., 2015)."""

from __future__ import annotations

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners.base import Learner, polyak, random_action
from persim_jax.networks import MLP
from persim_jax.types import Metrics, Params, Spec, Transitions


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN; hashable.

    Attributes:
      hidden: Widths of the ReLU layers. The authors have (256, 256).
      learning_rate: Of Adam.
      discount: Of a reward one step later.
      target_rate: Polyak rate per gradient step.
      double: Whether the learned network chooses the action that the target network values
        (van Hasselt et al., 2016); the authors take the target's own maximum.
      obs_scale: What each observation coordinate is multiplied by before the network sees it,
        length D; empty leaves the observation alone.
    """

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    discount: float = 0.99
    target_rate: float = 0.005
    double: bool = False
    obs_scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        ranges.widths(self, "hidden")
        ranges.positive(self, "learning_rate")
        ranges.between(self, 0, 1, "discount", "target_rate")


@chex.dataclass(frozen=True)
class DQNState:
    """What DQN has learned.

    Attributes:
      params: Of the Q network; all that acting needs.
      target_params: The same, slower.
      opt_state: Of Adam.
    """

    params: Params
    target_params: Params
    opt_state: optax.OptState


def td_targets(
    rewards: jax.Array,
    terminated: jax.Array,
    next_target_values: jax.Array,
    next_values: jax.Array,
    discount: float,
    double: bool,
) -> jax.Array:
    """Values that the taken actions are regressed on.

    `y = r + discount * (1 - terminated) * Q_target(s', a*)`, where `a*` maximises `Q_target(s', .)`
    or, for double DQN, `Q(s', .)`. A time limit is no termination: there the target bootstraps.

    Args:
      rewards: `[B]`.
      terminated: `[B]` bool.
      next_target_values: `Q_target(s', .)`, `[B, actions]`.
      next_values: `Q(s', .)`, `[B, actions]`; not used unless `double`.
      discount: Of one step.
      double: Which network chooses the action.

    Returns:
      `[B]`.
    """
    choice = jnp.argmax(next_values if double else next_target_values, axis=-1)
    value = jnp.take_along_axis(next_target_values, choice[:, None], axis=-1)[:, 0]
    return rewards + discount * jnp.where(terminated, 0.0, value)


def td_loss(values: jax.Array, actions: jax.Array, targets: jax.Array) -> jax.Array:
    """Huber loss, with its bend at 1, of the values of the actions taken.

    Args:
      values: `Q(s, .)`, `[B, actions]`.
      actions: `[B]` int32.
      targets: `[B]`.

    Returns:
      Mean over the batch, `[]`.
    """
    taken = jnp.take_along_axis(values, actions[:, None], axis=-1)[:, 0]
    return optax.huber_loss(taken, targets).mean()


def q_network(spec: Spec, config: DQNConfig) -> MLP:
    """Returns the network whose output `[..., actions]` are the values of all actions."""
    return MLP((*config.hidden, spec.num_actions))


def q_values(spec: Spec, config: DQNConfig, params: Params, obs: jax.Array) -> jax.Array:
    """Evaluates `Q(obs, .)`, `[..., D] -> [..., actions]`."""
    if config.obs_scale:
        scale = jnp.asarray(config.obs_scale, obs.dtype)
        obs = obs * jnp.broadcast_to(scale, obs.shape)
    values: jax.Array = q_network(spec, config).apply(params, obs)
    return values


def dqn_loss(
    params: Params, spec: Spec, config: DQNConfig, state: DQNState, batch: Transitions
) -> tuple[jax.Array, Metrics]:
    """Loss of a minibatch.

    Args:
      params: With respect to which it is differentiated. The targets depend on `state` alone, so
        that no gradient flows through them.
      spec: Of the task.
      config: Settings.
      state: Before the gradient step; its `params` are equal to `params`.
      batch: B transitions.

    Returns:
      The mean Huber loss `[]`, and metrics: "loss" and "q", the mean value of the best action.
    """
    targets = td_targets(
        batch.rewards,
        batch.terminated,
        q_values(spec, config, state.target_params, batch.next_obs),
        q_values(spec, config, state.params, batch.next_obs),
        config.discount,
        config.double,
    )
    values = q_values(spec, config, params, batch.obs)
    loss = td_loss(values, batch.actions, targets)
    return loss, {"loss": loss, "q": values.max(axis=-1).mean()}


@functools.lru_cache(maxsize=64)
def make_dqn(spec: Spec, config: DQNConfig) -> Learner:
    """Builds DQN for a task with discrete actions.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `DQNState`; `explore` of `act` is the probability of a random action.

    Raises:
      ValueError: If actions are continuous or `obs_scale` has another length than an observation.
    """
    if not spec.discrete:
        raise ValueError(f"{spec.name} has continuous actions: DQN needs discrete ones, use TD3")
    if config.obs_scale and len(config.obs_scale) != spec.obs_size:
        raise ValueError(
            f"obs_scale has {len(config.obs_scale)} numbers, an observation {spec.obs_size}: "
            "give one for each coordinate, or none"
        )
    optimizer = optax.adam(config.learning_rate)

    def init(key: jax.Array) -> DQNState:
        params = q_network(spec, config).init(key, jnp.zeros(spec.obs_size))
        return DQNState(params=params, target_params=params, opt_state=optimizer.init(params))

    def update(key: jax.Array, state: DQNState, batch: Transitions) -> tuple[DQNState, Metrics]:
        del key  # nothing in DQN's update is random
        gradient, metrics = jax.grad(dqn_loss, has_aux=True)(
            state.params, spec, config, state, batch
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        target_params = polyak(params, state.target_params, config.target_rate)
        new = DQNState(params=params, target_params=target_params, opt_state=opt_state)
        return new, metrics

    def act(key: jax.Array, state: DQNState, obs: jax.Array, explore: jax.Array) -> jax.Array:
        chance_key, action_key = jax.random.split(key)
        greedy = jnp.argmax(q_values(spec, config, state.params, obs)).astype(jnp.int32)
        explores = jax.random.uniform(chance_key) < explore
        return jnp.where(explores, random_action(action_key, spec), greedy)

    return Learner(init=init, update=update, act=act)
