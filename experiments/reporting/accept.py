"""Takes rows into `results/`, from which README and documentation are made: latest, not best.

`results/` holds one row per identity (see `experiments.records`). What was measured again replaces
what was there, by whichever code version; unless it covers fewer agents, or is older.
"""

from __future__ import annotations

import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from experiments.records import IDENTITY, Row, changing_rows
from experiments.reporting import model
from experiments.reporting.newcomers import is_of_newcomers
from experiments.reporting.overrides import FIELD, settings_key
from experiments.reporting.sheet import is_policy

REQUIRED = ("code_version", "config_digest", "device")
_PREDICTION = ("rmse_mean", "rmse_std", "r2_median", "r2_mean", "episodes_left_out")
FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(_PREDICTION, "prediction test"),
    **dict.fromkeys(("return_mean", "return_std"), "returns"),
}
"""Metrics that are measured together; any other one is measured by itself."""
Key: TypeAlias = tuple[Any, ...]
# As `git rev-parse --short=10` prints it, longer where ten digits are not unique.
_COMMIT = re.compile(r"[0-9a-f]{10,40}")


class Accepted(NamedTuple):
    """What became of rows.

    Attributes:
      files: Those written.
      num_taken: Rows taken.
      num_pruned: Rows that were there before and are no longer.
      notes: What was not taken, and why, in words.
    """

    files: tuple[pathlib.Path, ...]
    num_taken: int
    num_pruned: int
    notes: tuple[str, ...]


def accept_rows(rows: Sequence[Row], results: pathlib.Path, allow_dirty: bool = False) -> Accepted:
    """Takes rows into the files of `results/`; if one of them is unfit, none.

    Rows of an environment and kind of data go to `ENVIRONMENT/BEHAVIOR.jsonl`, of other settings
    than the shipped ones to `ENVIRONMENT/BEHAVIOR-studies.jsonl`, those of unseen agents to
    `unseen/ENVIRONMENT.jsonl`, those of policies to `policies/ENVIRONMENT.jsonl`.

    Args:
      rows: Rows to accept.
      results: The folder.
      allow_dirty: Accept rows of code that differs from its commit, or was measured without git,
        which nobody else can repeat.

    Raises:
      ValueError: If there is no row, or one that cannot be traced to a commit, config and device.
    """
    if not rows:
        raise ValueError("there are no rows to accept: let the run finish first")
    for row in rows:
        _check(row, allow_dirty)
    groups: dict[pathlib.Path, list[Row]] = defaultdict(list)
    for row in rows:
        groups[results / file_of(row)].append(row)
    notes: list[str] = []
    taken = pruned = 0
    written = []
    for path, group in sorted(groups.items()):
        with changing_rows(path) as old:
            before, new = len(old), {id(row) for row in group}
            old[:], said = settle(list(old), group)
            count = sum(id(row) in new for row in old)
            taken, pruned = taken + count, pruned + before - (len(old) - count)
            written += [path] if count or before != len(old) else []
            notes += said
    return Accepted(tuple(written), taken, pruned, tuple(notes))


def prune(results: pathlib.Path) -> int:
    """Leaves one row per identity in every file of `results/`; returns how many rows went."""
    gone = 0
    for path in sorted(results.rglob("*.jsonl")):
        with changing_rows(path) as rows:
            before = len(rows)
            rows[:] = settle(list(rows))[0]
            gone += before - len(rows)
    return gone


def file_of(row: Row) -> pathlib.Path:
    """Returns the file of a row below `results/`."""
    if is_policy(row):
        return pathlib.Path("policies", f"{row['environment']}.jsonl")
    if is_of_newcomers(row["metric"]) or row["metric"] == "personalize_seconds":
        return pathlib.Path("unseen", f"{row['environment']}.jsonl")
    # Many values of a setting would let one file grow beyond what a repository takes gladly.
    part = "-studies" if row.get(FIELD) else ""
    return pathlib.Path(row["environment"], f"{row['behavior']}{part}.jsonl")


