"""What of a sweep is done already: by its index, by rows in its folder, by accepted rows."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from experiments.baseline_settings import method_digest
from experiments.records import IDENTITY, NO_BEHAVIOR, TRUE_ENV, CorruptRowWarning, Row, read_rows
from experiments.sweeping.index import DONE, FAILED, PENDING, Index
from experiments.sweeping.launchers import find_launcher
from experiments.sweeping.plan import FOLDER, Planned

Versions: TypeAlias = Mapping[tuple[Any, ...], set[str]]
"""Code versions of the rows of each identity."""


class Todo(NamedTuple):
    """What a sweep has to do.

    Attributes:
      jobs: To be run, with the methods that are missing.
      done: Done, be it elsewhere.
      failed: Failed before, and not to be tried again.
      notes: What a person should know, in lines.
    """

    jobs: list[Planned]
    done: list[Planned]
    failed: list[Planned]
    notes: list[str]


def what_is_left(
    plan: Sequence[Planned],
    folder: Path,
    index: Index,
    results: Path,
    version: str,
    retry_failed: bool,
) -> Todo:
    """Sorts a plan into what is to do and what is not.

    A job that its sweep's index calls done is done while all of its rows are there. Of another job
    those methods are done whose numbers lie in `results`, or in workdirs of the sweep's jobs that
    are done; rows of another code version count, and are said.

    Args:
      plan: All jobs.
      folder: Of the sweep.
      index: Of the sweep.
      results: Folder of accepted rows.
      version: This code's.
      retry_failed: Whether jobs that failed are tried again.
    """
    notes: list[str] = []
    counts: dict[str, int] = {}
    finished: list[Row] = []
    for name in sorted({entry.folder for entry in index.entries.values()}):
        rows = _rows(folder / FOLDER / name / "rows.jsonl", notes)
        counts[name] = len(rows)
        states = {entry.state for entry in index.entries.values() if entry.folder == name}
        # Where a job was cut off, a method may have its numbers but not yet all of its rows.
        if DONE in states and states <= {DONE, PENDING}:
            finished += rows
    here = _versions(finished)
    accepted = _versions(_rows(results, notes))
    todo = Todo([], [], [], notes)
    others: dict[str, set[str]] = {}
    for planned in plan:
        entry = index.entries.get(planned.key)
        if entry is not None and entry.state == DONE:
            if counts.get(entry.folder, 0) >= (entry.rows or 0):
                todo.done.append(planned)
                if entry.code_version != version:
                    others[planned.key] = {str(entry.code_version)}
                continue
            notes.append(f"rows of {planned.name} are gone: what is missing is measured again")
            todo.jobs.append(planned)
        elif entry is not None and entry.state == FAILED and not retry_failed:
            todo.failed.append(planned)
        else:
            _by_rows(planned, here, accepted, version, todo, others)
    if others:
        named = ", ".join(sorted(set().union(*others.values())))
        notes.append(
            f"{len(others)} of {len(plan)} jobs have numbers of other code versions ({named}; this "
            f"is {version}): they are not measured again, their rows say by which they were"
        )
    return todo


def _by_rows(
    planned: Planned,
    here: Versions,
    accepted: Versions,
    version: str,
    todo: Todo,
    others: dict[str, set[str]],
) -> None:
    missing, old = [], set[str]()
    for method in planned.job.methods:
        found = [here.get(i) or accepted.get(i) for i in identities(planned, method)]
        if found and all(found):
            # Of a number that this code measured, too, another version's is of no interest.
            known = (versions for versions in found if versions and version not in versions)
            old |= set().union(*known)
        elif found:
            missing.append(method)
    if missing:
        todo.jobs.append(planned.only(missing))
    else:
        todo.done.append(planned)
    if old:
        others[planned.key] = old


def identities(planned: Planned, method: str) -> list[tuple[Any, ...]]:
    """Of the rows with which a job's method is done, as `IDENTITY` orders them."""
    config = planned.config
    launcher = find_launcher(planned.job.launcher)
    fields = {
        "environment": config["environment"],
        "behavior": NO_BEHAVIOR if method == TRUE_ENV else config["behavior"],
        "method": method,
        "trial": config["trial"],
        "config_digest": method_digest(config, method),
    }
    return [
        tuple((fields | {"metric": metric, "agent_id": agent})[name] for name in IDENTITY)
        for metric, agent in sorted(launcher.numbers(config, method, planned.job.measures), key=str)
    ]


def _versions(rows: Iterable[Row]) -> Versions:
    found: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in rows:
        found[tuple(row[name] for name in IDENTITY)].add(str(row.get("code_version")))
    return found


def _rows(path: Path, notes: list[str]) -> list[Row]:
    """Rows of a file or folder, none if it is missing; corrupt lines are noted."""
    if not path.exists():
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CorruptRowWarning)
        rows = read_rows(path)
    notes += [str(warning.message) for warning in caught]
    return rows
