"""Counterfactual questions: what would this agent do under these other actions, and how surely."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import jax.numpy as jnp
import numpy as np

from persim_jax import arguments
from persim_jax.calibration import Calibration
from persim_jax.data import support as support_lib
from persim_jax.data.info import AgentId
from persim_jax.uncertainty import predictive_std

LEVELS = (0.5, 0.8, 0.95)
"""Nominal coverage of the intervals, as validation judges them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """A predicted path with intervals, on the host.

    Attributes:
      names: Name of each coordinate, D.
      levels: Nominal coverage of each interval, L.
      mean: `[T, D]`, after each action.
      std: `[T, D]`, of the prediction.
      lower: `[L, T, D]`.
      upper: `[L, T, D]`.
      members: `[M, T, D]`, the path of each member.
      outside: `[T]` bool; where the mean has a coordinate outside the range of the data.
      notes: What to know before relying on it, a sentence each; none if there is nothing.
    """

    names: tuple[str, ...]
    levels: tuple[float, ...]
    mean: np.ndarray
    std: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    members: np.ndarray
    outside: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.mean)


def ask(
    simulators: Any,
    agent_id: AgentId,
    actions: Any,
    obs: Any = None,
    inputs: Any = None,
    levels: Sequence[float] = LEVELS,
    calibration: Calibration | None = None,
    is_known: bool | None = None,
) -> Answer:
    """See `persim_jax.uses.SimulatorUses.query`; tells its notes in the answer only."""
    config, info, support = simulators.config, simulators.info, simulators.support
    start = simulators.last_obs(agent_id) if obs is None else simulators.as_obs(obs)
    actions = jnp.asarray(actions)
    if not config.discrete:
        actions = actions.astype(start.dtype)
    arguments.check(config, start, actions)
    for name, values in (("obs", start), ("actions", actions)):
        arguments.check_finite(name, values)
    schedule = simulators.as_inputs(inputs, len(actions))
    # Without a task actions are taken as they are: what lies outside the data is told, not mended.
    path = simulators.replace(task=None).rollout(agent_id, start, actions, schedule)
    members = np.asarray(path.members)
    names = info.target_names if info else tuple(f"obs_{i}" for i in range(members.shape[-1]))
    mean = members.mean(axis=0)
    std = predictive_std(simulators.params, simulators.noise, members)
    if is_known is None:
        is_known = not support_lib.is_stranger(support, simulators.row_of(agent_id))
    lower, upper, notes = _intervals(mean, std, tuple(levels), calibration, is_known)
    outside = np.zeros(len(mean), bool)
    if support is not None:
        action_names = info.action_names if info else ()
        notes += support_lib.remarks(support, actions, schedule, action_names)
        limits = np.asarray(support.obs_range)[:, : mean.shape[1]]
        far = support_lib.outside(np.concatenate([start[None, : mean.shape[1]], mean]), limits)
        outside = np.asarray(far[1:].any(axis=1))
        notes += _about_path(far, names, limits)
    return Answer(names, tuple(levels), mean, std, lower, upper, members, outside, notes)


def _intervals(
    mean: np.ndarray,
    std: np.ndarray,
    levels: tuple[float, ...],
    calibration: Calibration | None,
    is_known: bool,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Rescaled intervals where there is a rescaling, else normal ones, and what to say of them."""
    lower, upper = intervals(mean, std, levels)
    if calibration is None:
        return lower, upper, ()
    widths = calibration.widths(levels, len(mean), is_known)
    if widths is None or widths.shape[1:] != std.shape:
        said = f"validation did not calibrate intervals at {', '.join(map(str, levels))}"
        return lower, upper, (f"{said}: these assume normal errors",)
    notes: tuple[str, ...] = ()
    horizon = calibration.horizon(is_known)
    if len(mean) > horizon:
        notes = (
            f"intervals were calibrated for {horizon} steps: later ones are likely too narrow",
        )
    return mean[None] - widths * std[None], mean[None] + widths * std[None], notes


def _about_path(far: np.ndarray, names: tuple[str, ...], limits: np.ndarray) -> tuple[str, ...]:
    """A sentence where a path `[T + 1, D]`, its start first, leaves the range of the data."""
    steps = np.flatnonzero(far.any(axis=1))
    if not len(steps):
        return ()
    limits = limits + 0.0  # no negative zero
    which = ", ".join(
        f"{names[i]} from {limits[0, i]:g} to {limits[1, i]:g}"
        for i in np.flatnonzero(far.any(axis=0))
    )
    when = "the start is" if steps[0] == 0 else f"from step {steps[0]} on the prediction is"
    return (f"{when} outside the range of the data ({which}): no data speak for it there",)


def intervals(
    mean: np.ndarray, std: np.ndarray, levels: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Central normal intervals: mean -+ z std with Phi(z) = (1 + level) / 2.

    Args:
      mean: `[...]`.
      std: `[...]`.
      levels: L of them, each above 0 and below 1.

    Returns:
      Lower and upper ends, `[L, ...]`.

    Raises:
      ValueError: A level is no share.
    """
    wrong = [level for level in levels if not 0 < level < 1]
    if wrong:
        raise ValueError(f"level {wrong[0]} is no coverage: give numbers above 0 and below 1")
    quantiles = np.asarray([NormalDist().inv_cdf((1 + level) / 2) for level in levels])
    width = quantiles.reshape(-1, *[1] * np.ndim(std)) * np.asarray(std)[None]
    return np.asarray(mean)[None] - width, np.asarray(mean)[None] + width
