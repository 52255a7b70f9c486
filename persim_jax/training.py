"""Ensemble training: Adam on minibatches, then L-BFGS on large ones, for all members at once.

A noise-free factor model is a badly conditioned least-squares problem: Adam brings a member near a
solution and second-order steps take it there. An epoch of either kind is one compiled program over
all members, and a run is a sequence of epochs that can be cut anywhere between two of them.
"""

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

MEMORY_SIZE = 30
"""Past steps from which L-BFGS builds its curvature."""
SCHEDULES = ("constant", "cosine", "halve")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How an ensemble is trained; hashable.

    Attributes:
      num_epochs: Passes over the data.
      batch_size: Transitions in a minibatch, for each member.
      learning_rate: Adam's, at the start.
      schedule: "cosine" to zero over all steps, "halve" after every `halve_every` epochs (the
        authors'), or "constant".
      halve_every: Epochs between two halvings.
      weight_decay: Decoupled (AdamW); zero is Adam.
      polish_rounds: Rounds of L-BFGS after the epochs; each draws its transitions afresh.
      polish_steps: L-BFGS steps in a round.
      polish_size: Transitions in a round, for each member; all where there are fewer.
      member_chunk: Members trained side by side; 0 is all of them, right for an accelerator. On a
        CPU small batched products cost three times as much as single ones, so 1 is right there.
    """

    num_epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    halve_every: int = 150
    weight_decay: float = 0.0
    polish_rounds: int = 0
    polish_steps: int = 200
    polish_size: int = 16384
    member_chunk: int = 1

    @property
    def num_rounds(self) -> int:
        """Epochs and polishing rounds together."""
        return self.num_epochs + self.polish_rounds

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} is unknown: use one of {SCHEDULES}")
        for name in ("num_epochs", "batch_size", "halve_every", "polish_steps", "polish_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")


class TrainState(NamedTuple):
    """Everything that training goes on from, so that a resumed run repeats an unbroken one.

    Attributes:
      params: The ensemble.
      opt_state: The optimiser's state, leaves `[M, ...]`.
      key: Root of all minibatch orders; epoch or round e uses `fold_in(key, e)`.
      epoch: `[]` int32, epochs and polishing rounds done.
    """

    params: ModelParams
    opt_state: PyTree
    key: jax.Array
    epoch: jax.Array


class DivergedError(FloatingPointError):
    """A member's loss is no longer finite."""


def steps_per_epoch(config: TrainConfig, num_transitions: int) -> int:
    """Minibatches in an epoch; the last, smaller one is left out, a lone smaller one is kept."""
    return max(1, num_transitions // config.batch_size)


def optimizer(config: TrainConfig, num_transitions: int) -> optax.GradientTransformation:
    """Adam or AdamW with the config's schedule, for one member."""
    per_epoch = steps_per_epoch(config, num_transitions)
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.learning_rate, per_epoch * config.num_epochs)
    elif config.schedule == "halve":
        every = per_epoch * config.halve_every
        rate = optax.exponential_decay(config.learning_rate, every, 0.5, staircase=True)
    return (
        optax.adamw(rate, weight_decay=config.weight_decay)
        if config.weight_decay
        else (optax.adam(rate))
    )


def init(
    key: jax.Array, model: DynamicsModel, data: Transitions, config: TrainConfig
) -> TrainState:
    """State before the first epoch; the key is consumed."""
    key_init, key_order = jax.random.split(key)
    params = ModelParams(model.init(key_init), model.fit_normalizer(data))
    opt_state = jax.vmap(_relaxed(optimizer(config, data.agent.shape[0]).init))(params.weights)
    return TrainState(params, opt_state, key_order, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("model", "config"))
def run_epoch(
    model: DynamicsModel, config: TrainConfig, state: TrainState, data: Transitions
) -> tuple[TrainState, jax.Array]:
    """Trains every member for one epoch of Adam on its own order of the same data.

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
    steps, batch_size = steps_per_epoch(config, size), min(config.batch_size, size)
    update = optimizer(config, size).update
    key_epoch = jax.random.fold_in(state.key, state.epoch)

    def one(member: jax.Array, weights: PyTree, opt_state: PyTree) -> Any:
        key_order, key_loss = jax.random.split(jax.random.fold_in(key_epoch, member))
        order = jax.random.permutation(key_order, size)[: steps * batch_size]
        loss = _member_loss(model, state.params.normalizer)

        def step(carry: tuple[PyTree, PyTree], xs: tuple[jax.Array, jax.Array]) -> Any:
            index, rows = xs
            weights, opt_state = carry
            batch = jax.tree.map(lambda leaf: leaf[rows], data)
            key = jax.random.fold_in(key_loss, index)
            value, grads = jax.value_and_grad(loss)(weights, batch, key)
            updates, opt_state = _relaxed(update)(grads, opt_state, weights)
            good = jnp.isfinite(value) & _finite(grads)
            new = (_relaxed(optax.apply_updates)(weights, updates), opt_state)
            return _where(good, new, carry), jnp.where(good, value, jnp.nan)

        xs = (jnp.arange(steps), order.reshape(steps, batch_size))
        (weights, opt_state), values = lax.scan(step, (weights, opt_state), xs)
        return weights, opt_state, values.mean()

    weights, opt_state, losses = _over_members(one, model, config)(
        state.params.weights, state.opt_state
    )
    params = state.params._replace(weights=weights)
    return TrainState(params, opt_state, state.key, state.epoch + 1), losses


@functools.partial(jax.jit, static_argnames=("model", "config"))
def polish(
    model: DynamicsModel, config: TrainConfig, state: TrainState, data: Transitions
) -> tuple[TrainState, jax.Array]:
    """One round of L-BFGS for every member, each on its own draw of the data.

    The curvature memory starts empty in every round, so nothing but the weights is carried over.

    Args:
      model: Dynamics, static.
      config: Static.
      state: Where training stands.
      data: B transitions.

    Returns:
      The new state and the loss of each member at the end `[M]`. A member that leaves the finite
      numbers keeps its weights from before the round, and its loss is NaN.
    """
    size = data.agent.shape[0]
    key_round = jax.random.fold_in(state.key, state.epoch)

    def one(member: jax.Array, weights: PyTree) -> tuple[PyTree, jax.Array]:
        key_draw, key_loss = jax.random.split(jax.random.fold_in(key_round, member))
        rows = jax.random.permutation(key_draw, size)[: config.polish_size]
        batch = jax.tree.map(lambda leaf: leaf[rows], data)
        loss = functools.partial(
            _member_loss(model, state.params.normalizer), batch=batch, key=key_loss
        )
        new, value = _lbfgs(loss, weights, config.polish_steps)
        good = jnp.isfinite(value) & _finite(new)
        return _where(good, new, weights), jnp.where(good, value, jnp.nan)

    weights, losses = _over_members(one, model, config)(state.params.weights)
    params = state.params._replace(weights=weights)
    return state._replace(params=params, epoch=state.epoch + 1), losses


@functools.partial(jax.jit, static_argnames=("model", "config"))
def member_losses(
    model: DynamicsModel, config: TrainConfig, params: ModelParams, data: Transitions
) -> jax.Array:
    """Training loss of every member over all of the data, `[M]`."""
    loss, key = _member_loss(model, params.normalizer), jax.random.key(0)
    return _over_members(lambda _, weights: loss(weights, data, key), model, config)(params.weights)


def keep_best(params: ModelParams, losses: jax.Array, count: int) -> ModelParams:
    """The `count` members with the lowest of the losses `[M]`, in their old order."""
    kept = jnp.sort(jnp.argsort(losses)[:count])
    return params._replace(weights=jax.tree.map(lambda leaf: leaf[kept], params.weights))


def _member_loss(model: DynamicsModel, normalizer: PyTree) -> Callable[..., jax.Array]:
    """`(weights, batch, key) -> []`: the loss of one member, without its axis."""

    def loss(weights: PyTree, batch: Transitions, key: jax.Array) -> jax.Array:
        weights, batch = jax.tree.map(lambda leaf: leaf[None], (weights, batch))
        return model.loss(ModelParams(weights, normalizer), batch, key)[0][0]

    return loss


def _over_members(function: Callable, model: DynamicsModel, config: TrainConfig) -> Callable:
    """Lifts `(member [], *trees) -> trees` to all members, `config.member_chunk` at a time."""
    chunk = config.member_chunk or model.num_members

    def lifted(*trees: PyTree) -> PyTree:
        xs = (jnp.arange(model.num_members), *trees)
        if chunk == 1:
            return lax.map(lambda x: function(*x), xs)
        return lax.map(lambda x: function(*x), xs, batch_size=chunk)

    return lifted


def _relaxed(function: Callable) -> Callable:
    """Runs a function of optax, which mixes scalars and arrays, under JAX's standard promotion."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return call


def _lbfgs(
    loss: Callable[[PyTree], jax.Array], weights: PyTree, num_steps: int
) -> tuple[PyTree, jax.Array]:
    """Minimises `loss` from `weights`; returns the new weights and their loss `[]`."""
    method = optax.lbfgs(memory_size=MEMORY_SIZE)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        weights, opt_state = carry
        value, grad = value_and_grad(weights, state=opt_state)
        updates, opt_state = method.update(
            grad, opt_state, weights, value=value, grad=grad, value_fn=loss
        )
        return (optax.apply_updates(weights, updates), opt_state), None

    start = (weights, _relaxed(method.init)(weights))
    (weights, _), _ = lax.scan(_relaxed(step), start, length=num_steps)
    return weights, loss(weights)


def _finite(tree: PyTree) -> jax.Array:
    """Whether all numbers of a tree are finite, `[]`."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _where(good: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def train(
    model: DynamicsModel,
    config: TrainConfig,
    state: TrainState,
    data: Transitions,
    on_epoch: Callable[[TrainState, jax.Array], None] = lambda state, losses: None,
) -> TrainState:
    """Trains to the end of the config's epochs and rounds, from wherever `state` stands.

    Args:
      model: Dynamics.
      config: How.
      state: From `init`, or restored.
      data: Transitions on the device.
      on_epoch: Called after each epoch or round with the new state and the losses `[M]`, for logs
        and checkpoints.

    Returns:
      The final state.

    Raises:
      DivergedError: A member's loss is not finite; says which and when. `on_epoch` was last called
        with a good state.
    """
    while int(state.epoch) < config.num_rounds:
        advance = run_epoch if int(state.epoch) < config.num_epochs else polish
        new_state, losses = advance(model, config, state, data)
        bad = [m for m, loss in enumerate(losses.tolist()) if loss != loss]
        if bad:
            raise DivergedError(
                f"the loss of member(s) {bad} is not finite in epoch {int(new_state.epoch)} at a "
                f"learning rate of {config.learning_rate:g}: lower config.train.learning_rate, and "
                "look for extreme values in the data"
            )
        state = new_state
        on_epoch(state, losses)
    return state
