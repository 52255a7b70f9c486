"""MOReL's training as compiled programs over lanes: an ensemble each, then a policy inside it.

A lane is one policy with its own data, ensemble and key: that of all agents, or one for each. Lanes
never see each other, so one that diverges stops and the others go on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax import normalizer as normalizer_lib
from persim_jax import training
from persim_jax.collect import memoryless
from persim_jax.learners.natural_gradient import NaturalGradient, NaturalGradientState
from persim_jax.methods.morel_records import (
    AUTO,
    GOOD,
    METRICS,
    Knowledge,
    Lane,
    MorelConfig,
    MorelState,
    PathConfig,
)
from persim_jax.models.base import DynamicsModel
from persim_jax.normalizer import Normalizer
from persim_jax.pessimism import (
    Pessimism,
    PessimisticTask,
    data_disagreement,
    distance_scale,
    halt_reward,
    in_halt,
    pessimistic_model,
    start_obs,
    unknown_threshold,
)
from persim_jax.rollout import unroll
from persim_jax.training import TrainConfig, TrainState
from persim_jax.types import Metrics, Task, Trajectory, Transitions

_ENSEMBLE, _POLICY, _CLONING, _DISTANCES, _ITERATIONS = range(5)
"""What a lane's key is folded with for each of its parts."""


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def start(
    model: DynamicsModel, learner: NaturalGradient, train: TrainConfig, width: int, lanes: Lane
) -> MorelState:
    """The state before the first epoch: new ensembles, and policies that do as the data do."""

    def one(lane: Lane) -> tuple[TrainState, NaturalGradientState]:
        models = training.init(_fold(lane, _ENSEMBLE), model, lane.data, train)
        policy = learner.init(_fold(lane, _POLICY))
        data = _normalized(lane.normalizer, lane.data)
        return models, learner.clone(_fold(lane, _CLONING), policy, data, lane.size)

    models, policies = over_lanes(one, width)(lanes)
    count = lanes.size.shape[0]
    good = jnp.full(count, GOOD, jnp.int32)
    return MorelState(
        step=jnp.zeros((), jnp.int32),
        models=models,
        learner=policies,
        diverged_at=good,
        diverged_member=good,
        metrics={name: jnp.zeros(count) for name in METRICS},
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_epoch(
    model: DynamicsModel, train: TrainConfig, width: int, state: MorelState, lanes: Lane
) -> tuple[MorelState, jax.Array]:
    """One epoch of all ensembles.

    Returns:
      The state after it, and the members' mean loss in each lane `[L]`, NaN in one that diverged.
    """

    def one(xs: tuple[TrainState, Transitions]) -> tuple[TrainState, jax.Array]:
        new, losses = training.run_epoch(model, train, *xs)
        return new, losses

    models, losses = over_lanes(one, width)((state.models, lanes.data))
    step = state.step + 1
    bad = jnp.isnan(losses)
    new = _stop_bad(state, state._replace(step=step, models=models), bad.any(axis=1), step)
    member = jnp.where(bad.any(axis=1), jnp.argmax(bad, axis=1).astype(jnp.int32), GOOD)
    first = state.diverged_at == GOOD
    new = new._replace(diverged_member=jnp.where(first, member, state.diverged_member))
    return new, losses.mean(axis=1)


def knowledge(
    model: DynamicsModel, config: MorelConfig, models: TrainState, lanes: Lane
) -> Knowledge:
    """The threshold of each lane's ensemble, from its own data."""
    scale, found, mask = _distances(model, config.distance, config.width, models, lanes)
    thresholds = jax.vmap(functools.partial(unknown_threshold, coefficient=config.pessimism_coef))
    threshold = thresholds(found, mask)
    unknown = (mask & ~(found <= threshold[:, None])).sum(axis=1) / lanes.size
    return Knowledge(threshold, scale, unknown)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _distances(
    model: DynamicsModel, distance: str, width: int, models: TrainState, lanes: Lane
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scales `[L, D]`, disagreement in the data `[L, B]`, and which rows of it are data."""

    def one(xs: tuple[TrainState, Lane]) -> tuple[jax.Array, jax.Array, jax.Array]:
        state, lane = xs
        scale = distance_scale(lane.data, distance)
        key = _fold(lane, _DISTANCES)
        found = data_disagreement(key, model, state.params, lane.data, scale)
        return scale, found, jnp.arange(found.shape[0]) < lane.size

    return over_lanes(one, width)((models, lanes))


class _Inside(NamedTuple):
    """What a lane's pessimistic MDP is made of."""

    lane: Lane
    params: Any
    known: Knowledge
    buffer_share: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def run_updates(
    model: DynamicsModel,
    task: Task,
    learner: NaturalGradient,
    config: PathConfig,
    state: MorelState,
    known: Knowledge,
    lanes: Lane,
    first: jax.Array,
    buffer_share: jax.Array,
) -> MorelState:
    """`config.chunk` updates of all policies in their pessimistic MDPs.

    Args:
      model: The ensemble, static.
      task: Static.
      learner: Static.
      config: Static.
      state: Where training stands.
      known: From `knowledge`.
      lanes: Data.
      first: `[]` int32, updates that were done before.
      buffer_share: `[]`, see `MorelConfig`.
    """

    def one(xs: tuple[Any, ...]) -> tuple[NaturalGradientState, Metrics, jax.Array]:
        lane, params, known, policy = xs
        inside = _Inside(lane, params, known, buffer_share)

        def update(policy: NaturalGradientState, number: jax.Array) -> Any:
            key = jax.random.fold_in(_fold(lane, _ITERATIONS), number)
            policy, metrics = _update(key, model, task, learner, config, inside, policy)
            seen = (policy, metrics["return"], metrics["value_loss"])
            finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(seen)]).all()
            return policy, (metrics, ~finite)

        policy, (metrics, bad) = jax.lax.scan(update, policy, first + jnp.arange(config.chunk))
        return policy, jax.tree.map(lambda leaf: leaf.mean(axis=0), metrics), bad

    xs = (lanes, state.models.params, known, state.learner)
    policies, metrics, bad = over_lanes(one, config.width)(xs)
    new = state._replace(step=state.step + config.chunk, learner=policies, metrics=metrics)
    first_bad = state.step + 1 + jnp.argmax(bad, axis=1).astype(jnp.int32)
    return _stop_bad(state, new, bad.any(axis=1), first_bad)


