"""What discrete BCQ and discrete CQL share: double Q-learning from a fixed set of transitions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners.base import polyak
from persim_jax.networks import MLP
from persim_jax.types import Metrics, Params, Spec, Transitions


@dataclasses.dataclass(frozen=True)
class DiscreteConfig:
    """Settings of the Q-learning; hashable.

    Attributes:
      hidden: Widths of the ReLU layers of each network.
      learning_rate: Of Adam.
      discount: Of a reward one step later.
      target_rate: Share of the way that the target moves at a time; 1 copies.
      target_every: Gradient steps from one move to the next. 1 with a small rate is Polyak's
        average, 8000 with rate 1 is d3rlpy's default.
    """

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    target_every: int = 1

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        ranges.widths(self, "hidden")
        ranges.positive(self, "learning_rate")
        ranges.between(self, 0, 1, "discount", "target_rate")
        ranges.counts(self, 1, "target_every")


@chex.dataclass(frozen=True)
class DiscreteState:
    """What a discrete offline learner has learned.

    Attributes:
      params: All that is learned by gradient; "q" are the Q network's.
      target_params: Of the slow Q network.
      opt_state: Of Adam.
      step: `[]` int32, gradient steps so far.
    """

    params: dict[str, Params]
    target_params: Params
    opt_state: optax.OptState
    step: jax.Array


LossFn = Callable[[dict[str, Params], DiscreteState, Transitions], tuple[jax.Array, Metrics]]
"""`(params, state, batch) -> (loss [], metrics)`, differentiated by its first argument."""


def network(spec: Spec, config: DiscreteConfig) -> MLP:
    """The network from an observation to one number for each action, the last layer linear."""
    return MLP((*config.hidden, spec.num_actions))


def of_actions(values: jax.Array, actions: jax.Array) -> jax.Array:
    """Takes from `values [B, actions]` those of `actions [B]`, which gives `[B]`."""
    return jnp.take_along_axis(values, actions[:, None], axis=-1)[:, 0]


def bootstrapped(
    batch: Transitions, next_target_values: jax.Array, choices: jax.Array, discount: float
) -> jax.Array:
    """Values that the taken actions are regressed on.

    `y = r + discount * (1 - terminated) * Q_target(s', choice)`. A time limit is no termination:
    there the target bootstraps.

    Args:
      batch: B transitions.
      next_target_values: `Q_target(s', .)`, `[B, actions]`.
      choices: `[B]` int, the action chosen in s'.
      discount: Of one step.

    Returns:
      `[B]`, no gradient flows through it.
    """
    following = of_actions(next_target_values, choices)
    targets = batch.rewards + discount * jnp.where(batch.terminated, 0.0, following)
    return jax.lax.stop_gradient(targets)


def check_discrete(spec: Spec, name: str, instead: str) -> None:
    """Raises if a task's actions are continuous.

    Raises:
      ValueError: They are; says which learner to use instead.
    """
    if not spec.discrete:
        raise ValueError(
            f"{spec.name} has continuous actions: {name} needs discrete ones, use {instead}"
        )


def optimizer(config: DiscreteConfig) -> optax.GradientTransformation:
    """Adam on all parameters as one vector, which spares small networks most of its cost."""
    return optax.flatten(optax.adam(config.learning_rate))


def init_state(config: DiscreteConfig, params: dict[str, Params]) -> DiscreteState:
    """The state before the first gradient step; the target is equal to the Q network."""
    return DiscreteState(
        params=params,
        target_params=params["q"],
        opt_state=optimizer(config).init(params),
        step=jnp.zeros((), jnp.int32),
    )


def update_state(
    config: DiscreteConfig, loss_of: LossFn, state: DiscreteState, batch: Transitions
) -> tuple[DiscreteState, Metrics]:
    """One gradient step on a loss, then a move of the target where it is due.

    Args:
      config: Settings.
      loss_of: The learner's loss.
      state: Before the step.
      batch: B transitions.

    Returns:
      The state after it, and the loss's metrics.
    """
    gradient, metrics = jax.grad(loss_of, has_aux=True)(state.params, state, batch)
    updates, opt_state = optimizer(config).update(gradient, state.opt_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    step = state.step + 1
    rate: Any = config.target_rate
    if config.target_every > 1:
        rate = jnp.where(step % config.target_every == 0, config.target_rate, 0.0)
    target_params = polyak(params["q"], state.target_params, rate)
    new = DiscreteState(params=params, target_params=target_params, opt_state=opt_state, step=step)
    return new, metrics
