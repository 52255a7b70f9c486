"""Rows that a sweep found measured when it began: where they lie, and which of them are its own."""

from __future__ import annotations

import pathlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from experiments.records import IDENTITY, NO_BEHAVIOR, TRUE_ENV, Row, read_rows
from experiments.reporting.overrides import FIELD

_BESIDE: Mapping[str, str] = {
    "rmse_mean": r"rmse_(std|first_step|last_step|over_horizon)|r2_(median|mean)|episodes_left_out"
    r"|error_growth_per_step|factor_correlation_\w+",
    "return_mean": r"return_std|unknown_\w+|halted_episodes|plan_decisions_per_second",
}
"""By a number that jobs ask for: what is measured with it."""
_COST = r"(train|compile)_seconds|(gradient_steps|train_flops|matmul_flops)_per_second"


class Planned(Protocol):
    """What must be known of a job; see `experiments.reporting.workdir.Job`."""

    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def overrides(self) -> Mapping[str, Any]: ...
    @property
    def elsewhere(self) -> Mapping[str, Any]: ...


def rows_elsewhere(jobs: Iterable[Planned], own: Iterable[Row], missing: list[str]) -> list[Row]:
    """Reads the rows with which jobs of a sweep were done before it began.

    Only those that the jobs ask for; a number that the sweep has measured, too, is the sweep's.

    Args:
      jobs: Of the sweep.
      own: Rows in the sweep's folder.
      missing: What is not there is added to it, in words.
    """
    asked = [job for job in jobs if job.elsewhere]
    folders = Counter(str(job.elsewhere["folder"]) for job in asked)
    rows: dict[str, list[Row]] = {}
    for name, count in folders.items():
        path = pathlib.Path(name)
        if path.exists():
            rows[name] = read_noting(path, missing)
        else:
            noun = "job" if count == 1 else "jobs"
            missing.append(
                f"{name}, where rows of {count} {noun} lay when the sweep began: it is gone. Start "
                "the sweep again to measure them, or give it the folder that they are in now as "
                "--results"
            )
    have = {_identity(row) for row in own}
    found: dict[tuple[Any, ...], Row] = {}
    for job in asked:
        wanted = _wanted(job)
        for row in rows.get(job.elsewhere["folder"], ()):
            metrics = wanted.get(tuple(row[name] for name in _RUN))
            if metrics is not None and _is_asked(row, metrics) and _identity(row) not in have:
                made = row | {FIELD: dict(job.overrides)} if job.overrides else row
                # Without a test of the code version: of one number several may be kept.
                found.setdefault((*_identity(row), row.get("code_version")), made)
    return list(found.values())


_RUN = ("environment", "behavior", "method", "trial", "config_digest")


def _wanted(job: Planned) -> dict[tuple[Any, ...], Sequence[str]]:
    """Metrics that a job asks for, by what all rows of a method have."""
    config = job.config
    return {
        (
            config["environment"],
            NO_BEHAVIOR if method == TRUE_ENV else config["behavior"],
            method,
            config["trial"],
            about["config_digest"],
        ): about["metrics"]
        for method, about in job.elsewhere["methods"].items()
    }


def _is_asked(row: Row, metrics: Sequence[str]) -> bool:
    """Whether a row is of what a job measures: its numbers, those beside them, what they cost."""
    metric = str(row["metric"])
    patterns = [_COST, *(pattern for name, pattern in _BESIDE.items() if name in metrics)]
    return metric in metrics or any(re.fullmatch(pattern, metric) for pattern in patterns)


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in IDENTITY)


def read_noting(path: pathlib.Path, missing: list[str]) -> list[Row]:
    """Rows of a file or folder; lines that are none are said in the report, and the rest used."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = read_rows(path)
    for warning in caught:
        missing.append(str(warning.message))
        warnings.warn(warning.message, stacklevel=3)
    return rows
