"""Takes rows into `results/`, from which README and documentation are made: latest, not best.

`results/` holds one row per identity (see `experiments.records`). What was measured again replaces
what was there, by whichever code version; unless it covers fewer agents, or is older.
"""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from experiments.records import IDENTITY, Row, changing_rows
from experiments.reporting import model
from experiments.reporting.newcomers import is_of_newcomers
from experiments.reporting.overrides import settings_key
from experiments.reporting.sheet import is_policy

REQUIRED = ("code_version", "config_digest", "device")
_PREDICTION = ("rmse_mean", "rmse_std", "r2_median", "r2_mean", "episodes_left_out")
FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(_PREDICTION, "prediction test"),
    **dict.fromkeys(("return_mean", "return_std"), "returns"),
}
"""Metrics that are measured together; any other one is measured by itself."""
Key: TypeAlias = tuple[Any, ...]


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

    Rows of an environment and kind of data go to `ENVIRONMENT/BEHAVIOR.jsonl`, those of unseen
    agents to `unseen/ENVIRONMENT.jsonl`, those of policies to `policies/ENVIRONMENT.jsonl`.

    Args:
      rows: Rows to accept.
      results: The folder.
      allow_dirty: Accept rows of code that differs from its commit, which nobody else can repeat.

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
    return pathlib.Path(row["environment"], f"{row['behavior']}.jsonl")


def settle(old: Sequence[Row], new: Sequence[Row] = ()) -> tuple[list[Row], list[str]]:
    """Returns one row per identity, and what was not taken, in words.

    Of the code versions that measured a job (environment, data, method, trial, config) the latest
    counts whose agents include those of all others; if none does, the one with most agents, and
    the others fill in what it lacks. A job of another config does not enter beside a kept one that
    has agents which it lacks, as tables would show the later config and lose them.

    Args:
      old: Rows that are kept already, older ones first.
      new: Rows that would be added.
    """
    added = {id(row) for row in new}
    jobs: dict[Key, list[Row]] = defaultdict(list)
    slots: dict[Key, set[Key]] = defaultdict(set)
    for row in (*old, *new):
        jobs[_job(row)].append(row)
        if id(row) not in added:
            slots[_slot(row)].add(_job(row))
    kept: dict[Key, Row] = {}
    notes = []
    for job, rows in jobs.items():
        incoming = [row for row in rows if id(row) in added]
        others = [jobs[other] for other in slots[_slot(rows[0])] - {job}]
        lost = [_agents(other) - _agents(rows) for other in others]
        if incoming and any(lost):
            most = sorted(lost, key=lambda agents: len(agents))[-1]
            notes.append(_refusal(incoming, f"lack {_named(most)}"))
            rows, incoming = [row for row in rows if id(row) not in added], []
        own = _winners(rows)
        refused = [row for row in incoming if own[_identity(row)] is not row]
        if refused and (why := _why(refused, own)):
            notes.append(_refusal(refused, why))
        kept |= own
    return [row for row in (*old, *new) if kept.get(_identity(row)) is row], notes


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
    if row["code_version"].endswith("-dirty") and not allow_dirty:
        raise ValueError(
            f"the row of {name} was measured with {row['code_version']}: code that differs from "
            "its commit. Commit and run again, or pass --allow_dirty"
        )
