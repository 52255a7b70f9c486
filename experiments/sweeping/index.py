"""What became of each job of a sweep: an index of JSON lines, the last line of a job counts."""

from __future__ import annotations

import datetime
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sweeping.plan import Planned

NAME = "index.jsonl"
PENDING, RUNNING, DONE, FAILED = "pending", "running", "done", "failed"
STATES = (PENDING, RUNNING, DONE, FAILED)


class Entry(NamedTuple):
    """What is known of a job.

    Attributes:
      job: Its key.
      name: What it is, for people.
      folder: Name of its workdir in `jobs/`.
      state: One of `STATES`; "running" of a sweep that is over means that it was cut off.
      seconds: From when it was handed to a worker to its end, the worker's start included.
      estimate: Seconds that it was expected to take.
      rows: Rows in its workdir at its end.
      code_version: That did it.
      error: Why it failed.
      at: When the state changed, in UTC.
    """

    job: str
    name: str
    folder: str
    state: str
    seconds: float | None = None
    estimate: float | None = None
    rows: int | None = None
    code_version: str | None = None
    error: str | None = None
    at: str = ""


class Index:
    """The index of a sweep's folder.

    Attributes:
      path: The file.
      entries: The last entry of each job, by its key.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.entries = _read(self.path)

    def state(self, key: str) -> str:
        """What is known of a job; one that is not known is pending."""
        return self.entries[key].state if key in self.entries else PENDING

    def add(self, planned: Planned, state: str, **about: Any) -> Entry:
        """Writes down that the state of a job is another one now.

        Raises:
          OSError: The disk is full or the folder cannot be written to; the state is remembered.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = Entry(planned.key, planned.name, planned.folder, state, at=now, **about)
        self.entries[planned.key] = entry
        self._append([entry])
        return entry

    def announce(self, plan: Iterable[Planned], estimates: Mapping[str, float]) -> None:
        """Writes down jobs that it does not know yet, so that a reader knows what is missing."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        new = [
            Entry(p.key, p.name, p.folder, PENDING, estimate=estimates[p.key], at=now)
            for p in plan
            if p.key not in self.entries
        ]
        self.entries |= {entry.job: entry for entry in new}
        if new:
            self._append(new)

    def _append(self, entries: list[Entry]) -> None:
        lines = "".join(json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in entries)
        # A line that a kill or a full disk cut short must not swallow the next one.
        with self.path.open("ab") as file:
            file.write(f"\n{lines}".encode())
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Entry]:
    """The last entry of each job; a line that is none is told, unless a kill cut it short."""
    entries: dict[str, Entry] = {}
    lines = path.read_bytes().decode("utf8", "replace").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = Entry(**json.loads(line))
            if entry.state not in STATES:
                raise ValueError(f"state {entry.state!r} is none of {', '.join(STATES)}")
        except (ValueError, TypeError) as error:
            if line.rstrip().endswith("}"):
                warnings.warn(f"{path}, line {number}, is left out: {error}", stacklevel=3)
            continue
        entries[entry.job] = entry
    return entries
