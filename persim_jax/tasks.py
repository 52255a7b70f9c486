"""What a user wants of an agent, as the task that planners and environments take.

Data say how an agent moves, not what is good: reward and termination are functions of the user.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data.info import DatasetInfo
from persim_jax.data.support import DataSupport
from persim_jax.models.factor_network import FactorConfig
from persim_jax.types import PlanningBonusFn, RewardFn, Spec, Task, TerminatedFn


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Static facts of a task that comes from data; hashable.

    Attributes:
      name: Of the system that the data come from.
      obs_names: Name of each observation coordinate, length D.
      num_actions: Number of discrete actions; 0 when actions are continuous.
      action_low: Lower bounds of a continuous action, length A; empty when actions are discrete.
      action_high: Upper bounds, as `action_low`.
      max_steps: Steps after which an episode is truncated.
      covariate_names: Names of the constants that differ by agent.
    """

    name: str
    obs_names: tuple[str, ...]
    num_actions: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_steps: int
    covariate_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what no planner could search."""
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}: an episode has at least 1")
        if len(self.action_low) != len(self.action_high):
            raise ValueError(
                f"action bounds are {self.action_low} and {self.action_high}: give as many lower "
                "as upper ones"
            )
        for low, high in zip(self.action_low, self.action_high, strict=True):
            if not -np.inf < low <= high < np.inf:
                raise ValueError(
                    f"action bounds {low} to {high} leave nothing to choose from: give two finite "
                    "numbers, the lower one first"
                )

    @property
    def obs_size(self) -> int:
        """Number of observation coordinates, D."""
        return len(self.obs_names)

    @property
    def discrete(self) -> bool:
        """Whether an action is one of `num_actions` integers."""
        return self.num_actions > 0

    @property
    def action_size(self) -> int:
        """Width of an encoded action: one-hot when discrete, A when continuous."""
        return self.num_actions if self.discrete else len(self.action_low)


class DataTask(NamedTuple):
    """A task on data: what `persim_jax.types.Task` asks for.

    Attributes:
      spec: Static facts.
      reward: `(obs [D], action, next_obs [D]) -> []`.
      terminated: `(obs [D]) -> bool []`.
      planning_bonus: `(obs [H, D]) -> []`.
    """

    spec: Any
    reward: RewardFn
    terminated: TerminatedFn
    planning_bonus: PlanningBonusFn


def never(obs: jax.Array) -> jax.Array:
    """The termination of a task without an end."""
    del obs
    return jnp.zeros((), bool)


def no_bonus(obs: jax.Array) -> jax.Array:
    """The planning bonus of a task without one."""
    return jnp.zeros((), obs.dtype)


@dataclasses.dataclass(frozen=True)
class _Cast:
    """A user's function whose result has one dtype; equal for equal functions, so hashable.

    A whole number is a fine reward, and the sums that it enters are of floats.
    """

    function: Callable[..., Any]
    dtype: Any

    def __call__(self, *arguments: jax.Array) -> jax.Array:
        return jnp.asarray(self.function(*arguments)).astype(self.dtype)


def make_task(spec: Spec, reward: RewardFn, terminated: TerminatedFn | None = None) -> DataTask:
    """Reward and termination of a user as a task; both are tried out on abstract values.

    Args:
      spec: Sizes and bounds.
      reward: `(obs [D], action, next_obs [D]) -> []`, written with `jax.numpy`; the action is an
        integer `[]` when discrete and `[A]` when continuous.
      terminated: `(obs [D]) -> bool []`; None is a task without an end.

    Returns:
      The task; the same for the same arguments, so that programs are compiled once.

    Raises:
      ValueError: A function cannot be traced, or does not return one number; says which and what
        it returned.
    """
    obs = jax.ShapeDtypeStruct((spec.obs_size,), jnp.float32)
    action = (
        jax.ShapeDtypeStruct((), jnp.int32)
        if spec.discrete
        else jax.ShapeDtypeStruct((spec.action_size,), jnp.float32)
    )
    _try("reward", reward, obs, action, obs)
    if terminated is not None:
        _try("terminated", terminated, obs)
    end = never if terminated is None else _Cast(terminated, jnp.bool_)
    return DataTask(spec, _Cast(reward, jnp.float32), end, no_bonus)


def _try(name: str, function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct) -> None:
    """Raises where a user's function does not give one real number for one transition."""
    try:
        found = jax.eval_shape(lambda *values: jnp.asarray(function(*values)), *arguments)
    except Exception as error:
        shapes = ", ".join(str(argument.shape) for argument in arguments)
        raise ValueError(
            f"the {name} function cannot be traced with arguments of shapes {shapes}: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'} "
            "Write it with jax.numpy, without `if` on values"
        ) from error
    if found.shape != () or jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise ValueError(
            f"the {name} function returns {found.dtype} of shape {found.shape} for one transition: "
            "one real number of shape () is due"
        )


