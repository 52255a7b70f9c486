"""Reads what a run, or a sweep of runs, has left in its folder; anything may be missing."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from experiments.records import Row, read_rows

CONFIG, STAMP, ROWS = "config.json", "environment.json", "rows.jsonl"


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The contents of a folder.

    Attributes:
      path: The folder.
      config: The run's config; empty for a sweep or if missing.
      stamp: Versions, device and command; empty if missing.
      rows: All result rows below the folder, those of the run's policies included.
      jobs: Names of the runs of a sweep; empty for a run.
      missing: What is not there, in words.
    """

    path: pathlib.Path
    config: dict[str, Any]
    stamp: dict[str, Any]
    rows: list[Row]
    jobs: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def title(self) -> str:
        """A heading that says what was run."""
        if self.jobs:
            return f"Sweep of {len(self.jobs)} runs"
        names = ("environment", "behavior", "variant")
        parts = [str(self.config[name]).replace("_", " ") for name in names if name in self.config]
        return ", ".join(parts) or self.path.name


def read_workdir(path: pathlib.Path) -> Workdir:
    """Reads a run's or a sweep's folder.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If a file in it is not what it should be.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}: give the --workdir of a run or a sweep")
    missing: list[str] = []
    jobs: tuple[str, ...] = ()
    if not (path / CONFIG).exists():
        jobs = tuple(str(found.parent.relative_to(path)) for found in sorted(path.rglob(CONFIG)))
    files = [*sorted(path.rglob(ROWS)), *sorted(path.glob("policies/*.jsonl"))]
    rows = [row for file in files for row in read_rows(file)]
    config, stamp = ({} if jobs else _read_json(path / name, missing) for name in (CONFIG, STAMP))
    if not rows:
        missing.append(f"{ROWS} (no results yet)")
    return Workdir(path, config, stamp, rows, jobs, tuple(missing))


def _read_json(path: pathlib.Path, missing: list[str]) -> dict[str, Any]:
    if not path.exists():
        missing.append(path.name)
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it or run again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__} instead of named fields")
    return found
