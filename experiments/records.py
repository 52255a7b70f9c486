"""Result rows: made, stored without loss, read back. Everything that is shown is made of rows.

A row is one measured number with what is needed to trust it. Its identity is `IDENTITY`; a number
measured again under the same identity by the same code version replaces the old one, one of another
code version stands beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from experiments.stamps import code_version, config_digest, environment_stamp, jsonable
from persim_jax.files import write_atomically

__all__ = [
    "IDENTITY",
    "CorruptRowWarning",
    "Row",
    "RowContext",
    "append_rows",
    "changing_rows",
    "code_version",
    "config_digest",
    "environment_stamp",
    "make_row",
    "merge_rows",
    "read_rows",
    "row_key",
]

Row: TypeAlias = dict[str, Any]

IDENTITY = (
    "environment",
    "behavior",
    "method",
    "agent_id",
    "trial",
    "metric",
    "config_digest",
)
TRUE_ENV = "true_env"
NO_BEHAVIOR = "any"
"""Behavior of rows that used no data."""
# Training curves, single episodes and a sweep's index are JSON lines too, but no results.
_NOT_ROWS = frozenset({"metrics.jsonl", "episodes.jsonl", "index.jsonl"})


class CorruptRowWarning(UserWarning):
    """A line of a file of rows is not a row; the others are used."""


@dataclasses.dataclass(frozen=True)
class RowContext:
    """What all rows of one run share."""

    environment: str
    behavior: str
    variant: str
    trial: int
    seed: int
    config_digest: str
    code_version: str
    jax_version: str | None
    device: str
    backend: str = ""
    """Who steps the true environment, where there is a choice."""

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], stamp: Mapping[str, Any] | None = None
    ) -> RowContext:
        """Makes the context of a run from its config and its `environment_stamp`.

        Raises:
          ValueError: If the config lacks a field that rows need.
        """
        names = ("environment", "behavior", "variant", "trial", "seed")
        absent = [name for name in names if name not in config]
        if absent:
            raise ValueError(f"config lacks {', '.join(absent)}: every row says them")
        stamp = environment_stamp() if stamp is None else stamp
        return cls(
            **{name: config[name] for name in names},
            config_digest=config_digest(config),
            code_version=stamp["code_version"],
            jax_version=stamp["jax"],
            # An accelerator by its make: "gpu" alone would not let anyone repeat a timing.
            device=stamp["device"] if stamp["device"] == "cpu" else stamp["device_kind"],
        )


def make_row(
    context: RowContext,
    *,
    method: str,
    metric: str,
    value: Any,
    agent_id: int | None = None,
    covariates: Mapping[str, Any] | None = None,
    paper_label: str | None = None,
    num_episodes: int | None = None,
    wall_s: float | None = None,
    behavior: str | None = None,
    **extras: Any,
) -> Row:
    """Returns one row.

    Args:
      context: What the run's rows share.
      method: Such as `persim`; rows of `true_env` get the behavior `any`, as they use no data.
      metric: Such as `rmse_mean`.
      value: The number; one that is not finite is stored as null.
      agent_id: The agent; None for numbers that belong to no single agent.
      covariates: The agent's covariates by name.
      paper_label: How the paper prints the agent; None if it does not.
      num_episodes: Episodes behind the value.
      wall_s: Seconds that measuring took.
      behavior: Instead of the context's.
      **extras: Whatever else is useful, above all `episode_values`: the values per episode, in the
        order of episodes, with which tables pair methods.

    Raises:
      ValueError: If an extra has the name of a field of the context.
    """
    shared = dataclasses.asdict(context)
    if not context.backend:
        del shared["backend"]
    taken = sorted(shared.keys() & extras.keys())
    if taken:
        raise ValueError(f"{', '.join(taken)} are set by the row's context, not as extras")
    if behavior is None:
        behavior = NO_BEHAVIOR if method == TRUE_ENV else context.behavior
    row = shared | {
        "behavior": behavior,
        "method": method,
        "agent_id": agent_id,
        "covariates": covariates or {},
        "paper_label": paper_label,
        "metric": metric,
        "value": value,
        "num_episodes": num_episodes,
        "wall_s": wall_s,
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    plain: Row = jsonable(row | extras)
    return plain


def value_text(row: Mapping[str, Any], format_spec: str) -> str:
    """Writes a row's value; of one that was not finite, and is stored as null, that."""
    value = row["value"]
    return "not finite" if value is None else format(value, format_spec)


