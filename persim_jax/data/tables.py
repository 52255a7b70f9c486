"""Tables on disk: a header and a row for each moment of each agent, CSV or Parquet.

A CSV file is read by Python itself; Parquet needs the extra `[tables]`. Which column is what is
told by name or by a rule, see `Columns`.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

DELIMITERS = (",", ";", "\t")
MISSING = ("None", "nan", "NaT", "<NA>")
"""How Python, numpy and pandas print a cell without a value."""
PREFIXES = {"states": "state", "actions": "action", "inputs": "input", "covariates": "covariate"}
"""What begins the names of a group's columns by the naming rule."""


class DataError(ValueError):
    """A table cannot be used as it is; the message says where and what to do."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns of a table are what.

    Where a group is None its columns are found by their names: those called `state` or beginning
    with `state_`, and so on for `action`, `input` and `covariate`; the reward is `reward`.

    Attributes:
      agent: Whose row it is: integers or text.
      time: When: numbers, or dates and times as in ISO 8601, which are counted in seconds.
      states: What is predicted.
      actions: What was done from this row to the next.
      inputs: What acted on the agent besides, known and never predicted.
      covariates: Known constants of each agent.
      reward: What the step from this row earned.
    """

    agent: str = "agent"
    time: str = "time"
    states: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None
    covariates: tuple[str, ...] | None = None
    reward: str | None = None

    def resolve(self, header: list[str]) -> Columns:
        """Finds every group in a header, so that no field but `reward` is None.

        Raises:
          DataError: A column is missing, is used twice, or there is no state.
        """
        groups: dict[str, Any] = {}
        for group, kind in PREFIXES.items():
            asked = getattr(self, group)
            found = tuple(n for n in header if n == kind or n.startswith(f"{kind}_"))
            groups[group] = found if asked is None else asked
        reward = self.reward if self.reward or "reward" not in header else "reward"
        resolved = dataclasses.replace(self, **groups, reward=reward)
        used = [self.agent, self.time, *(n for names in groups.values() for n in names)]
        used += [reward] if reward else []
        for name in used:
            if name not in header:
                raise DataError(_missing(name, header))
            if used.count(name) > 1:
                raise DataError(f"column {name!r} is used as two things: name each column once")
        if not resolved.states:
            raise DataError(
                f"there is no state column: name some with --state_columns, or call them state_*. "
                f"The table has {', '.join(header)}"
            )
        return resolved


def _missing(name: str, header: list[str]) -> str:
    near = difflib.get_close_matches(name, header, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"the table has no column {name!r}{hint}: it has {', '.join(header)}. Say which column is "
        "what, for example with --agent_column, --time_column and --state_columns"
    )


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Reads all columns of a file, by its suffix: `.parquet` or `.pq`, or else CSV.

    Args:
      path: The file; it is not changed.

    Returns:
      Column name -> `[rows]`; text where the file holds text.

    Raises:
      FileNotFoundError: There is no such file.
      DataError: It is no table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    table = _read_parquet(path) if is_parquet else _read_csv(path)
    if not table or not len(next(iter(table.values()))):
        raise DataError(f"{path} holds no rows: it needs a header and a row for each moment")
    return table


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    try:
        # Spreadsheets put a mark of byte order first.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text in UTF-8 and so no CSV table ({error.reason} at byte {error.start}"
            "): save it as CSV in UTF-8, or as Parquet with the suffix .parquet"
        ) from error
    head = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=head.count)
    try:
        lines = [
            row for row in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True) if row
        ]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV table: {error}") from error
    if not lines:
        raise DataError(f"{path} is empty: it needs a header and a row for each moment")
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path} has two columns called {twice!r}: rename one")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise DataError(
                f"row {number} of {path} has {len(row)} cells, but the header has {len(header)}: "
                "mend that line (a text with a comma needs quotes)"
            )
    cells = zip(*rows, strict=True) if rows else ([] for _ in header)
    return {name: np.asarray(column) for name, column in zip(header, cells, strict=True)}


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import read_table as read
    except ImportError as error:
        raise DataError(
            f"reading {path} needs pyarrow: pip install 'persim_jax[tables]', or save it as CSV"
        ) from error
    try:
        table = read(path)
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no Parquet table: {error}") from error
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        columns[name] = _as_cells(column.to_numpy(zero_copy_only=False))
    return columns


def as_columns(table: Any) -> dict[str, np.ndarray]:
    """Columns as arrays, however a program has them: as arrays, lists or a data frame of pandas.

    Args:
      table: Column name -> `[rows]`.

    Raises:
      DataError: A column is no list of cells, or has another length than the first.
    """
    columns = {str(name): _as_cells(table[name]) for name in table}
    for name, column in columns.items():
        due = next(iter(columns.values())).shape
        if column.ndim != 1 or column.shape != due:
            raise DataError(
                f"column {name!r} has shape {column.shape} and the first {due}: give each the same "
                "number of cells"
            )
    return columns


def _as_cells(values: Any) -> np.ndarray:
    """Cells as numpy has them, mixed ones as text in which what is missing is empty."""
    cells = np.asarray(values)
    if cells.dtype != object:
        return cells
    return np.asarray(
        [
            "" if not isinstance(cell, str) and str(cell) in MISSING else str(cell)
            for cell in cells.tolist()
        ]
    )


def numbers(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells as numbers, and which of them are text that is none; blank cells are NaN.

    Args:
      cells: `[rows]`, numbers or text.

    Returns:
      `[rows]` float64, and `[rows]` bool.
    """
    if cells.dtype.kind in "biuf":
        return cells.astype(np.float64), np.zeros(len(cells), bool)
    if cells.dtype.kind in "mM":
        # Both in seconds: a date counts from 1970, a span of time from its own start.
        unit = "datetime64[us]" if cells.dtype.kind == "M" else "timedelta64[us]"
        values = cells.astype(unit).astype(np.int64) / 1e6
        return np.where(np.isnat(cells), np.nan, values), np.zeros(len(cells), bool)
    text = np.char.strip(cells)
    text = np.where(text == "", "nan", text)
    try:
        return text.astype(np.float64), np.zeros(len(cells), bool)
    except ValueError:
        parsed = [_number(cell) for cell in text.tolist()]
    wrong = np.asarray([value is None for value in parsed])
    return np.asarray([np.nan if value is None else value for value in parsed]), wrong


def about_comma(cell: str) -> str:
    """A remark where a cell is a number with a decimal comma, else nothing."""
    if not re.fullmatch(r"[+-]?\d+,\d+", cell.strip()):
        return ""
    return f" (its comma is no decimal point: write {cell.strip().replace(',', '.')})"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
