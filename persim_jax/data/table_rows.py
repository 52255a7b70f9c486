"""Rows of a table by agent and in order of time, and which of them follow each other."""

from __future__ import annotations

import datetime
from typing import NamedTuple

import numpy as np

from persim_jax.data.tables import Columns, DataError, about_comma, numbers


class TableRows(NamedTuple):
    """A table sorted by agent, in whose rows time goes forward.

    Attributes:
      table: Columns `[R]`.
      numbers: `[R]`, where each row stands in the file, counted from 1 without the header.
      agent: `[R]`, row of the agent in the dataset.
      labels: Name of each agent.
      time: `[R]`.
    """

    table: dict[str, np.ndarray]
    numbers: np.ndarray
    agent: np.ndarray
    labels: list[str]
    time: np.ndarray

    def where(self, index: int, column: str) -> str:
        """Names a cell for a message."""
        label = self.labels[self.agent[index]]
        return f"agent {label}, row {self.numbers[index]}, column {column!r}"


def sort_rows(table: dict[str, np.ndarray], columns: Columns) -> TableRows:
    """The table by agent; refuses times that go back, repeat or are none."""
    text = labels_of(table[columns.agent])
    blank = np.flatnonzero(text == "")
    if len(blank) > 0:
        raise DataError(
            f"row {blank[0] + 1}, column {columns.agent!r} is empty: say whose row it is, or "
            "remove it"
        )
    unique, first, code = np.unique(text, return_index=True, return_inverse=True)
    appearance = np.argsort(np.argsort(first))  # in the order of their first rows
    agent = appearance[code]
    order = np.argsort(agent, kind="stable")
    table = {name: values[order] for name, values in table.items()}
    labels = unique[np.argsort(first)].tolist()
    rows = TableRows(table, order + 1, agent[order], labels, np.zeros(len(order)))
    rows = rows._replace(time=_times(rows, columns.time))
    same = np.diff(rows.agent) == 0
    passed = np.diff(rows.time)
    for wrong, said, remedy in (
        (same & (passed < 0), "is before the row above it", "sort each agent's rows by time"),
        (same & (passed == 0), "is the same as in the row above it", "keep one row for each time"),
    ):
        if wrong.any():
            index = int(np.argmax(wrong)) + 1
            raise DataError(
                f"{rows.where(index, columns.time)}: the time {table[columns.time][index]} {said} "
                f"({int(wrong.sum())} such rows in all): {remedy}"
            )
    alone = np.flatnonzero(np.bincount(rows.agent) < 2)
    if len(alone) > 0:
        few = ", ".join(labels[i] for i in alone[:3])
        raise DataError(
            f"{len(alone)} agents have one row only ({few}{', ...' if len(alone) > 3 else ''}): a "
            "transition needs two; leave these agents out or add rows"
        )
    return rows


def labels_of(cells: np.ndarray) -> np.ndarray:
    """Ids as text without blanks around it: 7 and 7.0 are both "7", a missing one is empty."""
    if cells.dtype.kind != "f":
        return np.char.strip([str(cell) for cell in cells.tolist()])
    whole = np.all((cells == np.round(cells)) | np.isnan(cells))
    # A column of integers in which one is missing comes as floats.
    named = [str(int(cell)) if whole else str(cell) for cell in np.nan_to_num(cells).tolist()]
    return np.where(np.isnan(cells), "", named)


def _times(rows: TableRows, column: str) -> np.ndarray:
    """Times as numbers `[R]`; dates in seconds."""
    cells = rows.table[column]
    values, wrong = numbers(cells)
    if wrong.any() and not np.isfinite(values).any():
        values = np.asarray([_seconds(cell) for cell in cells.tolist()])
        if np.isnan(values).all():
            cell = str(cells[np.argmax(wrong)])
            raise DataError(
                f"column {column!r} holds neither numbers nor dates as 2024-12-31 23:59 but, for "
                f"example, {cell!r}{about_comma(cell)}: write times as one of these"
            )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad) > 0:
        raise DataError(
            f"{rows.where(bad[0], column)}: {str(cells[bad[0]])!r} is no time ({len(bad)} such "
            "cells in this column): give each row one, written as in the other rows"
        )
    return values


def _seconds(text: str) -> float:
    """A date as ISO 8601 has it, in seconds; NaN where it is none."""
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return float("nan")
    # Without a zone it is read as UTC: only differences count.
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def steps_of(rows: TableRows, column: str, time_step: float | None) -> tuple[float, np.ndarray]:
    """The usual time between rows, and whether each row is followed by the next one `[R]`."""
    same = np.append(np.diff(rows.agent) == 0, False)
    passed = np.append(np.diff(rows.time), 0.0)
    step = float(np.median(passed[same])) if time_step is None else time_step
    if not step > 0:
        raise DataError(f"time_step is {step}: it must be positive")
    short = np.flatnonzero(same & (passed < 0.5 * step))
    if len(short) > 0:
        index = short[0] + 1
        raise DataError(
            f"{rows.where(index, column)}: {passed[index - 1]:g} after the row above it, where "
            f"{step:g} is usual: bring the rows to one step of time, or give that as --time_step"
        )
    follows = same & (passed <= 1.5 * step)
    split = np.flatnonzero(np.bincount(rows.agent, weights=follows) == 0)
    if len(split) > 0:
        raise DataError(
            f"agent {rows.labels[split[0]]} has no two rows that follow each other within 1.5 "
            f"times the usual step of {step:g} ({len(split)} such agents): leave them out, or give "
            "a longer --time_step"
        )
    return step, follows