def row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns a row's identity with its code version: what a new row must equal to replace it."""
    return (*(row.get(name) for name in IDENTITY), row.get("code_version"))


def merge_rows(old: Iterable[Row], new: Sequence[Row]) -> list[Row]:
    """Returns the old rows that stay, then the new ones.

    Raises:
      ValueError: If two of the new rows share an identity, so that one would be lost.
    """
    added: dict[tuple[Any, ...], Row] = {}
    for row in new:
        _check(row)
        if row_key(row) in added:
            raise ValueError(
                f"two new rows share the identity {row_key(row)}: one would overwrite the other; "
                f"they must differ in one of {', '.join(IDENTITY)}"
            )
        added[row_key(row)] = row
    return [row for row in old if row_key(row) not in added] + list(added.values())


def append_rows(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Adds rows to a file, replacing those measured before; all of them or, on a crash, none.

    Lines that are no rows stay as they are, in front, where whoever mends them finds them.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.parent):
        old, corrupt = _read(path) if path.exists() else ([], [])
        merged = merge_rows(old, [jsonable(row) for row in rows])
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in merged]
        lines = [line for line, _ in corrupt] + lines
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


@contextlib.contextmanager
def changing_rows(path: str | os.PathLike[str]) -> Iterator[list[Row]]:
    """The rows of a file, to be changed in place; they are written at the end if they differ.

    No other process adds rows meanwhile. If anything goes wrong the file stays as it is.

    Raises:
      ValueError: If the file has a line that is not a row, which would be lost.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.parent):
        rows = read_rows(path) if path.exists() else []
        before = list(rows)
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        if sum(bool(line.strip()) for line in lines) != len(rows):
            raise ValueError(f"{path} has lines that are no result rows: mend or delete them first")
        yield rows
        for row in rows:
            _check(row)
        if rows != before:
            texts = (json.dumps(jsonable(r), ensure_ascii=False, allow_nan=False) for r in rows)
            write_atomically(path, "".join(f"{text}\n" for text in texts).encode())


def read_rows(path: str | os.PathLike[str]) -> list[Row]:
    """Reads the rows of a file, or of all `*.jsonl` under a folder, in a fixed order.

    A line that is not a row is left out with a `CorruptRowWarning` that names file and line: what
    a crash or an editor did to one number takes nothing from the others.

    Raises:
      FileNotFoundError: If there is no such file or folder.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*.jsonl") if f.name not in _NOT_ROWS)
        return [row for file in files for row in read_rows(file)]
    if not path.exists():
        raise FileNotFoundError(f"no rows at {path}: give a .jsonl file or a folder of them")
    rows, corrupt = _read(path)
    for _, problem in corrupt:
        warnings.warn(problem, CorruptRowWarning, stacklevel=2)
    return rows


def _read(path: pathlib.Path) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows of a file, and its other lines, each with what is wrong with it."""
    rows: list[Row] = []
    corrupt: list[tuple[str, str]] = []
    text = path.read_bytes().decode("utf8", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
            _check(row)
            rows.append(row)
        except ValueError as error:
            problem = (
                f"{path}, line {number}, is not a result row: {error}. The other lines are used; "
                "mend or delete that one"
            )
            corrupt.append((line, problem))
    return rows, corrupt


def _check(row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"it holds {type(row).__name__} instead of an object with fields")
    absent = [name for name in (*IDENTITY, "value") if name not in row]
    if absent:
        raise ValueError(f"it lacks {', '.join(absent)}")
    value = row["value"]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"its value {value!r} is no number")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON; a number that is missing is null")


@contextlib.contextmanager
def _exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Holds a lock on a folder, so that two processes that add rows do not lose each other's."""
    try:
        import fcntl
    except ImportError:  # no such lock on Windows: there, one process at a time
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
