"""Who runs a job: the launcher of runs and that of newcomers; a sweep may bring its own.

This module is read by the process that only plans, so what computes is imported when it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.sweeps import Job
from envs.covariates import make_agents
from persim_jax.methods import TRUE_ENV, find_method

Config = Mapping[str, Any]
Number = tuple[str, int | None]
"""A metric and the agent that it is of, None for all of them."""


class Launcher(NamedTuple):
    """How a kind of job is run.

    Attributes:
      run: `(config, workdir, methods, measures) -> None`: measures what is missing in the workdir
        and adds it to its `rows.jsonl`. Killed and called again it must end as if it had not been.
      numbers: `(config, method, measures) -> numbers`: with rows of all of these a method is done.
      command: `(job, variant, workdir) -> words`: what a reader types to have the same.
      measures: What it can be asked for; empty where that is anything.
      check: `(config, methods) -> None`: raises a ValueError if the job would. Called where sweeps
        are planned: no device may be touched.
    """

    run: Callable[[Config, Path, Sequence[str], Sequence[str]], None]
    numbers: Callable[[Config, str, Sequence[str]], frozenset[Number]]
    command: Callable[[Job, str, Path], list[str]]
    measures: tuple[str, ...] = ()
    check: Callable[[Config, Sequence[str]], None] | None = None


def find_launcher(reference: str) -> Launcher:
    """A launcher from `module:NAME`.

    Raises:
      ValueError: There is none.
    """
    module_name, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{reference!r} is no launcher ({error}): a job's launcher is module:NAME of a Launcher"
        ) from error
    if not isinstance(found, Launcher):
        raise ValueError(f"{reference!r} is no launcher: it is {type(found).__name__}")
    return found


def _check(config: Config, methods: Sequence[str]) -> None:
    from experiments.settings import check_values

    check_values(config, tuple(methods))


def _run(config: Config, workdir: Path, methods: Sequence[str], measures: Sequence[str]) -> None:
    from experiments import run

    # One page is made for the whole sweep.
    run.run(config, workdir, tuple(methods), planning="returns" in measures, report=False)


def _run_numbers(config: Config, method: str, measures: Sequence[str]) -> frozenset[Number]:
    from experiments.control import agents_of_control

    agents, found = make_agents(config["environment"], **config["agents"]), find_method(method)
    numbers: set[Number] = set()
    if "prediction" in measures and found.model is not None and method != TRUE_ENV.name:
        numbers |= {("rmse_mean", agent) for agent in agents.test_ids}
    if "returns" in measures:
        ids = agents_of_control(config, agents, found.plans)
        numbers |= {("return_mean", agent) for agent in ids}
    return frozenset(numbers)


def _run_command(job: Job, variant: str, workdir: Path) -> list[str]:
    methods = f"--methods={','.join(job.methods)}"
    planning = f"--planning={str('returns' in job.measures).lower()}"
    return [*_command("experiments.run", job, variant, workdir), methods, planning]


def _unseen(config: Config, workdir: Path, methods: Sequence[str], measures: Sequence[str]) -> None:
    from experiments import unseen
    from experiments.records import append_rows

    smoke = config["variant"] == "smoke"
    # The clock is for a machine with nothing else to do.
    count = SMOKE_NEWCOMERS if smoke else NEWCOMERS
    rows = unseen.measure(config, workdir, count, SHOWN, speed_newcomers=0)
    append_rows(Path(workdir) / "rows.jsonl", rows)


NEWCOMERS, SMOKE_NEWCOMERS = 100, 3
SHOWN = (0, 5, 10, 20, 50)
"""Transitions that newcomers show; `experiments.unseen.NUM_TRANSITIONS`, which a test compares."""


def _unseen_numbers(config: Config, method: str, measures: Sequence[str]) -> frozenset[Number]:
    names = [f"known_agents_{policy}" for policy in ("behavior", "test_policy")] + [
        f"newcomers_{policy}_{count}_transitions{source}"
        for policy in ("behavior", "test_policy")
        for count in SHOWN
        for source in ("", "_and_covariates")
    ]
    return frozenset((f"{score}_{name}", None) for score in ("rmse", "r2") for name in names)


def _unseen_command(job: Job, variant: str, workdir: Path) -> list[str]:
    count = SMOKE_NEWCOMERS if variant == "smoke" else NEWCOMERS
    flags = [f"--num_newcomers={count}", "--speed_newcomers=0"]
    return [*_command("experiments.unseen", job, variant, workdir), *flags]


def _command(module: str, job: Job, variant: str, workdir: Path) -> list[str]:
    changes = [f"--config.{field}={value}" for field, value in job.overrides]
    files = [f"--config={job.config}:{variant}", f"--workdir={workdir}"]
    return ["python", "-m", module, *files, *changes]


RUN = Launcher(_run, _run_numbers, _run_command, ("prediction", "returns"), _check)
UNSEEN = Launcher(_unseen, _unseen_numbers, _unseen_command, ("unseen",), _check)