def settle(old: Sequence[Row], new: Sequence[Row] = ()) -> tuple[list[Row], list[str]]:
    """Returns one row per identity, and what was not taken, in words.

    Of the code versions that measured a job (environment, data, method, trial, config) the latest
    counts whose agents include those of all others; if none does, the one with most agents, and
    the others fill in what it lacks. A job of another config does not enter beside a kept one that
    has agents which it lacks, as tables would show the later config and lose them. Jobs enter one
    after the other, older ones first, as if each had been accepted by itself.

    Args:
      old: Rows that are kept already, older ones first.
      new: Rows that would be added.
    """
    jobs, incoming = _by_job(old), _by_job(new)
    slots: dict[Key, dict[Key, list[Row]]] = defaultdict(dict)
    for job, rows in jobs.items():
        slots[job[:-1]][job] = rows
    notes = []
    for job, rows in sorted(incoming.items(), key=lambda item: max(map(_time, item[1]))):
        own = [*jobs.get(job, ()), *rows]
        others = slots[job[:-1]].values()
        lost = max((_agents(other) - _agents(own) for other in others), key=len, default=())
        if lost:
            notes.append(_refusal(rows, f"lack {_named(lost)}"))
        else:
            jobs[job] = slots[job[:-1]][job] = own
    added = {id(row) for row in new}
    kept: dict[Key, Row] = {}
    for rows in jobs.values():
        winners = _winners(rows)
        refused = [r for r in rows if id(r) in added and winners[_identity(r)] is not r]
        if refused and (why := _why(refused, winners)):
            notes.append(_refusal(refused, why))
        kept |= winners
    return [row for row in (*old, *new) if kept.get(_identity(row)) is row], notes


def _by_job(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    jobs: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        jobs[_job(row)].append(row)
    return dict(jobs)


def _winners(rows: Sequence[Row]) -> dict[Key, Row]:
    """The rows of one job that count, by identity."""
    versions: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        versions[str(row.get("code_version"))].append(row)
    # sorted() is stable: without times, the order in which rows came decides.
    groups = sorted(versions.values(), key=lambda group: max(map(_time, group)))
    best = max(range(len(groups)), key=lambda i: (len(_agents(groups[i])), i), default=0)
    order = [group for i, group in enumerate(groups) if i != best] + groups[best : best + 1]
    return {_identity(row): row for group in order for row in sorted(group, key=_time)}


def _why(refused: Sequence[Row], own: Mapping[Key, Row]) -> str:
    """Why rows lost against those that are kept; empty where they only repeat them."""
    winners = [own[_identity(row)] for row in refused]
    if [row["value"] for row in refused] == [row["value"] for row in winners]:
        return ""
    version = winners[0].get("code_version")
    theirs = _agents(row for row in own.values() if row.get("code_version") == version)
    lost = theirs - _agents(refused)
    return f"lack {_named(lost)}" if lost else "are older than those kept"


def _named(agents: Iterable[Any]) -> str:
    names = sorted(map(str, agents))
    return f"agent{'' if len(names) == 1 else 's'} {', '.join(names)}, which kept rows have"


def _refusal(rows: Sequence[Row], why: str) -> str:
    first = rows[0]
    where = (
        model.method_name(first["method"]),
        FAMILIES.get(first["metric"], first["metric"]),
        model.environment_name(first["environment"]),
        model.behavior_name(first["behavior"]),
        f"trial {first['trial']}",
    )
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    return f"not taken, {', '.join(where)}: {count} of code {first.get('code_version')} {why}"


def _slot(row: Row) -> Key:
    """What a table shows one config of."""
    names = ("environment", "behavior", "method", "trial", "variant", "seed", "scope")
    family = FAMILIES.get(row["metric"], row["metric"])
    agent = repr(row["covariates"]) if is_policy(row) else ""
    return (*(row.get(name) for name in names), settings_key(row), family, agent)


def _job(row: Row) -> Key:
    """The slot, and last the config that fills it."""
    return (*_slot(row), row["config_digest"])


def _identity(row: Row) -> Key:
    return tuple(row.get(name) for name in IDENTITY)


def _agents(rows: Iterable[Row]) -> frozenset[Any]:
    return frozenset(row["agent_id"] for row in rows)


def _time(row: Row) -> str:
    return row.get("measured_at") or ""


def _check(row: Row, allow_dirty: bool) -> None:
    name = f"{row['method']} {row['metric']} of agent {row['agent_id']}, trial {row['trial']}"
    absent = [field for field in REQUIRED if not row.get(field)]
    if absent:
        raise ValueError(
            f"the row of {name} lacks {', '.join(absent)}, so nobody could repeat it; measure it "
            "again with experiments.run"
        )
    version = row["code_version"]
    if allow_dirty:
        return
    if version.endswith("-dirty"):
        raise ValueError(
            f"the row of {name} was measured with {version}: code that differs from its commit. "
            "Commit and run again, or pass --allow_dirty"
        )
    if not _COMMIT.fullmatch(version):
        raise ValueError(
            f"the row of {name} was measured outside a git checkout: run from a clone. Its code "
            f"version is {version!r}, which is no commit, so nobody knows whether the code was "
            "edited; --allow_dirty takes it all the same"
        )