def _update(
    key: jax.Array,
    model: DynamicsModel,
    task: Task,
    learner: NaturalGradient,
    config: PathConfig,
    inside: _Inside,
    policy: NaturalGradientState,
) -> tuple[NaturalGradientState, Metrics]:
    """One update of one lane's policy."""
    key_paths, key_update = jax.random.split(key)
    lane = inside.lane
    paths = _imagine(key_paths, model, task, learner, config, inside, policy.params)
    # Of order 1, which the value network is made for; the policy's step knows no scale.
    size = jnp.maximum(jnp.abs(lane.lowest), jnp.abs(lane.highest))
    scale = jnp.where(size > 0, size, 1.0) * _effective_steps(config, task)
    seen = paths.replace(  # type: ignore[attr-defined]
        obs=normalizer_lib.apply(lane.normalizer, paths.obs[..., :-1]),
        rewards=paths.rewards / scale,
    )
    policy, metrics = learner.update(key_update, policy, seen)
    halted = in_halt(paths.obs[:, -1])
    return policy, {
        "return": metrics["return"] * scale,
        "unknown": halted.sum() / paths.mask.sum(),
        "halted": halted.mean(dtype=jnp.float32),
        "value_loss": metrics["value_loss"],
        "gain": metrics["gain"],
    }


