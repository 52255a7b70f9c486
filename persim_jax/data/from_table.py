"""From a table to a dataset: rows of one agent in order of time become its trajectory.

Two rows of an agent are a transition where the time between them is about the usual one; a longer
one is a gap and splits the trajectory. Whatever cannot be used is told with agent, row and column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persim_jax.data.dataset import (
    MAX_ROUNDING,
    DatasetInfo,
    OfflineDataset,
    moved_and_lost,
    validate,
)
from persim_jax.data.info import level_index, level_name
from persim_jax.data.table_rows import TableRows, sort_rows, steps_of
from persim_jax.data.tables import Columns, DataError, about_comma, as_columns, numbers, read_table

MAX_LEVELS = 10
"""A column of integers with at most so many different values is a discrete action."""
ACTION_KINDS = ("auto", "discrete", "continuous")
MISSING_WORDS = ("na", "n/a", "#n/a", "nan", "null")
"""What programs write into a cell that has no value. "none" is not among them: it names the absence
of an action, see `NO_ACTION`."""
NO_ACTION = "none"
"""Name of the only action where a table has no action column."""


def load_table(
    path: Path,
    columns: Columns,
    action_kind: str = "auto",
    time_step: float | None = None,
    like: DatasetInfo | None = None,
) -> OfflineDataset:
    """Reads a table from a file and makes a dataset of it; see `from_table`."""
    return from_table(read_table(path), columns, path.stem, action_kind, time_step, like)


def from_table(
    table: Any,
    columns: Columns,
    name: str,
    action_kind: str = "auto",
    time_step: float | None = None,
    like: DatasetInfo | None = None,
) -> OfflineDataset:
    """Makes a dataset of a table's columns.

    Args:
      table: Column name -> `[R]`; a data frame of pandas is one.
      columns: Which column is what; what is open is found by the naming rule.
      name: Of the system that the data come from.
      action_kind: "discrete", "continuous" or "auto": text is discrete, and so is one column of
        integers with at most `MAX_LEVELS` values.
      time_step: Usual time between two rows; by default the median. Beyond 1.5 times as much there
        is a gap.
      like: Facts of the data that simulators were fitted to, `simulators.info`, when the table is
        of newcomers: columns that are not told, actions and time are as there, and a column may
        stay the same.

    Returns:
      A valid dataset, its agents in order of their first rows, with integer ids if all are integers
      and with names otherwise. Actions, inputs and rewards of a row that no other follows may be
      missing: they are not used.

    Raises:
      DataError: Says which agent, row and column cannot be used, and what to do.
    """
    if action_kind not in ACTION_KINDS:
        raise DataError(f"action_kind is {action_kind!r}: use one of {', '.join(ACTION_KINDS)}")
    if like is not None:
        columns = _columns_like(like, columns, table)
        time_step = time_step or like.time_step or None
    columns = columns.resolve(list(table))
    rows = sort_rows(as_columns(table), columns)
    step, follows = steps_of(rows, columns.time, time_step)
    states = _numeric(rows, columns.states or (), np.ones(len(follows), bool))
    inputs = _numeric(rows, columns.inputs or (), follows)
    rewards = _numeric(rows, (columns.reward,) if columns.reward else (), follows)
    named = columns.actions or ()
    if like is None:
        _refuse_constant(columns.states or (), states)
        _refuse_constant(columns.inputs or (), inputs[follows])
        _refuse_rounded(columns.states or (), states, follows)
        actions, action_names, discrete = _actions(rows, named, follows, action_kind)
    else:
        actions, action_names, discrete = _known_actions(rows, named, follows, like)
    shape = _Shape.of(rows, follows)
    ids, agent_names = _ids(rows.labels)
    info = DatasetInfo(
        environment=name,
        behavior="unknown",
        obs_names=columns.states or (),
        covariate_names=columns.covariates or (),
        num_actions=len(action_names) if discrete else 0,
        action_size=len(action_names),
        input_names=columns.inputs or (),
        agent_names=agent_names,
        action_names=action_names,
        segmented=True,
        time_step=step,
        agent_column=columns.agent,
        action_column=named[0] if named and discrete else "",
    )
    mask = shape.steps(follows)
    dataset = OfflineDataset(
        obs=shape.rows(states.astype(np.float32)),
        actions=shape.steps(actions),
        rewards=shape.steps(rewards.sum(axis=1).astype(np.float32)),
        terminated=np.zeros_like(mask),
        mask=mask,
        agent_ids=ids,
        covariates=_covariates(rows, columns.covariates or (), varying=like is None),
        info=info,
        inputs=shape.steps(inputs.astype(np.float32)) if columns.inputs else None,
    )
    validate(dataset)
    return dataset


def _columns_like(like: DatasetInfo, columns: Columns, table: dict[str, np.ndarray]) -> Columns:
    """Columns that are not told, as in the data that simulators were fitted to."""
    actions: tuple[str, ...] | None = like.action_names or None
    if like.discrete:
        actions = (like.action_column,) if like.action_column else None
    covariates = tuple(name for name in like.covariate_names if name in table)
    return dataclasses.replace(
        columns,
        states=like.target_names if columns.states is None else columns.states,
        actions=actions if columns.actions is None else columns.actions,
        inputs=like.input_names if columns.inputs is None else columns.inputs,
        covariates=covariates if columns.covariates is None else columns.covariates,
    )


class _Shape(NamedTuple):
    """Where each row of a sorted table goes in arrays `[N, T + 1, ...]`.

    Attributes:
      source: `[N, T + 1]` index of the row; past an agent's end its last row.
      inside: `[N, T + 1]` whether the agent has that row.
    """

    source: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, rows: TableRows, follows: np.ndarray) -> _Shape:
        counts = np.bincount(rows.agent)
        first = np.cumsum(counts) - counts
        # Rows after an agent's last transition carry nothing.
        position = np.arange(counts.max())
        inside = position < counts[:, None]
        return cls(first[:, None] + np.minimum(position, counts[:, None] - 1), inside)

    def rows(self, values: np.ndarray) -> np.ndarray:
        """`[R, ...] -> [N, T + 1, ...]`."""
        return np.asarray(values[self.source])

    def steps(self, values: np.ndarray) -> np.ndarray:
        """`[R, ...] -> [N, T, ...]`, zero past an agent's end."""
        inside = self.inside.reshape(*self.inside.shape, *[1] * (values.ndim - 1))
        return np.where(inside, values[self.source], np.zeros((), values.dtype))[:, :-1]


