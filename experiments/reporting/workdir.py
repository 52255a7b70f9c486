"""Reads what a run or a sweep has left in its folder, or the rows that were kept of many.

Anything may be missing. What a run set otherwise than the shipped config is added to its rows, so
that they can still be told apart when the config no longer lies beside them.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import pathlib
import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.records import Row
from experiments.reporting.kept import read_noting, rows_elsewhere
from experiments.reporting.overrides import FIELD, KNOBS, SHARED, overrides_of, shipped_value

CONFIG, STAMP, ROWS = "config.json", "environment.json", "rows.jsonl"
INDEX, JOBS, STORE = "index.jsonl", "jobs", "store"
"""Of a sweep: its index, its runs, and what runs share."""
MEASURES = ("prediction", "returns")


class Job(NamedTuple):
    """A run, as its folder or the index of its sweep says.

    Attributes:
      name: Its folder below that of the sweep.
      config: Its config, or as much of it as is known of one that has not begun.
      methods: Methods that it was asked for; none if nothing says.
      measures: Of `prediction` and `returns`, or other things; both if nothing says.
      overrides: What its config sets otherwise than the shipped one.
      state: As the index says; empty without an index.
      elsewhere: Where rows lie that its sweep did not measure itself, see
        `experiments.sweeping.done.Todo`; empty if it measures all.
    """

    name: str
    config: dict[str, Any]
    methods: tuple[str, ...] = ()
    measures: tuple[str, ...] = MEASURES
    overrides: Mapping[str, Any] = {}
    state: str = ""
    elsewhere: Mapping[str, Any] = {}


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
      runs: The runs; those of a sweep as its index plans them, if it has one.
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
    def is_sweep(self) -> bool:
        """Whether it holds many runs, begun or planned."""
        return bool(self.jobs) or any(run.state for run in self.runs)

    @property
    def is_study(self) -> bool:
        """Whether it may hold runs that differ in what studies vary.

        Else one run with another rank, or a sweep in which all runs have it, is what its report is
        about: the paper's tables show it.
        """
        found = [{k: v for k, v in run.overrides.items() if k in KNOBS} for run in self.runs]
        return self.kept or any(settings != found[0] for settings in found)

    @property
    def shown_rows(self) -> list[Row]:
        """The rows as tables show them, marked where no study varies their settings."""
        return self.rows if self.is_study else [row | {SHARED: True} for row in self.rows]

    @property
    def title(self) -> str:
        """A heading that says what was run."""
        if self.kept:
            return "Kept results"
        if self.is_sweep:
            return f"Sweep of {len({run.name for run in self.runs} | {*self.jobs})} runs"
        names = ("environment", "behavior", "variant")
        parts = [str(self.config[name]).replace("_", " ") for name in names if name in self.config]
        return ", ".join(parts) or self.path.name


def read_workdir(path: pathlib.Path, elsewhere: bool = True) -> Workdir:
    """Reads a run's or a sweep's folder.

    Args:
      path: The folder.
      elsewhere: Whether rows are read, too, with which jobs of a sweep were done before it began.

    Raises:
      FileNotFoundError: If the folder does not exist.
      ValueError: If a file in it is not what it should be.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}: give the --workdir of a run or a sweep")
    configs = [path / CONFIG] if (path / CONFIG).exists() else _below(path, CONFIG)
    files = [*_below(path, ROWS), *sorted(path.glob("policies/*.jsonl"))]
    begun = configs or _below(path, ROWS) or (path / INDEX).exists()
    missing: list[str] = []
    if not begun and (kept := read_noting(path, missing)):
        return Workdir(path, {}, {}, kept, (), tuple(missing), kept=True)
    single = (not configs and not (path / INDEX).exists()) or configs[:1] == [path / CONFIG]
    config, stamp = (_read_json(path / n, missing) if single else {} for n in (CONFIG, STAMP))
    runs = tuple(_job(path, found.parent) for found in configs)
    # By the config beside each file, which may be that of a run within a run's folder.
    overrides = {file: overrides_of(_read_json(file.parent / CONFIG, [])) for file in files}
    rows = [
        row | {FIELD: overrides[file]} if overrides[file] else row
        for file in files
        for row in read_noting(file, missing)
    ]
    planned = read_index(path / INDEX, {run.name: run.config for run in runs})
    if elsewhere:
        rows += rows_elsewhere(planned, rows, missing)
    if not rows:
        missing.append(f"{ROWS} (no results yet)")
    jobs = () if single else tuple(run.name for run in runs)
    return Workdir(path, config, stamp, rows, jobs, tuple(missing), planned or runs)


