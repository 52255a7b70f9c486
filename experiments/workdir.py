"""The folder of one run: which config made it, what is done, how long it took."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import envs
from experiments.baseline_settings import SECTION, method_digest
from experiments.records import Row, RowContext, append_rows, read_rows
from experiments.stamps import environment_stamp, jsonable, without_later
from persim_jax.files import write_json_atomically

LOG = logging.getLogger("persim_jax")
# The terminal shows what `Display` prints; absl's handler on the root logger would echo every line.
LOG.propagate = False
LOG.addHandler(logging.NullHandler())
LOCK = ".lock"
SWEEP = "index.jsonl"
"""What the folder of a sweep has, and that of a run has not."""
# As `persim_jax.files.write_atomically` names them; a user's own files may end in .tmp, too.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


class Stopwatch:
    """Seconds that a stage has taken so far.

    Attributes:
      before: Seconds of earlier processes whose work this one goes on with.
    """

    def __init__(self, path: Path, stage: str, before: float = 0.0) -> None:
        self.before = before
        self._path, self._stage, self._start = path, stage, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of earlier processes and of this one."""
        return self.before + time.perf_counter() - self._start

    def lap(self) -> None:
        """Stores the time so far, so that a kill does not lose it."""
        write_json_atomically(self._path, read_json(self._path) | {self._stage: self.seconds})


class Folder:
    """A folder whose stages are timed.

    Attributes:
      path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def timed(self, stage: str, goes_on: bool = False) -> Iterator[Stopwatch]:
        """Stores a stage's wall time in `timings.json` once it has ended well.

        Args:
          stage: Name of the stage.
          goes_on: Whether an earlier process did a part of it, so that its time counts too.
        """
        path = self.path / "timings.json"
        watch = Stopwatch(path, stage, read_json(path).get(stage, 0.0) if goes_on else 0.0)
        LOG.info("%s: started", stage)
        yield watch
        watch.lap()
        LOG.info("%s: done in %.1f s", stage, watch.seconds)

    def keep_config(self, config: Mapping[str, Any]) -> None:
        """Stores what made the folder in its `config.json`.

        Raises:
          ValueError: It was made with another config; names the fields that differ.
        """
        stored = self.path / "config.json"
        if stored.exists():
            before = read_json(stored)
            merged = _with_new_sections(before, config)
            _refuse_other_config(self.path, without_later(merged), without_later(config))
            if merged != before:
                write_json_atomically(stored, config)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json_atomically(stored, config)


class Workdir(Folder):
    """A run's folder.

    Attributes:
      config: The run's config as a plain dict.
      context: What all of its rows share.
      other_code: The code version that last worked here, if it was another than this one.
      planning: Whether this process runs planners in the true environment.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        """Opens or makes the folder.

        Raises:
          ValueError: It was made with another config; names the fields that differ.
        """
        super().__init__(path)
        self.config: dict[str, Any] = jsonable(dict(config))
        self.planning = True
        self.keep_config(self.config)
        stamp = jsonable(environment_stamp())
        before = read_json(self.path / "environment.json")
        # A file that stays as it is keeps its time, by which `report_is_current` goes.
        if before != stamp:
            write_json_atomically(self.path / "environment.json", stamp)
        backend = envs.make(self.config["environment"], self.config["backend"]).spec.backend
        context = RowContext.from_config(self.config, stamp)
        self.context = dataclasses.replace(context, backend=backend)
        version = before.get("code_version", self.context.code_version)
        self.other_code = version if version != self.context.code_version else None
        _log_to(self.path / "log.txt")

    @property
    def rows_path(self) -> Path:
        """The rows of this run."""
        return self.path / "rows.jsonl"

    def context_of(self, method: str) -> RowContext:
        """What the rows of a method share; those of a baseline have its settings in the digest."""
        return dataclasses.replace(self.context, config_digest=method_digest(self.config, method))

    def rows(self) -> list[Row]:
        """All rows measured so far."""
        return read_rows(self.rows_path) if self.rows_path.exists() else []

    def rows_of(self, method: str, metric: str) -> list[Row]:
        """All rows of one number of a method, by whichever code version."""
        digest = self.context_of(method).config_digest
        return [
            row
            for row in self.rows()
            if (row["method"], row["metric"]) == (method, metric) and row["config_digest"] == digest
        ]

    def has(self, method: str, metric: str, agent_id: int | None = None) -> bool:
        """Whether this number has been measured, by whichever code version."""
        return any(row["agent_id"] == agent_id for row in self.rows_of(method, metric))

    def add(self, rows: list[Row]) -> None:
        """Adds rows, all or none."""
        append_rows(self.rows_path, rows)

    def report_is_current(self) -> bool:
        """Whether the report, whose HTML is written last, is newer than what it is made of."""
        report = self.path / "report.html"
        names = ("config.json", "environment.json", "rows.jsonl", "metrics.jsonl")
        parts = [path for name in names if (path := self.path / name).exists()]
        parts += self.path.glob("arrays/*.npz")
        newest = max(path.stat().st_mtime_ns for path in parts)
        return report.exists() and report.stat().st_mtime_ns >= newest


