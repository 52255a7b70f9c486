"""Ensemble training: one compiled program for an epoch of every member."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.types import PyTree, Transitions

SCHEDULES = ("constant", "cosine", "halve")


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How an ensemble is trained; hashable.

    Attributes:
      num_epochs: Passes over the data.
      batch_size: Transitions in a minibatch, for each member.
      learning_rate: Adam's, at the start.
      schedule: "cosine" to zero over all steps, "halve" after every `halve_every` epochs (the
        authors'), or "constant".
      halve_every: Epochs between two halvings.
      weight_decay: Decoupled (AdamW); zero is Adam.
    """

    num_epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    halve_every: int = 150
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} is unknown: use one of {SCHEDULES}")
        for name in ("num_epochs", "batch_size", "halve_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")


class FitState(NamedTuple):
    """Everything that training goes on from, so that a resumed run repeats an unbroken one.

    Attributes:
      params: The ensemble.
      opt_state: The optimiser's state, leaves `[M, ...]`.
      key: Root of all minibatch orders; epoch e uses `fold_in(key, e)`.
      epoch: `[]` int32, epochs done.
    """

    params: ModelParams
    opt_state: PyTree
    key: jax.Array
    epoch: jax.Array


class DivergedError(FloatingPointError):
    """A member's loss is no longer finite."""


def steps_per_epoch(config: FitConfig, num_transitions: int) -> int:
    """Minibatches in an epoch; the last, smaller one is left out, a lone smaller one is kept."""
    return max(1, num_transitions // config.batch_size)


def optimizer(config: FitConfig, num_transitions: int) -> optax.GradientTransformation:
    """Adam or AdamW with the config's schedule, for one member."""
    per_epoch = steps_per_epoch(config, num_transitions)
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.learning_rate, per_epoch * config.num_epochs)
    elif config.schedule == "halve":
        every = per_epoch * config.halve_every
        rate = optax.exponential_decay(config.learning_rate, every, 0.5, staircase=True)
    return optax.adamw(rate, weight_decay=config.weight_decay) if config.weight_decay else (
        optax.adam(rate)
    )


def init(
    key: jax.Array, model: DynamicsModel, data: Transitions, config: FitConfig
) -> FitState:
    """State before the first epoch; the key is consumed."""
    key_init, key_order = jax.random.split(key)
    params = ModelParams(model.init(key_init), model.fit_normalizer(data))
    with jax.numpy_rank_promotion("allow"):  # optax counts steps in scalars
        opt_state = jax.vmap(optimizer(config, data.agent.shape[0]).init)(params.weights)
    return FitState(params, opt_state, key_order, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("model", "config"))
def run_epoch(
    model: DynamicsModel, config: FitConfig, state: FitState, data: Transitions
) -> tuple[FitState, jax.Array]:
    """Trains every member for one epoch on its own order of the same data.

    Args:
      model: Dynamics, static.
      config: Static.
      state: Where training stands.
      data: B transitions.

    Returns:
      The new state and the mean loss of each member `[M]`. A member whose loss or gradient stops
      being finite keeps its last good weights, and its loss is NaN.
    """
    size = data.agent.shape[0]
    steps = steps_per_epoch(config, size)
    batch_size = min(config.batch_size, size)
    key_order, key_loss = jax.random.split(jax.random.fold_in(state.key, state.epoch))
    keys = jax.vmap(functools.partial(jax.random.fold_in, key_order))(jnp.arange(model.num_members))
    order = jax.vmap(lambda key: jax.random.permutation(key, size))(keys)
    order = order[:, : steps * batch_size].reshape(-1, steps, batch_size).swapaxes(0, 1)
    with jax.numpy_rank_promotion("allow"):
        update = jax.vmap(optimizer(config, size).update)

    def step(carry: tuple[PyTree, PyTree], xs: tuple[jax.Array, jax.Array]) -> Any:
        weights, opt_state = carry
        rows, index = xs
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        key = jax.random.fold_in(key_loss, index)

        def total(weights: PyTree) -> tuple[jax.Array, jax.Array]:
            losses, _ = model.loss(ModelParams(weights, state.params.normalizer), batch, key)
            return losses.sum(), losses

        grads, losses = jax.grad(total, has_aux=True)(weights)
        updates, new_opt_state = update(grads, opt_state, weights)
        good = jnp.isfinite(losses) & _finite_members(grads)
        new = (optax.apply_updates(weights, updates), new_opt_state)
        return _where_members(good, new, carry), jnp.where(good, losses, jnp.nan)

    carry = (state.params.weights, state.opt_state)
    (weights, opt_state), losses = lax.scan(step, carry, (order, jnp.arange(steps)))
    params = state.params._replace(weights=weights)
    return FitState(params, opt_state, state.key, state.epoch + 1), losses.mean(axis=0)


def _finite_members(tree: PyTree) -> jax.Array:
    """Whether all of a member's numbers are finite, `[M]`."""
    leaves = [jnp.isfinite(x).reshape(x.shape[0], -1).all(axis=1) for x in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all(axis=0)


def _where_members(good: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(good.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def fit(
    model: DynamicsModel,
    config: FitConfig,
    state: FitState,
    data: Transitions,
    on_epoch: Callable[[FitState, jax.Array], None] = lambda state, losses: None,
) -> FitState:
    """Trains to `config.num_epochs`, from wherever `state` stands.

    Args:
      model: Dynamics.
      config: How.
      state: From `init`, or restored.
      data: Transitions on the device.
      on_epoch: Called after each epoch with the new state and the losses `[M]`, for logs and
        checkpoints.

    Returns:
      The final state.

    Raises:
      DivergedError: A member's loss is not finite; says which and when. `on_epoch` was last called
        with a good state.
    """
    while int(state.epoch) < config.num_epochs:
        new_state, losses = run_epoch(model, config, state, data)
        bad = [m for m, loss in enumerate(losses.tolist()) if loss != loss]
        if bad:
            raise DivergedError(
                f"the loss of member(s) {bad} is not finite in epoch {int(new_state.epoch)} at a "
                f"learning rate of {config.learning_rate:g}: lower config.fit.learning_rate, and "
                "look for extreme values in the data"
            )
        state = new_state
        on_epoch(state, losses)
    return state
