"""The command that makes a number, from what its rows say."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.records import NO_BEHAVIOR, Row
from experiments.reporting.model import Table
from experiments.reporting.overrides import FIELD, Items, is_study, shipped_digest
from experiments.reporting.selection import BEHAVIOR_ORDER, METHOD_ORDER, ordered, select
from experiments.reporting.sheet import is_policy
from experiments.reporting.workdir import MEASURES

RANDOM = "random"
RUN = "experiments.run"
METRICS = frozenset({"rmse_mean", "r2_median", "return_mean"})


def run_command(
    environment: str,
    behavior: str,
    methods: Iterable[str],
    trials: Sequence[int] = (0,),
    variant: str = "default",
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    measures: Sequence[str] = MEASURES,
    module: str = RUN,
    workdir: str = "",
) -> str:
    """Returns one line for a shell at the root of the repository.

    Several trials become a loop; what is done in a workdir is not done again.

    Args:
      environment: Its name.
      behavior: Name of the data.
      methods: Names of the methods; none where the module takes none.
      trials: Their numbers.
      variant: Of the config.
      seed: Of the config.
      overrides: Further fields by dotted name.
      measures: What to measure of each method.
      module: The launcher.
      workdir: Folder of the run, of one trial; one in `runs/` of its own if not given.
    """
    config = f"configs/{environment}.py" + ("" if variant == "default" else f":{variant}")
    trial = str(trials[0]) if len(trials) == 1 else "$trial"
    folder = "_".join([environment, behavior, *(() if variant == "default" else (variant,))])
    folder += _settings_words({**({"seed": seed} if seed else {}), **(overrides or {})})
    words = [
        f"python -m {module}",
        f"--config={config}",
        f"--config.behavior={behavior}",
        *([f"--config.seed={seed}"] if seed else []),
        *(shlex.quote(f"--config.{k}={_literal(v)}") for k, v in (overrides or {}).items()),
        f"--config.trial={trial}",
        *([f"--methods={','.join(ordered(methods, METHOD_ORDER))}"] if methods else []),
        # The prediction test is part of every run; what can be left out is planning.
        *([] if "returns" in measures or module != RUN else ["--planning=false"]),
        f"--workdir={shlex.quote(workdir) if workdir else f'runs/{folder}_{trial}'}",
    ]
    line = " ".join(words)
    return (
        line if len(trials) == 1 else f"for trial in {' '.join(map(str, trials))}; do {line}; done"
    )


def command_of(rows: Sequence[Row]) -> str:
    """Returns the command of rows of one environment, behavior and method; empty without rows.

    Rows of other settings or code versions than most have a line of their own.
    """
    groups: dict[tuple[Any, ...], set[int]] = {}
    for row in rows:
        overrides = tuple((row.get(FIELD) or {}).items())
        made = (row["environment"], _behavior(row), row["method"], row.get("variant") or "default")
        about = (*made, row.get("seed") or 0, repr(overrides), str(row.get("code_version")))
        groups.setdefault((about, Items(overrides), _is_shipped(row)), set()).add(row["trial"])
    lines = []
    for (about, overrides, shipped), trials in sorted(groups.items(), key=lambda x: x[0][0]):
        environment, behavior, method, variant, seed, _, version = about
        line = run_command(
            environment, behavior, [method], sorted(trials), variant, seed, dict(overrides)
        )
        note = "" if shipped else "; today's config has another digest"
        lines.append(f"{line}  # code {version}{note}")
    return "\n".join(lines)


def with_commands(table: Table, rows: Sequence[Row]) -> Table:
    """Returns a table of errors and returns whose lines know the commands of their rows.

    Args:
      table: A table whose lines have a behavior and a method.
      rows: Rows of any kind; those of studies are passed over.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        here = row["environment"] == table.environment and row["metric"] in METRICS
        if here and row["covariates"] and not (is_policy(row) or is_study(row)):
            groups.setdefault((row["behavior"], row["method"]), []).append(row)
    commands = {name: command_of(select(found)) for name, found in groups.items()}
    lines = (
        dataclasses.replace(line, command=commands.get((line.behavior, line.method), ""))
        for line in table.lines
    )
    return dataclasses.replace(table, lines=tuple(lines))


def _settings_words(settings: Mapping[str, Any]) -> str:
    """Tells a folder's name what is set: in words where they are short and plain, by a digest else.

    A workdir belongs to one config: two settings of one name would refuse each other's.
    """
    text = "".join(f"_{name}_{value}" for name, value in settings.items())
    if re.fullmatch(r"[\w.-]{,60}", text, re.ASCII):
        return text
    return f"_{hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]}"


def _literal(value: Any) -> str:
    if isinstance(value, list):
        inside = ", ".join(map(_literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return str(value)


def _behavior(row: Row) -> str:
    """The behavior of a row's run: that of True env's is known by the digest."""
    if row["behavior"] != NO_BEHAVIOR:
        return str(row["behavior"])
    return next((b for b in BEHAVIOR_ORDER[1:] if _digest(row, b) == row["config_digest"]), RANDOM)


def _is_shipped(row: Row) -> bool:
    """Whether today's shipped config, with the row's overrides, has the row's digest."""
    return _digest(row, _behavior(row)) == row["config_digest"]


def _digest(row: Row, behavior: str) -> str | None:
    overrides = tuple((row.get(FIELD) or {}).items())
    return shipped_digest(
        row["environment"],
        behavior,
        row["method"],
        row.get("variant") or "default",
        row.get("seed") or 0,
        Items(overrides),
    )