def check_rewards(task: Task, obs: jax.Array, actions: jax.Array, next_obs: jax.Array) -> None:
    """Tries a task's reward on transitions; a planner would silently avoid what is not a number.

    Args:
      task: The task.
      obs: `[B, D]`.
      actions: `[B]` or `[B, A]`.
      next_obs: `[B, D]`.

    Raises:
      ValueError: A reward is NaN or infinite; says how many are, and where the first is.
    """
    rewards = np.asarray(jax.jit(jax.vmap(task.reward))(obs, actions, next_obs))
    bad = np.flatnonzero(~np.isfinite(rewards))
    if bad.size:
        row = bad[0]
        raise ValueError(
            f"the reward function gives {rewards[row]} at obs {np.asarray(obs[row]).tolist()}, "
            f"action {np.asarray(actions[row]).tolist()}, next_obs "
            f"{np.asarray(next_obs[row]).tolist()} ({bad.size} of {rewards.size} transitions): it "
            "must be finite wherever the agent may go; clip what it takes logarithms, roots or "
            "quotients of"
        )


def check_path(task: Task, obs: jax.Array, actions: jax.Array, mask: jax.Array) -> None:
    """`check_rewards` along a path `obs [T + 1, D]`, where `mask [T]` is true; states, too.

    A reward may be finite at a state that is not: one for each step does not look at it.

    Raises:
      ValueError: A state or reward is not finite; says where.
    """
    taken = np.asarray(mask)
    before, after = np.asarray(obs)[:-1][taken], np.asarray(obs)[1:][taken]
    strange = np.flatnonzero(~np.isfinite(after).all(axis=-1))
    if strange.size:
        raise ValueError(
            f"the predicted state is {after[strange[0]].tolist()} after step {strange[0] + 1}: the "
            "simulator leaves the finite numbers there; go fewer steps, keep actions to what the "
            "data know, or end an episode before (terminated)"
        )
    check_rewards(task, before, np.asarray(actions)[taken], after)


def refuse_options(**options: Any) -> None:
    """Refuses parts of a task where there is one already, which would go on as it was.

    Raises:
      ValueError: One of the options is not None; says which.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)} without a reward would change nothing, as these simulators have a "
            "task already: give the reward, too, or all of it to with_reward"
        )


def spec_of(
    config: FactorConfig,
    info: DatasetInfo | None,
    support: DataSupport | None,
    max_steps: int | None = None,
    action_low: Any = None,
    action_high: Any = None,
) -> DataSpec:
    """What planners and environments must know, from what simulators know of their data.

    Args:
      config: Sizes of the model.
      info: Names; None in files of older versions.
      support: Ranges, as defaults of what follows; None likewise.
      max_steps: Length of an episode.
      action_low: Lower bounds of a continuous action, `[A]` or one for all.
      action_high: Upper bounds.

    Raises:
      ValueError: There is no default for what is missing, or bounds have the wrong shape or are of
        discrete actions.
    """
    if max_steps is None:
        if support is None:
            raise ValueError("the length of an episode is not known: give max_steps")
        max_steps = int(support.longest)
    if config.discrete and (action_low is not None or action_high is not None):
        raise ValueError(
            f"action_low is {action_low} and action_high {action_high}, but these simulators take "
            "one of a few actions, which have no bounds: leave both out"
        )
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    if not config.discrete:
        limits = (None, None) if support is None else tuple(np.asarray(support.action_range))
        low = _bounds("action_low", action_low, limits[0], config.action_size)
        high = _bounds("action_high", action_high, limits[1], config.action_size)
    names = info.obs_names if info else tuple(f"obs_{i}" for i in range(config.obs_size))
    return DataSpec(
        name=info.environment if info else "data",
        obs_names=names,
        num_actions=config.action_size if config.discrete else 0,
        action_low=low,
        action_high=high,
        max_steps=int(max_steps),
        covariate_names=info.covariate_names if info else (),
    )


def _bounds(name: str, given: Any, default: Any, size: int) -> tuple[float, ...]:
    value = default if given is None else given
    if value is None:
        raise ValueError(f"the range of actions is not known: give {name}")
    if np.shape(value) not in ((), (size,)):
        raise ValueError(f"{name} has shape {np.shape(value)}: one number, or {size}, are due")
    return tuple(float(x) for x in np.broadcast_to(np.asarray(value, np.float32), (size,)))