def _numeric(rows: TableRows, names: Sequence[str], needed: np.ndarray) -> np.ndarray:
    """Columns as numbers `[R, K]`, finite where they are needed and zero elsewhere."""
    values = np.zeros((len(needed), len(names)))
    for k, name in enumerate(names):
        cells = rows.table[name]
        column, wrong = numbers(cells)
        with np.errstate(over="ignore"):
            finite = np.isfinite(column.astype(np.float32))
        bad = np.flatnonzero((wrong | ~finite) & needed)
        if len(bad) > 0:
            cell = str(cells[bad[0]]).strip()
            said = f"{cell} is not finite"
            if wrong[bad[0]]:
                said = f"{cell!r} is no number{about_comma(cell)}"
            elif np.isfinite(column[bad[0]]):
                said = f"{cell} is too large for single precision"
            raise DataError(
                f"{rows.where(bad[0], name)}: {said if cell else 'the cell is empty'} "
                f"({len(bad)} such cells in this column): correct it, or remove the row, which "
                "makes a gap in time"
            )
        values[:, k] = np.where(needed, column, 0.0)
    return values


def _refuse_constant(names: Sequence[str], values: np.ndarray) -> None:
    for name, column in zip(names, values.T, strict=True):
        if column.min() == column.max():
            raise DataError(
                f"column {name!r} is {column[0]:g} in every row: nothing can be learned about it; "
                "leave it out"
            )
        # Models compute in single precision, where large numbers lie far apart.
        resolution = float(np.spacing(np.float32(np.abs(column).max())))
        if np.ptp(column) < 100 * resolution:
            raise DataError(
                f"column {name!r} lies between {column.min():.10g} and {column.max():.10g}, where "
                f"numbers in single precision are {resolution:.2g} apart: subtract one number, "
                f"such as {column.min():.10g}, from the whole column"
            )


def _refuse_rounded(names: Sequence[str], states: np.ndarray, follows: np.ndarray) -> None:
    """Raises where single precision, in which models compute, rounds what changes in a step."""
    first = np.flatnonzero(follows)
    steps = moved_and_lost(states[first], states[first + 1])
    for name, column, moved, lost in zip(names, states.T, *steps, strict=True):
        if lost > MAX_ROUNDING * moved:
            raise DataError(
                f"column {name!r} lies around {column.mean():.6g} and changes by "
                f"{moved:.2g} in a step, of which rounding to single precision takes {lost:.2g}: "
                "subtract a constant, so that the numbers are as small as their changes let them be"
            )


def _actions(
    rows: TableRows, names: tuple[str, ...], follows: np.ndarray, kind: str
) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """Actions `[R]` or `[R, A]`, their names, and whether they are discrete."""
    if not names:
        return np.zeros(len(follows), np.int32), (NO_ACTION,), True
    text = [name for name in names if numbers(rows.table[name])[1][follows].any()]
    if len(names) > 1 and (text or kind == "discrete"):
        raise DataError(
            f"{len(names)} action columns must be numbers"
            + (f", but {text[0]!r} holds text" if text else "")
            + ": join them to one column of text, or write them as 0 and 1"
        )
    if text and kind == "auto":
        _refuse_stray_text(rows, names[0], follows)
    if text and kind != "continuous":
        return *_levels(rows, names[0], np.char.strip(rows.table[names[0]]), follows), True
    values = _numeric(rows, names, follows)
    levels = np.unique(values[follows])
    few = len(levels) <= MAX_LEVELS and np.all(levels == np.round(levels))
    if len(names) == 1 and (kind == "discrete" or (kind == "auto" and few)):
        return *_levels(rows, names[0], values[:, 0], follows), True
    _refuse_constant(names, values[follows])
    return values.astype(np.float32), names, False


