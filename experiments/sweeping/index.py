"""What became of each job of a sweep: an index of JSON lines, the last line of a job counts."""

from __future__ import annotations

import datetime
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
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
      rows: Rows in its workdir at its end; None of a job that the sweep has not run itself.
      code_version: That did it.
      error: Why it failed.
      at: When the state changed, in UTC.
      about: What was planned, see `Planned.about`; None in an index of older code.
      lacks: Numbers that it ended without, such as those of a learner that diverged: method, metric
        and agent of each. None if nobody looked.
      elsewhere: Where rows of methods lie that the sweep did not measure itself, see
        `experiments.sweeping.done.Todo`; None if it measured all.
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
    about: Mapping[str, Any] | None = None
    lacks: Sequence[Sequence[Any]] | None = None
    elsewhere: Mapping[str, Any] | None = None


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

        What is known of methods that are not in `planned`, as their numbers were there before,
        stays.

        Raises:
          OSError: The disk is full or the folder cannot be written to; the state is remembered.
        """
        before = self.entries.get(planned.key)
        if before is not None:
            about = {
                "elsewhere": before.elsewhere,
                **about,
                "lacks": _lacks(before, planned, about),
            }
        entry = _entry(planned, state, **about)
        self.entries[planned.key] = entry
        self._append([entry])
        return entry

    def announce(
        self,
        plan: Iterable[Planned],
        estimates: Mapping[str, float],
        done: Iterable[Planned] = (),
        elsewhere: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Writes down what it does not know yet, so that a reader knows the whole plan.

        Args:
          plan: Jobs to be run.
          estimates: Their seconds, by key.
          done: Jobs that are done; those that the sweep has not run itself are news.
          elsewhere: Where rows lie that the sweep has not measured, by the job's key.
        """
        jobs = [(p, PENDING, {"estimate": estimates[p.key]}) for p in plan]
        jobs += [(p, DONE, {}) for p in done]
        new = []
        for planned, state, about in jobs:
            before = self.entries.get(planned.key)
            entry = before
            if entry is None or (state == DONE != entry.state):
                entry = _entry(planned, state, **about)
            found = (elsewhere or {}).get(planned.key) or entry.elsewhere
            entry = entry._replace(elsewhere=found)
            if entry != before:
                new.append(entry)
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


def _entry(planned: Planned, state: str, **about: Any) -> Entry:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    name, plan = planned.whole.name, planned.whole.about
    return Entry(planned.key, name, planned.folder, state, at=now, about=plan, **about)


def _lacks(before: Entry, planned: Planned, about: Mapping[str, Any]) -> list[Any] | None:
    """Numbers that a job lacks: of methods that are run as `about` says, of others as before."""
    found = about.get("lacks")
    if found is None and before.lacks is None:
        return None
    kept = [number for number in before.lacks or () if number[0] not in planned.job.methods]
    return [*kept, *(found or ())]


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
