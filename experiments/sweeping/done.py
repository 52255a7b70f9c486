"""What of a sweep is done already: by its index, by rows in its folder, by accepted rows."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from experiments.baseline_settings import method_digest
from experiments.records import IDENTITY, NO_BEHAVIOR, TRUE_ENV, CorruptRowWarning, Row, read_rows
from experiments.sweeping.index import DONE, FAILED, PENDING, Entry, Index
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
      elsewhere: By the key of a job of which methods are done by accepted rows: the `folder` of
        these, and of each of the `methods` its `config_digest` and `metrics`.
    """

    jobs: list[Planned]
    done: list[Planned]
    failed: list[Planned]
    notes: list[str]
    elsewhere: dict[str, dict[str, Any]]


class _Known(NamedTuple):
    """Rows that there are: in each folder of the sweep, in those that are finished, accepted."""

    folders: Mapping[str, Versions]
    here: Versions
    accepted: Versions


class _Compared(NamedTuple):
    """A job against the rows that there are.

    Attributes:
      missing: Methods that lack a number.
      old: Other code versions of the numbers that there are.
      elsewhere: Of methods with numbers in accepted rows alone, see `Todo`.
    """

    missing: list[str]
    old: set[str]
    elsewhere: dict[str, Any]


def what_is_left(
    plan: Sequence[Planned],
    folder: Path,
    index: Index,
    results: Path,
    version: str,
    retry_failed: bool,
) -> Todo:
    """Sorts a plan into what is to do and what is not.

    A job that its sweep has run is done while all of its numbers are there, those aside that it
    ended without. Of another job those methods are done whose numbers lie in `results`, or in
    workdirs of the sweep's jobs that are done; rows of another code version count, and are said.

    Args:
      plan: All jobs.
      folder: Of the sweep.
      index: Of the sweep.
      results: Folder of accepted rows.
      version: This code's.
      retry_failed: Whether jobs that failed are tried again.
    """
    todo = Todo([], [], [], [], {})
    known = _known(folder, index, results, todo.notes)
    others: dict[str, set[str]] = {}
    for planned in plan:
        entry = index.entries.get(planned.key)
        if entry is not None and entry.state == FAILED and not retry_failed:
            todo.failed.append(planned)
            continue
        # An entry without a count of rows only says that the numbers were elsewhere.
        ran = entry is not None and entry.state == DONE and entry.rows is not None
        missing, old, elsewhere = _compare(planned, entry if ran else None, known, version)
        if missing and ran:
            todo.notes.append(f"rows of {planned.name} are gone: what is missing is measured again")
        if ran and entry is not None:
            old = set() if missing or entry.code_version == version else {str(entry.code_version)}
        if missing:
            todo.jobs.append(planned.only(missing))
        else:
            todo.done.append(planned)
        if old:
            others[planned.key] = old
        if elsewhere:
            where = str(results.absolute())
            todo.elsewhere[planned.key] = {"folder": where, "methods": elsewhere}
    if others:
        named = ", ".join(sorted(set().union(*others.values())))
        todo.notes.append(
            f"{len(others)} of {len(plan)} jobs have numbers of other code versions ({named}; this "
            f"is {version}): they are not measured again, their rows say by which they were"
        )
    return todo


def _known(folder: Path, index: Index, results: Path, notes: list[str]) -> _Known:
    folders: dict[str, Versions] = {}
    finished: list[Row] = []
    states: dict[str, set[str]] = defaultdict(set)
    for entry in index.entries.values():
        states[entry.folder].add(entry.state)
    for name in sorted(states):
        rows = _rows(folder / FOLDER / name / "rows.jsonl", notes)
        folders[name] = _versions(rows)
        # Where a job was cut off, a method may have its numbers but not yet all of its rows.
        if DONE in states[name] <= {DONE, PENDING}:
            finished += rows
    return _Known(folders, _versions(finished), _versions(_rows(results, notes)))


def _compare(planned: Planned, ran: Entry | None, known: _Known, version: str) -> _Compared:
    """Compares a job's numbers with the rows that there are, read once for all jobs.

    Jobs share a folder, so that how many rows it has says nothing of whose are lost.
    """
    own: Versions = known.folders.get(ran.folder, {}) if ran else {}
    found = _Compared([], set(), {})
    for method in planned.job.methods:
        wanted = identities(planned, method)
        here = [own.get(i) or known.here.get(i) for i in wanted]
        rows = [mine or known.accepted.get(i) for mine, i in zip(here, wanted, strict=True)]
        lost = [i for i, row in zip(wanted, rows, strict=True) if not row]
        if lost and not (ran and all(_never_was(i, ran, own) for i in lost)):
            found.missing.append(method)
            continue
        # Of a number that this code measured, too, another version's is of no interest.
        known_versions = (versions for versions in rows if versions and version not in versions)
        found.old.update(*known_versions)
        if any(row and not mine for mine, row in zip(here, rows, strict=True)):
            metrics = sorted({i[IDENTITY.index("metric")] for i in wanted})
            digest = wanted[0][IDENTITY.index("config_digest")]
            found.elsewhere[method] = {"config_digest": digest, "metrics": metrics}
    return found


def _never_was(number: tuple[Any, ...], ran: Entry, own: Versions) -> bool:
    """Whether a job ended without a number, as where a learner diverged: it is not tried again."""
    about = dict(zip(IDENTITY, number, strict=True))
    if ran.lacks is not None:
        return [about["method"], about["metric"], about["agent_id"]] in [list(x) for x in ran.lacks]
    # An index of older code has no more than a count of the folder's rows.
    num_rows = sum(len(versions) for versions in own.values())
    methods = {found[IDENTITY.index("method")] for found in own}
    return num_rows >= (ran.rows or 0) and about["method"] not in methods


def identities(planned: Planned, method: str) -> list[tuple[Any, ...]]:
    """Of the rows with which a job's method is done, as `IDENTITY` orders them."""
    return identities_of(planned.config, planned.job.launcher, method, planned.job.measures)


def identities_of(
    config: Mapping[str, Any], launcher: str, method: str, measures: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Of the rows with which a method of a config is done for a launcher, by what it measures."""
    fields = {
        "environment": config["environment"],
        "behavior": NO_BEHAVIOR if method == TRUE_ENV else config["behavior"],
        "method": method,
        "trial": config["trial"],
        "config_digest": method_digest(config, method),
    }
    return [
        tuple((fields | {"metric": metric, "agent_id": agent})[name] for name in IDENTITY)
        for metric, agent in sorted(
            find_launcher(launcher).numbers(config, method, measures), key=str
        )
    ]


def identity(row: Row) -> tuple[Any, ...]:
    """What of a row `identities` compares."""
    return tuple(row[name] for name in IDENTITY)


def _versions(rows: Iterable[Row]) -> Versions:
    found: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in rows:
        found[identity(row)].add(str(row.get("code_version")))
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
