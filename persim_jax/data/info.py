"""Static facts of a dataset, and how agents are found by their ids."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = np.ndarray | jax.Array
AgentId: TypeAlias = int | str
"""The integer of an agent in `agent_ids`, or its name where agents have names."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Static facts of a dataset; hashable.

    Attributes:
      environment: Name of the environment, or of the system that the data come from.
      behavior: What chose the actions: pure, random, pure_eps20, pure_eps40, or the user's word.
      obs_names: Name of each observation coordinate, length D.
      covariate_names: Names of the constants that differ by agent, length C; may be empty.
      num_actions: Number of discrete actions; 0 when actions are continuous.
      action_size: Width of an encoded action: `num_actions` when discrete, A when continuous.
      input_names: Names of the exogenous inputs, known and never predicted, length I.
      agent_names: Name of each agent where users have other ids than integers, in the order of the
        rows; or empty.
      action_names: Name of each discrete action, or of each coordinate of a continuous one; or
        empty.
      segmented: Whether a mask may have holes: a masked step between two rows is no transition but
        a gap in time, or the end of an episode. Without it a hole is an error.
      lags: L, of how many observations a row of `obs` tells, see `lags.with_lags`.
      time_step: Time between two rows, in the unit of the data; 0 if unknown.
      agent_column: What the column of agents was called in the user's table; empty without one.
      action_column: Likewise that of discrete actions.
    """

    environment: str
    behavior: str
    obs_names: tuple[str, ...]
    covariate_names: tuple[str, ...]
    num_actions: int
    action_size: int
    input_names: tuple[str, ...] = ()
    agent_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    segmented: bool = False
    lags: int = 1
    time_step: float = 0.0
    agent_column: str = ""
    action_column: str = ""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> DatasetInfo:
        """Builds the record from what JSON made of its fields: lists become tuples again."""
        tuples: dict[str, Any] = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
        return cls(**{**fields, **tuples})

    @property
    def obs_size(self) -> int:
        """Width of a row of `obs`: D, or that of a window with lags."""
        return len(self.obs_names)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the D coordinates that are predicted, without what stands for the past."""
        past = (self.lags - 1) * (self.action_size + self.num_inputs)
        return self.obs_names[: (self.obs_size - past) // self.lags]

    @property
    def num_inputs(self) -> int:
        """Number of exogenous inputs, I."""
        return len(self.input_names)

    @property
    def discrete(self) -> bool:
        """Whether an action is one of `num_actions` integers."""
        return self.num_actions > 0


def level_name(value: float) -> str:
    """The name of a discrete action that is a number: the shortest that is no other number's."""
    return str(int(value)) if value == int(value) else str(value)


def level_index(names: Sequence[str], value: Any) -> int | None:
    """Where a discrete action stands among the names, however it is written; None if nowhere."""
    text = str(value).strip()
    if text not in names:
        # A level of a column of numbers: 2, 2.0 and "2" are one action.
        is_number = not isinstance(value, str) or re.fullmatch(r"-?\d+(\.\d*)?", text)
        text = level_name(float(value)) if is_number else text
    return list(names).index(text) if text in names else None


def actions_of(info: DatasetInfo, values: Sequence[Any]) -> np.ndarray:
    """Actions as models take them, from how users write them.

    Args:
      info: Of the data that the model was fitted to.
      values: T names of discrete actions, or T rows of numbers `[A]`; where A is 1, T numbers.

    Returns:
      `[T]` int32 or `[T, A]` float32.

    Raises:
      ValueError: An action is not in the data, or is no number.
    """
    if not info.discrete:
        try:
            rows = np.asarray(values, np.float32)
        except ValueError as error:
            raise ValueError(
                f"actions must be numbers, {', '.join(info.action_names)}: {error}"
            ) from error
        return rows.reshape(-1, 1) if info.action_size == 1 else rows
    names = info.action_names or tuple(str(index) for index in range(info.num_actions))
    found = [level_index(names, value) for value in values]
    if None in found:
        step = found.index(None)
        raise ValueError(
            f"action {values[step]!r} at step {step} was never seen in the data, so that nothing "
            f"is known about it: the actions are {', '.join(names)}"
        )
    return np.asarray(found, np.int32)


def _is_number(name: str, number: Any) -> bool:
    """Whether a name is a way to write a whole number: "007" is 7."""
    return re.fullmatch(r"\s*[+-]?\d+\s*", name) is not None and int(name) == number


def row_of(agent_ids: Array, agent_id: AgentId, agent_names: tuple[str, ...] = ()) -> int:
    """Returns where an agent stands in a table of ids `[N]`.

    Args:
      agent_ids: `[N]` int.
      agent_id: An integer is looked up in `agent_ids`. A string is looked up in `agent_names`;
        where agents have no names it is read as an integer, as command lines give them.
      agent_names: Names in the same order, or nothing.

    Raises:
      KeyError: No agent has this id; names those that look alike. Or it is the id of one agent and
        the name of another, as where "-1", "0" and "007" are names and 0, 1, 2 their places.
    """
    ids = np.asarray(agent_ids)
    if not isinstance(agent_id, str):
        meant = [row for row, name in enumerate(agent_names) if _is_number(name, agent_id)]
        if len(meant) == 1 and agent_id not in ids.tolist():
            return meant[0]  # a number too large for an id, say
        if meant and ids[meant].tolist() != [agent_id]:
            raise KeyError(
                f"{agent_id} may be the agent called {agent_names[meant[0]]!r} or an id in "
                "`agent_ids`, which is another's: give names as text"
            )
    if isinstance(agent_id, str) and agent_names:
        known: list[Any] = list(agent_names)
    else:
        known = ids.tolist()
        if isinstance(agent_id, str) and agent_id.lstrip("-").isdecimal():
            agent_id = int(agent_id)
    if agent_id in known:
        return known.index(agent_id)
    names = list(agent_names) or [str(i) for i in known]
    near = difflib.get_close_matches(str(agent_id), names, n=3, cutoff=0.5) or names[:3]
    raise KeyError(
        f"no agent has the id {agent_id}: the {len(ids)} ids are in "
        f"`{'agent_names' if agent_names else 'agent_ids'}`, such as {', '.join(near)}, and rows "
        "are not ids"
    )