def _known_actions(
    rows: TableRows, names: tuple[str, ...], follows: np.ndarray, like: DatasetInfo
) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """As `_actions`, a discrete action by its place among those of other data."""
    if not like.discrete:
        return _numeric(rows, names, follows).astype(np.float32), names, False
    levels = like.action_names or tuple(str(index) for index in range(like.num_actions))
    found = np.zeros(len(follows), np.int32)
    for index in np.flatnonzero(follows).tolist() if names else ():
        cell = rows.table[names[0]][index].item()
        level = level_index(levels, cell)
        if level is None:
            raise DataError(
                f"{rows.where(index, names[0])}: no agent of the data ever took the action "
                f"{cell!r}; they know {', '.join(levels)}"
            )
        found[index] = level
    return found, levels, True


def _refuse_stray_text(rows: TableRows, name: str, follows: np.ndarray) -> None:
    """Refuses what would make an action of a missing value, or of a slip among many numbers."""
    cells = rows.table[name]
    missing = np.flatnonzero(np.isin(np.char.lower(np.char.strip(cells)), MISSING_WORDS) & follows)
    if len(missing) > 0:
        raise DataError(
            f"{rows.where(missing[0], name)}: {str(cells[missing[0]]).strip()!r} stands for a "
            f"missing value ({len(missing)} such cells in this column): give the absence of an "
            "action a name of its own, or remove the row, which makes a gap in time; "
            "--action_kind=discrete takes it as the name of an action"
        )
    values, wrong = numbers(np.char.replace(cells, ",", "."))
    if len(np.unique(values[follows & np.isfinite(values)])) <= MAX_LEVELS:
        return  # names of actions, some of which may be numbers
    wrong = numbers(cells)[1] & follows
    index = int(np.argmax(wrong))
    cell = str(cells[index]).strip()
    raise DataError(
        f"{rows.where(index, name)}: {cell!r} is no number{about_comma(cell)}, but more than "
        f"{MAX_LEVELS} different numbers stand in this column ({int(wrong.sum())} such cells): "
        "correct it, or give --action_kind=discrete if each is an action of its own"
    )


def _levels(
    rows: TableRows, name: str, cells: np.ndarray, follows: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A discrete action as integers `[R]`, and the names of its levels in their order."""
    levels = np.unique(cells[follows])
    labels = tuple(x if isinstance(x, str) else level_name(x) for x in levels.tolist())
    if "" in labels:
        index = np.flatnonzero((cells == "") & follows)[0]
        raise DataError(
            f"{rows.where(index, name)}: the cell is empty: give the absence of an action a name "
            "of its own, or remove the row, which makes a gap in time"
        )
    if len(levels) < 2:
        raise DataError(
            f"column {name!r} is {labels[0]} in every row: nothing can be learned about an action "
            "without another; leave it out"
        )
    index = np.searchsorted(levels, np.where(follows, cells, levels[0]))
    return index.astype(np.int32), labels


def _covariates(rows: TableRows, names: Sequence[str], varying: bool) -> np.ndarray:
    """Constants of each agent `[N, C]`."""
    found = np.zeros((len(rows.labels), len(names)), np.float32)
    for c, name in enumerate(names):
        column = _numeric(rows, (name,), np.ones(len(rows.agent), bool))[:, 0]
        changes = np.flatnonzero((np.diff(column) != 0) & (np.diff(rows.agent) == 0))
        if len(changes) > 0:
            raise DataError(
                f"{rows.where(changes[0] + 1, name)}: {column[changes[0] + 1]:g} after "
                f"{column[changes[0]]:g}, but a covariate is one number for each agent: correct "
                "it, or name it with --state_columns or --input_columns"
            )
        if varying and len(rows.labels) > 1:
            _refuse_constant((name,), column[:, None])
        found[:, c] = column[np.flatnonzero(np.diff(rows.agent, prepend=-1))]
    return found


def _ids(labels: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Integer ids as they are; other ids are numbered and kept as names."""
    largest = np.iinfo(np.int32).max
    if all(label.isdecimal() and str(int(label)) == label for label in labels) and (
        max(int(label) for label in labels) <= largest
    ):
        return np.asarray([int(label) for label in labels], np.int32), ()
    return np.arange(len(labels), dtype=np.int32), tuple(labels)
