"""What simulators remember of their data: where agents began and ended, and where data lie.

Questions to a simulator are asked long after its data are gone. This is the little that is needed
to start from where an agent was last seen, to bound a planner's actions, and to notice a question
that the data say nothing about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import numpy as np

from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.info import Array


# A record of flax, as the simulators that hold it are: these are leaves beside their params.
class DataSupport(flax.struct.PyTreeNode):
    """Ends of trajectories and ranges over all agents and steps that were taken.

    Attributes:
      first_obs: `[N, D]`, where each agent's first step began.
      last_obs: `[N, D]`, where each agent's last step led.
      obs_range: `[2, D]`, least and greatest values.
      action_range: `[2, A]` of continuous actions; `[2, 0]` when discrete.
      action_counts: `[A]`, how often each discrete action was taken; `[0]` when continuous.
      input_range: `[2, I]`; `[2, 0]` without exogenous inputs.
      longest: `[]`, the greatest number of steps of an agent.
    """

    first_obs: Array
    last_obs: Array
    obs_range: Array
    action_range: Array
    action_counts: Array
    input_range: Array
    longest: Array


def support_of(dataset: OfflineDataset) -> DataSupport:
    """What a dataset says of itself in a few rows."""
    info, mask = dataset.info, np.asarray(dataset.mask)
    obs, actions = np.asarray(dataset.obs), np.asarray(dataset.actions)
    rows = np.arange(len(mask))
    first = mask.argmax(axis=1)
    last = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    seen = np.concatenate([obs[:, :-1][mask], obs[:, 1:][mask]])
    taken = actions[mask]
    inputs = None if dataset.inputs is None else np.asarray(dataset.inputs)[mask]
    counts = np.bincount(taken, minlength=info.num_actions) if info.discrete else np.zeros(0, int)
    return DataSupport(
        first_obs=obs[rows, first],
        last_obs=obs[rows, last],
        obs_range=_range(seen),
        action_range=_range(np.zeros((1, 0), obs.dtype) if info.discrete else taken),
        action_counts=counts.astype(np.int32),
        input_range=_range(np.zeros((1, 0), obs.dtype) if inputs is None else inputs),
        longest=np.int32(mask.sum(axis=1).max()),
    )


def to_arrays(support: DataSupport | None) -> dict[str, np.ndarray]:
    """Arrays under names of their own, to be stored among others; none for None."""
    if support is None:
        return {}
    fields = {field.name: getattr(support, field.name) for field in dataclasses.fields(support)}
    return {f"support_{name}": np.asarray(value) for name, value in fields.items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> DataSupport | None:
    """What `to_arrays` made, or None where it is not among the arrays."""
    names = [field.name for field in dataclasses.fields(DataSupport)]
    if any(f"support_{name}" not in arrays for name in names):
        return None
    return DataSupport(**{name: arrays[f"support_{name}"] for name in names})


def of_strangers(support: DataSupport | None, count: int) -> DataSupport | None:
    """The same support for so many other agents, of whom nobody knows where they are."""
    if support is None:
        return None
    nowhere = np.full((count, np.shape(support.last_obs)[1]), np.nan, np.float32)
    return support.replace(last_obs=nowhere)


def is_stranger(support: DataSupport | None, row: int) -> bool:
    """Whether the agent in a row was not in the data: nobody knows where it was last seen."""
    return support is not None and not np.isfinite(np.asarray(support.last_obs)[row]).all()


def _range(values: np.ndarray) -> np.ndarray:
    """Least and greatest of `[B, X]`, `[2, X]`."""
    return np.stack([values.min(axis=0), values.max(axis=0)])


def outside(values: Any, limits: Array) -> np.ndarray:
    """Which of `[..., X]` lie outside `limits [2, X]` by more than rounding, `[..., X]` bool.

    What is not a number lies nowhere, and so outside.
    """
    values, limits = np.asarray(values, np.float64), np.asarray(limits, np.float64)
    slack = 1e-5 * (limits[1] - limits[0]) + 1e-6 * np.abs(limits).max(axis=0, initial=0.0)
    return ~((values >= limits[0] - slack) & (values <= limits[1] + slack))


def remarks(
    support: DataSupport, actions: Any, inputs: Any, action_names: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """What is unusual about the actions `[T]` or `[T, A]` and inputs `[T, I]` of a question.

    Returns:
      A sentence for discrete actions that no agent ever took, for continuous ones outside the range
      of the data, and for such inputs, each with their number.
    """
    actions, found = np.asarray(actions), []
    if np.asarray(support.action_counts).size:
        unseen = np.flatnonzero(np.asarray(support.action_counts) == 0)
        count = int(np.isin(actions, unseen).sum())
        if count:
            which = sorted(set(actions[np.isin(actions, unseen)].tolist()))
            names = ", ".join(action_names[a] if action_names else str(a) for a in which)
            found.append(
                f"{count} of {len(actions)} actions ({names}) were never taken in the data: what "
                "they do is a guess"
            )
    else:
        found += _out_of_range("actions", actions, support.action_range, action_names)
    if inputs is not None:
        found += _out_of_range("inputs", inputs, support.input_range, ())
    return tuple(found)


def _out_of_range(what: str, values: Any, limits: Array, names: tuple[str, ...]) -> list[str]:
    wrong = outside(values, limits)
    if not wrong.any():
        return []
    limits = np.asarray(limits) + 0.0  # no negative zero
    columns = [
        f"{names[i] if names else f'column {i}'} from {limits[0, i]:g} to {limits[1, i]:g}"
        for i in np.flatnonzero(wrong.any(axis=0))
    ]
    return [
        f"{int(wrong.any(axis=-1).sum())} of {len(wrong)} {what} are outside the range of the data "
        f"({', '.join(columns)}): what they do is a guess"
    ]
