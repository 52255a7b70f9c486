"""Ensemble training: Adam on minibatches, then L-BFGS on large ones, for all members at once.

A noise-free factor model is a badly conditioned least-squares problem: Adam brings a member near a
solution and second-order steps take it there. An epoch of either kind is one compiled program over
all members, spread over a mesh of devices where there are several, and a run is a sequence of
epochs that can be cut anywhere between two of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from persim_jax import mesh as mesh_lib
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.optimization import TrainConfig as TrainConfig
from persim_jax.optimization import lbfgs, optimizer, relaxed, steps_per_epoch
from persim_jax.precision import products_in
from persim_jax.types import Items, PyTree

BOOTSTRAP = 2**31 - 1
"""Folded into the root key where epochs fold in their number."""
MAX_JUDGED = 2**20
"""Items at most by whose loss members are compared."""


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


def init(key: jax.Array, model: DynamicsModel, data: Items, config: TrainConfig) -> TrainState:
    """State before the first epoch; the key is consumed."""
    key_init, key_order = jax.random.split(key)
    params = ModelParams(model.init(key_init), model.fit_normalizer(data))
    opt_state = jax.vmap(relaxed(optimizer(config, data.num_items).init))(params.weights)
    return TrainState(params, opt_state, key_order, jnp.zeros((), jnp.int32))


def place(state: TrainState, mesh: Mesh | None) -> TrainState:
    """Deals the members out over a mesh; the state is the same, and so are its checkpoints."""
    return TrainState(
        params=ModelParams(
            mesh_lib.by_member(mesh, state.params.weights),
            mesh_lib.everywhere(mesh, state.params.normalizer),
        ),
        opt_state=mesh_lib.by_member(mesh, state.opt_state),
        key=mesh_lib.everywhere(mesh, state.key),
        epoch=mesh_lib.everywhere(mesh, state.epoch),
    )


@functools.partial(jax.jit, static_argnames=("model", "config", "mesh"))
def run_epoch(
    model: DynamicsModel,
    config: TrainConfig,
    state: TrainState,
    data: Items,
    mesh: Mesh | None = None,
) -> tuple[TrainState, jax.Array]:
    """Trains every member for one epoch of Adam on its own order of the same data.

    Args:
      model: Dynamics, static.
      config: Static.
      state: Where training stands; on the mesh, see `place`.
      data: B items.
      mesh: Static; None is one device. The numbers are the same on each, but for rounding.

    Returns:
      The new state and the mean loss of each member `[M]`. A member whose loss or gradient stops
      being finite keeps its last good weights, and its loss is NaN.
    """
    weights, opt_state, losses = _epoch(model, config, state, data, mesh, jnp.mean)
    params = state.params._replace(weights=weights)
    return TrainState(params, opt_state, state.key, state.epoch + 1), losses


@functools.partial(jax.jit, static_argnames=("model", "config", "mesh"))
def step_losses(
    model: DynamicsModel,
    config: TrainConfig,
    state: TrainState,
    data: Items,
    mesh: Mesh | None = None,
) -> jax.Array:
    """The loss of each step of the epoch that `run_epoch` would do, `[M, steps]`."""
    return _epoch(model, config, state, data, mesh, lambda values: values)[2]


def _epoch(
    model: DynamicsModel,
    config: TrainConfig,
    state: TrainState,
    data: Items,
    mesh: Mesh | None,
    summary: Callable[[jax.Array], jax.Array],
) -> tuple[PyTree, PyTree, jax.Array]:
    """New weights and optimiser states, and a summary of each member's losses `[steps]`."""
    size = data.num_items
    steps, batch_size = steps_per_epoch(config, size), min(config.batch_size, size)
    update = relaxed(optimizer(config, size).update)

    def one(member: jax.Array, shared: PyTree, weights: PyTree, opt_state: PyTree) -> Any:
        data, normalizer, key_epoch = shared
        key_order, key_loss = jax.random.split(jax.random.fold_in(key_epoch, member))
        order = jax.random.permutation(key_order, size)[: steps * batch_size]
        order = _own_sample(config, state.key, member, order, size)
        order = mesh_lib.own_part(mesh, order.reshape(steps, batch_size))
        loss = mesh_lib.mean_over_batch(mesh, member_loss(model, normalizer))

        def step(carry: tuple[PyTree, PyTree], xs: tuple[jax.Array, jax.Array]) -> Any:
            index, rows = xs
            weights, opt_state = carry
            batch = data.take(rows)
            key = jax.random.fold_in(key_loss, index)
            value, grads = jax.value_and_grad(loss)(weights, batch, key)
            updates, opt_state = update(grads, opt_state, weights)
            good = jnp.isfinite(value) & _finite(grads)
            new = (relaxed(optax.apply_updates)(weights, updates), opt_state)
            return _where(good, new, carry), jnp.where(good, value, jnp.nan)

        xs = (jnp.arange(steps), order)
        (weights, opt_state), values = lax.scan(step, (weights, opt_state), xs)
        return weights, opt_state, summary(values)

    shared = (data, state.params.normalizer, jax.random.fold_in(state.key, state.epoch))
    lifted = mesh_lib.over_members(one, model.num_members, config.member_chunk, mesh)
    with products_in(config.precision):
        return lifted(shared, state.params.weights, state.opt_state)