@contextlib.contextmanager
def opened(path: str | Path, config: Mapping[str, Any]) -> Iterator[Workdir]:
    """A workdir for this process alone; what goes wrong is told in its `log.txt`.

    Raises:
      ValueError: It was made with another config, is that of a sweep, or another process works in
        it.
    """
    if Path(path, SWEEP).exists():
        raise ValueError(
            f"{path} is the folder of a sweep, whose runs lie in jobs/: give another --workdir"
        )
    with locked(path) as path:
        yield Workdir(path, config)


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[Path]:
    """A folder for this process alone, made if missing, with a `log.txt`.

    Raises:
      ValueError: It is a file, or another process works in it.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: --workdir is a folder, made if missing")
    path.mkdir(parents=True, exist_ok=True)
    with _exclusive(path):
        # What a kill left of files that were being written; nobody else writes here now.
        for leftover in _leftovers(path):
            leftover.unlink()
        _log_to(path / "log.txt")
        try:
            yield path
        except BaseException as error:
            LOG.error("%s", type(error).__name__, exc_info=True)
            raise
        finally:
            _close_log()


def _leftovers(path: Path) -> list[Path]:
    """Temporary files of this folder; those of runs inside it are theirs, who may be at work."""
    found: list[Path] = []
    for folder, names, files in os.walk(path):
        names[:] = [name for name in names if not Path(folder, name, LOCK).exists()]
        found += [Path(folder, file) for file in files if _TEMPORARY.fullmatch(file)]
    return found


def differing_fields(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two nested configs differ, with both values."""
    differences = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "absent"), new.get(name, "absent")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            differences += differing_fields(before, after, f"{prefix}{name}.")
        elif before != after:
            differences.append(f"{prefix}{name} (was {before!r}, now {after!r})")
    return differences


def _with_new_sections(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A config from before there were some of the baselines, with the new one's settings of these.

    A baseline without settings left no row.
    """
    if not old or SECTION not in new:
        return dict(old)
    return {**old, SECTION: {**new[SECTION], **old.get(SECTION, {})}}


def _refuse_other_config(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differences = differing_fields(old, new)
    if differences:
        raise ValueError(
            f"{path} was made with another config. Fields that differ: {', '.join(differences)}. "
            "Give another --workdir, or the flags that this one was made with"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The named fields of a file; none if it is missing."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): mend it, or give another --workdir") from (
            error
        )
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no named fields: mend it, or give another --workdir")
    return found


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system takes back from a process that was killed."""
    try:
        import fcntl
    except ImportError:  # no such lock on Windows: there, one process at a time
        yield
        return
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process works in {path}: wait for it, or give another --workdir"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waiting_for(path: str | Path, seconds: float | None = None) -> Iterator[Path]:
    """A folder for this process alone, made if missing; waits while another one has it.

    Args:
      path: The folder.
      seconds: How long to wait at most; None is for ever.

    Raises:
      ValueError: Another process still works in it.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    end = None if seconds is None else time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(_exclusive(path))
                break
            except ValueError:
                if end is not None and time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield path


def _log_to(path: Path) -> None:
    """Sends the log of this process to the run's `log.txt`."""
    _close_log()
    handler = logging.FileHandler(path, encoding="utf8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


def _close_log() -> None:
    for handler in list(LOG.handlers):
        if isinstance(handler, logging.FileHandler):
            LOG.removeHandler(handler)
            handler.close()
