"""Offline training of many learners at once: minibatches from fixed transitions, no environment.

A lane is one learner with its own key and its own rows of the data: one for each agent, or trial,
or both. Lanes never see each other, so one that diverges stops and the others go on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax import ranges
from persim_jax.learners.base import Learner, LearnerState
from persim_jax.types import Metrics, Transitions

AUTO = -1
GOOD = -1
"""`diverged_at` of a lane that did not diverge."""


@dataclasses.dataclass(frozen=True)
class OfflineConfig:
    """Settings of the loop; hashable.

    Attributes:
      num_steps: Gradient steps of each lane, a multiple of `chunk`.
      batch_size: Transitions of a step, drawn uniformly with replacement: a trajectory may be
        shorter than a batch.
      chunk: Gradient steps of one compiled call, between which a run can be resumed.
      max_value: Largest mean value, by absolute value, that is no divergence.
      width: Lanes side by side, which suits an accelerator; 1 is one after the other, which suits a
        CPU, where small batched products are slow. 0 is all, -1 is 1 on a CPU and 0 elsewhere.
    """

    num_steps: int = 10_000
    batch_size: int = 64
    chunk: int = 1000
    max_value: float = 1e6
    width: int = AUTO

    def __post_init__(self) -> None:
        """Refuses settings that the loop would silently round."""
        ranges.counts(self, 1, "num_steps", "batch_size", "chunk")
        if not self.max_value > 0:
            raise ValueError(
                f"max_value is {self.max_value}: it must be positive, or every lane diverges at "
                "its first step; infinity is no bound"
            )
        if self.num_steps % self.chunk:
            raise ValueError(
                f"num_steps is {self.num_steps}: make it a multiple of chunk, {self.chunk}"
            )
        if self.width < AUTO:
            raise ValueError(f"width is {self.width}: give a number of lanes, 0 for all or -1")


class Lanes(NamedTuple):
    """Which rows of the data each lane learns from: `first` to `first + size - 1`.

    Attributes:
      first: `[L]` int32.
      size: `[L]` int32, at least 1.
    """

    first: jax.Array
    size: jax.Array


class OfflineState(NamedTuple):
    """Everything that training goes on from, so that a resumed run repeats an unbroken one.

    Attributes:
      step: `[]` int32, gradient steps so far.
      learner: States of the learners, leaves `[L, ...]`.
      diverged_at: `[L]` int32, the gradient step, the first being 1, whose loss or values left all
        bounds, or `GOOD`. Such a lane stays as it was before the chunk of that step.
    """

    step: jax.Array
    learner: LearnerState
    diverged_at: jax.Array


def train_offline(
    learner: Learner,
    config: OfflineConfig,
    keys: jax.Array,
    data: Transitions,
    lanes: Lanes,
    restore: Callable[[OfflineState], OfflineState] = lambda state: state,
    on_chunk: Callable[[OfflineState, Metrics], None] = lambda state, metrics: None,
) -> OfflineState:
    """Trains one learner per lane.

    Args:
      learner: From an `lru_cache`d factory.
      config: Settings.
      keys: `[L]` typed keys; consumed.
      data: Transitions of all lanes, one lane's after the other's, `[B, ...]`.
      lanes: Which rows are whose; lanes may share rows.
      restore: Given the state at the beginning, returns the one to go on from.
      on_chunk: Called after each chunk with the state and the chunk's mean metrics, `[L]` each.

    Returns:
      The state after `config.num_steps`; `diverged_at` says which lanes stopped early.

    Raises:
      ValueError: A lane has no transition, or rows that the data lack.
    """
    _check_lanes(data, lanes)
    state = restore(_start(learner, keys))
    width = config.width
    if width == AUTO:
        width = 1 if jax.default_backend() == "cpu" else 0
    while int(state.step) < config.num_steps and bool((state.diverged_at == GOOD).any()):
        state, metrics = _chunk(learner, config, width, keys, state, data, lanes)
        on_chunk(state, metrics)
    return state


@functools.partial(jax.jit, static_argnums=0)
def _start(learner: Learner, keys: jax.Array) -> OfflineState:
    # Step 0 of a lane is its initialisation; chunks fold in the steps that they end with.
    init_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    good = jnp.full(keys.shape, GOOD, jnp.int32)
    return OfflineState(jnp.zeros((), jnp.int32), jax.vmap(learner.init)(init_keys), good)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _chunk(
    learner: Learner,
    config: OfflineConfig,
    width: int,
    keys: jax.Array,
    state: OfflineState,
    data: Transitions,
    lanes: Lanes,
) -> tuple[OfflineState, Metrics]:
    """Gradient steps of all lanes up to the next chance to stop."""
    step = state.step + config.chunk

    def one(xs: Any) -> tuple[LearnerState, jax.Array, Metrics]:
        key, before, diverged_at, first, size = xs
        places_key, update_key = jax.random.split(jax.random.fold_in(key, step))
        # All places at once: many small draws take longer than the steps of a small network.
        places = jax.random.randint(places_key, (config.chunk, config.batch_size), 0, size)

        def update(state: LearnerState, xs: Any) -> tuple[LearnerState, Metrics]:
            places, key = xs
            batch = jax.tree.map(lambda rows: rows[places], data)
            return learner.update(key, state, batch)

        update_keys = jax.random.split(update_key, config.chunk)
        after, metrics = jax.lax.scan(update, before, (first + places, update_keys))
        bad = ~jnp.isfinite(metrics["loss"]) | ~(jnp.abs(metrics["q"]) <= config.max_value)
        good = (diverged_at == GOOD) & ~bad.any()
        stopped_at = jnp.where(
            diverged_at == GOOD,
            state.step + 1 + jnp.argmax(bad).astype(jnp.int32),
            diverged_at,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)
        means = jax.tree.map(lambda leaf: leaf.mean(axis=0), metrics)
        return kept, jnp.where(good, jnp.asarray(GOOD, jnp.int32), stopped_at), means

    xs = (keys, state.learner, state.diverged_at, lanes.first, lanes.size)
    mapped = (
        jax.lax.map(one, xs, batch_size=None if width == 1 else width)
        if width
        else jax.vmap(one)(xs)
    )
    learners, diverged_at, metrics = mapped
    return OfflineState(step, learners, diverged_at), metrics


def _check_lanes(data: Transitions, lanes: Lanes) -> None:
    """Refuses rows that do not exist, which indexing would replace by others."""
    if data.rewards is None:
        raise ValueError(
            "the transitions have no rewards: offline learners need one for each, such as a "
            "function of observation, action and next observation gives"
        )
    rows = data.rewards.shape[0]
    for index, (first, size) in enumerate(zip(lanes.first, lanes.size, strict=True)):
        if size < 1 or first < 0 or first + size > rows:
            raise ValueError(
                f"lane {index} has {int(size)} transitions from row {int(first)} on, the data "
                f"have {rows} rows: give each lane at least one, and rows that exist"
            )