@functools.partial(jax.jit, static_argnames=("model", "config", "mesh"))
def polish(
    model: DynamicsModel,
    config: TrainConfig,
    state: TrainState,
    data: Items,
    mesh: Mesh | None = None,
) -> tuple[TrainState, jax.Array]:
    """One round of L-BFGS for every member, each on its own draw of the data.

    The curvature memory starts empty in every round, so nothing but the weights is carried over.

    Args:
      model: Dynamics, static.
      config: Static.
      state: Where training stands; on the mesh, see `place`.
      data: B items.
      mesh: Static; None is one device.

    Returns:
      The new state and the loss of each member at the end `[M]`. A member that leaves the finite
      numbers keeps its weights from before the round, and its loss is NaN.
    """
    size = data.num_items

    def one(member: jax.Array, shared: PyTree, weights: PyTree) -> tuple[PyTree, jax.Array]:
        data, normalizer, key_round = shared
        key_draw, key_loss = jax.random.split(jax.random.fold_in(key_round, member))
        rows = jax.random.permutation(key_draw, size)[: config.polish_size]
        rows = _own_sample(config, state.key, member, rows, size)
        rows = mesh_lib.own_part(mesh, rows)
        batch = data.take(rows)
        whole = mesh_lib.mean_over_batch(mesh, member_loss(model, normalizer))
        loss = lambda weights: whole(weights, batch, key_loss)  # noqa: E731
        new, value = lbfgs(loss, weights, config.polish_steps)
        good = jnp.isfinite(value) & _finite(new)
        return _where(good, new, weights), jnp.where(good, value, jnp.nan)

    shared = (data, state.params.normalizer, jax.random.fold_in(state.key, state.epoch))
    lifted = mesh_lib.over_members(one, model.num_members, config.member_chunk, mesh)
    with products_in("highest"):
        weights, losses = lifted(shared, state.params.weights)
    params = state.params._replace(weights=weights)
    return state._replace(params=params, epoch=state.epoch + 1), losses


@functools.partial(jax.jit, static_argnames=("model", "config", "mesh"))
def member_losses(
    model: DynamicsModel,
    config: TrainConfig,
    params: ModelParams,
    data: Items,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Training loss of every member, `[M]`, computed once by each member.

    It is that over all of the data, or over evenly spaced items where there are more than
    `MAX_JUDGED`: at once they would need a hundred times the memory that training them takes.
    """
    every = -(-data.num_items // MAX_JUDGED)

    def one(member: jax.Array, shared: PyTree, weights: PyTree) -> jax.Array:
        data, normalizer = shared
        batch = data.take(jnp.arange(0, data.num_items, every))
        return member_loss(model, normalizer)(weights, batch, jax.random.key(0))

    lifted = mesh_lib.over_members(one, model.num_members, config.member_chunk, mesh)
    with products_in("highest"):
        losses: jax.Array = lifted((data, params.normalizer), params.weights)
    return losses


def keep_best(params: ModelParams, losses: jax.Array, count: int) -> ModelParams:
    """The `count` members with the lowest of the losses `[M]`, in their old order."""
    kept = jnp.sort(jnp.argsort(losses)[:count])
    return params._replace(weights=jax.tree.map(lambda leaf: leaf[kept], params.weights))


def member_loss(model: DynamicsModel, normalizer: PyTree) -> Callable[..., jax.Array]:
    """`(weights, batch, key) -> []`: the loss of one member, without its axis."""

    def loss(weights: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        dtype = jax.tree.leaves(weights)[0].dtype
        weights, batch = jax.tree.map(lambda leaf: leaf[None], (weights, batch))
        # Where JAX knows 64 bits, float32 weights may meet float64 data: optimisers refuse the mix.
        return model.loss(ModelParams(weights, normalizer), batch, key)[0][0].astype(dtype)

    return loss


def _own_sample(
    config: TrainConfig, key: jax.Array, member: jax.Array, rows: jax.Array, size: int
) -> jax.Array:
    """Which items stand in some rows of a member's data: with bootstrap a draw with replacement.

    The draw is the same in every epoch: it stands for other data, not for another order.
    """
    if not config.bootstrap:
        return rows
    key_draw = jax.random.fold_in(jax.random.fold_in(key, BOOTSTRAP), member)
    return jax.random.randint(key_draw, (size,), 0, size)[rows]


def _finite(tree: PyTree) -> jax.Array:
    """Whether all numbers of a tree are finite, `[]`."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _where(good: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def train(
    model: DynamicsModel,
    config: TrainConfig,
    state: TrainState,
    data: Items,
    on_epoch: Callable[[TrainState, jax.Array], None] = lambda state, losses: None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains to the end of the config's epochs and rounds, from wherever `state` stands.

    Args:
      model: Dynamics.
      config: How.
      state: From `init`, or restored.
      data: What a minibatch is drawn from.
      on_epoch: Called after each epoch or round with the new state and the losses `[M]`, for logs
        and checkpoints.
      mesh: Devices; None is the default one.

    Returns:
      The final state, on the mesh.

    Raises:
      DivergedError: A member's loss is not finite; says which and when. `on_epoch` was last called
        with a good state.
    """
    state, data = place(state, mesh), mesh_lib.everywhere(mesh, data)
    while int(state.epoch) < config.num_rounds:
        advance = run_epoch if int(state.epoch) < config.num_epochs else polish
        new_state, losses = advance(model, config, state, data, mesh)
        bad = [m for m, loss in enumerate(losses.tolist()) if loss != loss]
        if bad:
            when = f"epoch {int(new_state.epoch)}"
            if advance is run_epoch:
                values = step_losses(model, config, state, data, mesh)
                first = int(jnp.argmax(jnp.isnan(values).any(axis=0))) + 1
                when += f" from step {first} of {values.shape[1]} on,"
            raise DivergedError(
                f"the loss of member(s) {bad} is not finite in {when} at a learning rate of "
                f"{config.learning_rate:g}: lower config.train.learning_rate, and look for extreme "
                "values in the data"
            )
        state = new_state
        on_epoch(state, losses)
    return state
