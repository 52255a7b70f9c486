"""Records and callable types that every layer shares.

Axis order everywhere: `[M, N, K, T, ...]` for members, agents, candidates, time; an axis that is
absent is dropped. Functions are written unbatched and lifted with `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import chex
import jax

PyTree: TypeAlias = Any
Params: TypeAlias = PyTree
Metrics: TypeAlias = dict[str, jax.Array]

RewardFn: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(obs [D], action, next_obs [D]) -> []`."""
TerminatedFn: TypeAlias = Callable[[jax.Array], jax.Array]
"""`(obs [D]) -> bool []`."""
PlanningBonusFn: TypeAlias = Callable[[jax.Array], jax.Array]
"""`(obs [H, D]) -> []`."""


class Items(Protocol):
    """What a model is trained on: B things that a minibatch is drawn from, a pytree of arrays.

    What a model's loss takes is what `take` returns, with a leading member axis.
    """

    @property
    def num_items(self) -> int: ...
    def take(self, rows: jax.Array) -> PyTree:
        """The items in some rows `[K]`, leaves `[K, ...]`."""


class Spec(Protocol):
    """Static, hashable facts of a task that models, planners and learners need."""

    def __hash__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def obs_names(self) -> tuple[str, ...]: ...
    @property
    def covariate_names(self) -> tuple[str, ...]: ...
    @property
    def num_actions(self) -> int: ...
    @property
    def action_low(self) -> tuple[float, ...]: ...
    @property
    def action_high(self) -> tuple[float, ...]: ...
    @property
    def max_steps(self) -> int: ...
    @property
    def obs_size(self) -> int: ...
    @property
    def action_size(self) -> int: ...
    @property
    def discrete(self) -> bool: ...


class Task(Protocol):
    """What a planner knows of an environment without its dynamics: a spec, a reward, an end.

    Hashable, so that it may be a static argument of `jit`.
    """

    def __hash__(self) -> int: ...
    @property
    def spec(self) -> Any: ...
    @property
    def reward(self) -> RewardFn: ...
    @property
    def terminated(self) -> TerminatedFn: ...
    @property
    def planning_bonus(self) -> PlanningBonusFn: ...


class Environment(Task, Protocol):
    """A true environment: a task together with its dynamics, as pure unbatched functions."""

    @property
    def params(self) -> Callable[[jax.Array], PyTree]: ...
    @property
    def reset(self) -> Callable[[jax.Array, PyTree], PyTree]: ...
    @property
    def step(self) -> Callable[[jax.Array, PyTree, jax.Array, PyTree], PyTree]: ...
    @property
    def observe(self) -> Callable[[PyTree, PyTree], jax.Array]: ...
    @property
    def state_from_obs(self) -> Callable[[jax.Array, PyTree], PyTree]: ...


@chex.dataclass(frozen=True)
class Trajectory:
    """One episode, padded to a fixed length T.

    Attributes:
      obs: `[T + 1, D]`; row t + 1 is the state after action t. Rows past the end repeat the last.
      actions: `[T]` int32 when discrete, `[T, A]` when continuous; zero past the end.
      rewards: `[T]`; zero past the end.
      terminated: `[T]` bool; true at the step, if any, whose next state ends the episode. A time
        limit is no termination.
      mask: `[T]` bool; true for the steps that were taken.
    """

    obs: jax.Array
    actions: jax.Array
    rewards: jax.Array
    terminated: jax.Array
    mask: jax.Array


@chex.dataclass(frozen=True)
class Transitions:
    """A flat set of B transitions.

    Attributes:
      agent: `[B]` int32 row of the agent in the agent table (not its id).
      obs: `[B, D]`.
      actions: `[B]` int32 when discrete, `[B, A]` when continuous.
      rewards: `[B]`.
      next_obs: `[B, D]`.
      terminated: `[B]` bool.
    """

    agent: jax.Array
    obs: jax.Array
    actions: jax.Array
    rewards: jax.Array
    next_obs: jax.Array
    terminated: jax.Array

    @property
    def num_items(self) -> int:
        """B."""
        return int(self.agent.shape[0])

    def take(self, rows: jax.Array) -> Transitions:
        """The transitions in some rows `[K]`."""
        some: Transitions = jax.tree.map(lambda leaf: leaf[rows], self)
        return some
