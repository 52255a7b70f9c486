"""The folder of one run: which config made it, what is done, how long it took."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.records import Row, RowContext, append_rows, read_rows
from experiments.stamps import environment_stamp, jsonable
from persim_jax.files import write_json_atomically

LOG = logging.getLogger("persim_jax")


class Workdir:
    """A run's folder.

    Attributes:
      path: The folder.
      config: The run's config as a plain dict.
      context: What all of its rows share.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        """Opens or makes the folder.

        Raises:
          ValueError: It was made with another config; names the fields that differ.
        """
        self.path = Path(path)
        self.config: dict[str, Any] = jsonable(dict(config))
        stored = self.path / "config.json"
        if stored.exists():
            _refuse_other_config(self.path, json.loads(stored.read_text("utf8")), self.config)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json_atomically(stored, self.config)
        stamp = environment_stamp()
        write_json_atomically(self.path / "environment.json", jsonable(stamp))
        self.context = RowContext.from_config(self.config, stamp)
        _log_to(self.path / "log.txt")

    @property
    def rows_path(self) -> Path:
        """The rows of this run."""
        return self.path / "rows.jsonl"

    def rows(self) -> list[Row]:
        """All rows measured so far."""
        return read_rows(self.rows_path) if self.rows_path.exists() else []

    def has(self, method: str, metric: str, agent_id: int | None = None) -> bool:
        """Whether this number has been measured, by whichever code version."""
        return any(
            (row["method"], row["metric"], row["agent_id"]) == (method, metric, agent_id)
            and row["config_digest"] == self.context.config_digest
            for row in self.rows()
        )

    def add(self, rows: list[Row]) -> None:
        """Adds rows, all or none."""
        append_rows(self.rows_path, rows)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds a stage's wall time to `timings.json` once it has ended well."""
        LOG.info("%s: started", stage)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        path = self.path / "timings.json"
        timings = json.loads(path.read_text("utf8")) if path.exists() else {}
        timings[stage] = timings.get(stage, 0.0) + seconds
        write_json_atomically(path, timings)
        LOG.info("%s: done in %.1f s", stage, seconds)


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


def _refuse_other_config(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differences = differing_fields(old, new)
    if differences:
        raise ValueError(
            f"{path} was made with another config. Fields that differ: {', '.join(differences)}. "
            "Give another --workdir, or the flags that this one was made with"
        )


def _log_to(path: Path) -> None:
    """Sends the log of this process to the run's `log.txt`."""
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path, encoding="utf8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