def read_index(path: pathlib.Path, configs: Mapping[str, Mapping[str, Any]]) -> tuple[Job, ...]:
    """Reads what a sweep has planned, begun or not; nothing without an index.

    Args:
      path: The index: JSON lines, of which the last line of a job counts.
      configs: Configs of runs that have begun, by their folder.
    """
    lines = path.read_text(encoding="utf8").split("\n") if path.exists() else []
    entries: dict[str, dict[str, Any]] = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            # A line that a kill cut short says nothing; the sweep itself tells of broken ones.
            entry = json.loads(line)
            entries[entry["job"]] = entry
    found = [_planned(entry, configs) for entry in entries.values()]
    return tuple(job for job in found if job is not None)


# Such as "cart_pole, random, trial 0, model.rank=2: prediction of persim, cadm_pets".
_ENTRY = re.compile(
    r"(?P<environment>\w+), (?P<behavior>\w+), trial (?P<trial>\d+)(?P<changes>(?:, [\w.]+=.*)?): "
    r"(?P<measures>[\w ]+?) of (?P<methods>[\w, ]+)"
)


def _planned(entry: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> Job | None:
    name, about = f"{JOBS}/{entry.get('folder')}", entry.get("about")
    if not isinstance(about, dict):
        return _from_name(entry, configs)
    names = ("environment", "behavior", "trial", "variant", "seed")
    known = dict(configs.get(name) or {field: about[field] for field in names})
    methods, measures = (tuple(about[field]) for field in ("methods", "measures"))
    state, elsewhere = str(entry.get("state", "")), entry.get("elsewhere") or {}
    return Job(name, known, methods, measures, about["overrides"], state, elsewhere)


def _from_name(entry: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> Job | None:
    """A job of an index of older code, which says no more than its name."""
    match = _ENTRY.fullmatch(str(entry.get("name")))
    if match is None:
        return None
    name = f"{JOBS}/{entry.get('folder')}"
    changes = [part.partition("=") for part in match["changes"].removeprefix(", ").split(", ")]
    overrides = {field: _literal(text) for field, mark, text in changes if mark}
    variants = [str(config["variant"]) for config in configs.values() if "variant" in config]
    known: dict[str, Any] = {
        "environment": match["environment"],
        "behavior": match["behavior"],
        "trial": int(match["trial"]),
        # Of a run that has not begun, as of the others: a sweep has one variant.
        "variant": variants[0] if variants else "default",
    }
    if name in configs:
        known, overrides = dict(configs[name]), overrides_of(configs[name])
    else:
        known |= {
            field: overrides.pop(field) for field in ("variant", "seed") if field in overrides
        }
        overrides = {
            field: value
            for field, value in overrides.items()
            if value != shipped_value(known["environment"], known["variant"], field)
        }
    measures = tuple(match["measures"].split(" and "))
    methods = tuple(match["methods"].split(", "))
    return Job(name, known, methods, measures, overrides, str(entry.get("state", "")))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _below(path: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Files of a name, those aside that the runs of a sweep share."""
    found = (file.relative_to(path) for file in path.rglob(name))
    return [path / file for file in sorted(found) if file.parts[0] != STORE]


def _job(path: pathlib.Path, folder: pathlib.Path) -> Job:
    command = _read_json(folder / STAMP, []).get("command")
    words = shlex.split(command) if isinstance(command, str) else []
    methods = [x.partition("=")[2].split(",") for x in words if x.startswith("--methods=")]
    unplanned = {"--planning=false", "--noplanning"} & {*words}
    config = _read_json(folder / CONFIG, [])
    asked = tuple(methods[-1]) if methods else ()
    name = _name(path, folder)
    return Job(name, config, asked, MEASURES[: 1 if unplanned else 2], overrides_of(config))


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
    return folder.relative_to(path).as_posix()


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
