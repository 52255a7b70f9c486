"""Takes a run's rows into `results/`, from which README and documentation are made."""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Sequence

from experiments.records import Row, append_rows

REQUIRED = ("code_version", "config_digest", "device")


def accept_rows(
    rows: Sequence[Row], results: pathlib.Path, allow_dirty: bool = False
) -> list[pathlib.Path]:
    """Adds rows to `results/ENVIRONMENT/BEHAVIOR.jsonl`; all of them or, if one is unfit, none.

    Args:
      rows: Rows to accept.
      results: The folder.
      allow_dirty: Accept rows of code that differs from its commit, which nobody else can repeat.

    Returns:
      The files written.

    Raises:
      ValueError: If there is no row, or one that cannot be traced to a commit, config and device.
    """
    if not rows:
        raise ValueError("there are no rows to accept: let the run finish first")
    for row in rows:
        _check(row, allow_dirty)
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["environment"], row["behavior"]].append(row)
    written = []
    for (environment, behavior), group in sorted(groups.items()):
        path = results / environment / f"{behavior}.jsonl"
        append_rows(path, group)
        written.append(path)
    return written


def _check(row: Row, allow_dirty: bool) -> None:
    name = f"{row['method']} {row['metric']} of agent {row['agent_id']}, trial {row['trial']}"
    absent = [field for field in REQUIRED if not row.get(field)]
    if absent:
        raise ValueError(
            f"the row of {name} lacks {', '.join(absent)}, so nobody could repeat it; measure it "
            "again with experiments.run"
        )
    if row["code_version"].endswith("-dirty") and not allow_dirty:
        raise ValueError(
            f"the row of {name} was measured with {row['code_version']}: code that differs from "
            "its commit. Commit and run again, or pass --allow_dirty"
        )
