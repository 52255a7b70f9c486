"""Reads what a run or a sweep has left in its folder, or the rows that were kept of many.

Anything may be missing. What a run set otherwise than the shipped config is added to its rows, so
that they can still be told apart when the config no longer lies beside them.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
from typing import Any, NamedTuple

from experiments.records import Row, read_rows
from experiments.reporting.overrides import FIELD, overrides_of

CONFIG, STAMP, ROWS = "config.json", "environment.json", "rows.jsonl"


class Job(NamedTuple):
    """A run, as its folder says.

    Attributes:
      name: Its folder below that of the sweep.
      config: Its config.
      methods: Methods that its last command asked for; none if it does not say.
    """

    name: str
    config: dict[str, Any]
    methods: tuple[str, ...] = ()


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
      runs: The runs, one for a run.
      kept: Whether it holds rows kept of many runs, as `results/` does.
    """

    path: pathlib.Path
    config: dict[str, Any]
    stamp: dict[str, Any]
    rows: list[Row]
    jobs: tuple[str, ...]
    missing: tuple[str, ...]
    runs: tuple[Job, ...] = ()
    kept: bool = False

    @property
    def title(self) -> str:
        """A heading that says what was run."""
        if self.kept:
            return "Kept results"
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
    configs = [path / CONFIG] if (path / CONFIG).exists() else sorted(path.rglob(CONFIG))
    files = [*sorted(path.rglob(ROWS)), *sorted(path.glob("policies/*.jsonl"))]
    if not configs and not any(path.rglob(ROWS)) and (kept := read_rows(path)):
        return Workdir(path, {}, {}, kept, (), (), kept=True)
    missing: list[str] = []
    single = not configs or configs[0].parent == path
    config, stamp = (_read_json(path / n, missing) if single else {} for n in (CONFIG, STAMP))
    runs = tuple(_job(path, found.parent) for found in configs)
    overrides = {run.name: overrides_of(run.config) for run in runs}
    rows = [
        row | {FIELD: found} if (found := overrides.get(_name(path, file.parent))) else row
        for file in files
        for row in read_rows(file)
    ]
    if not rows:
        missing.append(f"{ROWS} (no results yet)")
    jobs = () if single else tuple(run.name for run in runs)
    return Workdir(path, config, stamp, rows, jobs, tuple(missing), runs)


def _job(path: pathlib.Path, folder: pathlib.Path) -> Job:
    command = _read_json(folder / STAMP, []).get("command")
    return Job(_name(path, folder), _read_json(folder / CONFIG, []), _methods(command))


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
    return str(folder.relative_to(path))


def _methods(command: Any) -> tuple[str, ...]:
    """The `--methods` of a command."""
    words = shlex.split(command) if isinstance(command, str) else []
    given = [word.partition("=")[2] for word in words if word.startswith("--methods=")]
    return tuple(given[-1].split(",")) if given else ()


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