def _imagine(
    key: jax.Array,
    model: DynamicsModel,
    task: Task,
    learner: NaturalGradient,
    config: PathConfig,
    inside: _Inside,
    policy_params: Any,
) -> Trajectory:
    """Episodes of a policy in a lane's pessimistic MDP, leaves `[P, T, ...]`; consumes `key`."""
    lane, known = inside.lane, inside.known
    halt = halt_reward(lane.lowest, lane.highest, config.discount, task.spec.max_steps)
    pessimistic = PessimisticTask(task, lane.lowest, halt)
    dynamics, bound = (
        pessimistic_model(model, task),
        model.bind(inside.params, jnp.asarray(0), None),
    )
    key_starts, key_paths = jax.random.split(key)

    def act(key: jax.Array, params: Any, obs: jax.Array) -> jax.Array:
        seen = normalizer_lib.apply(lane.normalizer, obs[:-1])
        return learner.policy.sample(key, learner.policy.distribution(params, seen))

    def follow(number: jax.Array, obs: jax.Array) -> Trajectory:
        member = number % config.ensemble_size
        pessimism = Pessimism(bound, member, known.threshold, known.scale)
        return unroll(
            jax.random.fold_in(key_paths, number), dynamics, pessimism, pessimistic,
            memoryless(act, policy_params), start_obs(obs), config.horizon or task.spec.max_steps,
        )  # fmt: skip

    starts = start_states(key_starts, lane, config.num_paths, inside.buffer_share)
    return jax.vmap(follow)(jnp.arange(config.num_paths), starts)


def start_states(key: jax.Array, lane: Lane, num_paths: int, buffer_share: jax.Array) -> jax.Array:
    """Where imagined episodes begin, `[P, D]`; consumes `key`."""
    key_first, key_any, key_coin = jax.random.split(key, 3)
    shape = (num_paths,)
    first = lane.starts[jax.random.randint(key_first, shape, 0, lane.starts.shape[0])]
    anywhere = lane.data.obs[jax.random.randint(key_any, shape, 0, lane.size)]
    coin = jax.random.bernoulli(key_coin, buffer_share, shape)
    return jnp.where(coin[:, None], anywhere, first)


def over_lanes(function: Callable, width: int) -> Callable:
    """Lifts a function of one lane to `[L, ...]`, `width` lanes side by side."""
    if width == AUTO:
        width = 1 if jax.default_backend() == "cpu" else 0
    if width == 0:
        return jax.vmap(function)
    # lax.map with a batch size of 1 would make a batched product of each.
    return lambda xs: jax.lax.map(function, xs, batch_size=None if width == 1 else width)


def _effective_steps(config: PathConfig, task: Task) -> float:
    """Steps whose rewards a return adds up, discounted ones counted less."""
    length, discount = float(task.spec.max_steps), config.discount
    return length if discount == 1 else (1 - discount**length) / (1 - discount)


def _stop_bad(old: MorelState, new: MorelState, bad: jax.Array, step: jax.Array) -> MorelState:
    """Lanes that are bad, now or before, stay as they were; `step` says when, `[]` or `[L]`."""
    stops = bad | (old.diverged_at != GOOD)

    def keep(new: jax.Array, old: jax.Array) -> jax.Array:
        stopped = jnp.reshape(stops, stops.shape + (1,) * (new.ndim - 1))
        return jnp.where(jnp.broadcast_to(stopped, new.shape), old, new)

    fields = ("models", "learner", "metrics")
    kept = {name: jax.tree.map(keep, getattr(new, name), getattr(old, name)) for name in fields}
    now = jnp.where(bad & (old.diverged_at == GOOD), step, old.diverged_at)
    return new._replace(**kept, diverged_at=now)


def _fold(lane: Lane, part: int) -> jax.Array:
    return jax.random.fold_in(lane.key, part)


def _normalized(normalizer: Normalizer, data: Transitions) -> Transitions:
    return data.replace(  # type: ignore[attr-defined,no-any-return]
        obs=normalizer_lib.apply(normalizer, data.obs)
    )
