"""Which cells a finished run, sweep or set of kept results would have, and which it lacks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from experiments.records import NO_BEHAVIOR, TRUE_ENV, Row
from experiments.reporting import model
from experiments.reporting.build import CONTROL, PREDICTION, is_ablation
from experiments.reporting.commands import run_command
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.overrides import FIELD, SHARED, SHIPPED, is_study, settings_key
from experiments.reporting.selection import (
    ABLATIONS,
    BEHAVIOR_ORDER,
    METHOD_ORDER,
    SMOKE,
    AgentKey,
    agent_of,
    ordered,
)
from experiments.reporting.sheet import is_policy
from experiments.reporting.workdir import MEASURES, Workdir
from persim_jax.evaluation import paper

DEFAULT_METHODS = ("persim", TRUE_ENV)
METRIC: Mapping[int, str] = {1: PREDICTION[0], 2: CONTROL[0], 3: CONTROL[0]}
Want: TypeAlias = tuple[str, str, str, int, str, bool, str, AgentKey]
"""Environment, behavior, method, trial, settings, if a study varies these, metric, agent."""


class Plan(NamedTuple):
    """A run that was asked for, or that the paper's tables ask for.

    Attributes:
      is_study: See `Workdir.is_study`.
    """

    environment: str
    behavior: str
    trial: int
    methods: tuple[str, ...]
    variant: str = "default"
    seed: int = 0
    overrides: Mapping[str, Any] = {}
    measures: tuple[str, ...] = MEASURES
    workdir: str = ""
    is_study: bool = True


class Gap(NamedTuple):
    """Cells that trials of one run lack.

    Attributes:
      title: The run, in words.
      trials: Those that lack just these cells.
      cells: The cells, a line of words per method.
      num_cells: How many, in all of the trials.
      command: What makes them, a line per trial where each has a folder in a sweep.
    """

    title: str
    trials: tuple[int, ...]
    cells: tuple[str, ...]
    num_cells: int
    command: str


class Coverage(NamedTuple):
    """How much is done.

    Attributes:
      done: Cells with a row, of each table and trial.
      wanted: Cells that there would be.
      gaps: What is not done, first trials first.
      table: The share done, by table and trial.
      absent: Cells without a row in any trial, by table, environment and method.
      jobs: How many jobs of a sweep are in which state, in words; empty without an index.
    """

    done: int
    wanted: int
    gaps: tuple[Gap, ...]
    table: Table
    absent: Mapping[tuple[int, str, str], int]
    jobs: str = ""

    @property
    def sentence(self) -> str:
        """The share done, in words; empty where nothing was asked for."""
        if not self.wanted:
            return ""
        share = 100 * self.done / self.wanted
        jobs = f" Jobs of the sweep: {self.jobs}." if self.jobs else ""
        cells = f"{self.done} of {self.wanted} cells of the paper's tables, all trials"
        return f"Done: {cells} ({share:.0f} %).{jobs}"


def coverage(workdir: Workdir) -> Coverage:
    """Compares a folder's rows with the cells that its runs, or the paper's tables, have."""
    plans = list(_plans(workdir))
    have = {_key(row, workdir.kept) for row in workdir.rows if _counts(row, workdir.kept)}
    counts: dict[tuple[int, str], dict[int, dict[Want, bool]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    lacking: dict[int, list[tuple[int, Want]]] = defaultdict(list)
    for index, plan in enumerate(plans):
        for table, want in _wants(plan):
            counts[table, plan.environment][plan.trial][want] = want in have
            if want not in have:
                lacking[index].append((table, want))
    marks = [
        mark for trials in counts.values() for wants in trials.values() for mark in wants.values()
    ]
    gaps = _gaps([(plans[index], wants) for index, wants in lacking.items()])
    states = Counter(run.state for run in workdir.runs if run.state)
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return Coverage(sum(marks), len(marks), gaps, _share_table(counts), _absent(counts), jobs)


def _absent(
    counts: Mapping[tuple[int, str], Mapping[int, Mapping[Want, bool]]],
) -> dict[tuple[int, str, str], int]:
    """Cells without a row in any trial; of studies, which have tables of their own, none counts."""
    found: dict[tuple[int, str, str], dict[tuple[Any, ...], bool]] = defaultdict(dict)
    for (table, environment), trials in counts.items():
        for wants in trials.values():
            for want, done in wants.items():
                _, behavior, method, _, _, studied, metric, agent = want
                if not studied:
                    cells = found[table, environment, method]
                    cell = (behavior, metric, agent)
                    cells[cell] = cells.get(cell, False) or done
    return {name: sum(not done for done in cells.values()) for name, cells in found.items()}


def _plans(workdir: Workdir) -> Iterator[Plan]:
    if workdir.kept:
        for trial in range(paper.NUM_TRIALS):
            for environment in paper.ENVIRONMENTS:
                for behavior in BEHAVIOR_ORDER[1:]:
                    # True env has no data: it is asked for once, with the random data's run.
                    left_out = () if behavior == "random" else (TRUE_ENV,)
                    asked = tuple(m for m in paper.METHODS if m not in (*ABLATIONS, *left_out))
                    yield Plan(environment, behavior, trial, asked)
        return
    for run in workdir.runs:
        config = run.config
        if not {"environment", "behavior", "trial"} <= config.keys():
            continue
        environment, behavior = config["environment"], config["behavior"]
        yield Plan(
            environment,
            behavior,
            config["trial"],
            run.methods or _methods(workdir.rows, environment, behavior),
            config.get("variant", "default"),
            config.get("seed", 0),
            run.overrides,
            run.measures,
            # What is done elsewhere would not be in the sweep.
            str(workdir.path / run.name) if workdir.is_sweep else "",
            workdir.is_study,
        )


def _methods(rows: Sequence[Row], environment: str, behavior: str) -> tuple[str, ...]:
    """Methods of a run that does not say: the default ones, and those that have rows."""
    found = {
        row["method"]
        for row in rows
        if row["environment"] == environment
        and row["behavior"] in (behavior, NO_BEHAVIOR)
        and row["metric"] in METRIC.values()
        and not is_policy(row)
    }
    return tuple(ordered({*DEFAULT_METHODS, *found}, METHOD_ORDER))


def _wants(plan: Plan) -> Iterator[tuple[int, Want]]:
    """The cells of a plan, each with its table; ablations have those that PerSim has."""
    printed = paper.printed_cells(plan.environment)
    for method in plan.methods:
        like = "persim" if is_ablation(method) else method
        behavior = NO_BEHAVIOR if method == TRUE_ENV else plan.behavior
        for table, data, name, agent in printed:
            if (data, name) == (behavior, like) and MEASURES[table > 1] in plan.measures:
                like_rows = {
                    "environment": plan.environment, "method": method, "variant": plan.variant,
                    "seed": plan.seed, FIELD: plan.overrides, SHARED: not plan.is_study,
                }  # fmt: skip
                where = (plan.environment, behavior, method, plan.trial)
                yield table, (*where, *_settings(like_rows), METRIC[table], agent)


def _counts(row: Row, kept: bool) -> bool:
    if kept and row.get("variant") == SMOKE:
        return False
    return row["metric"] in METRIC.values() and bool(row["covariates"]) and not is_policy(row)


def _key(row: Row, kept: bool) -> Want:
    where = (row["environment"], row["behavior"], row["method"], row["trial"])
    # The paper's tables of kept rows show other settings where there are no shipped ones.
    settings = (SHIPPED, False) if kept and not is_study(row) else _settings(row)
    return (*where, *settings, row["metric"], agent_of(row))


def _settings(row: Mapping[str, Any]) -> tuple[str, bool]:
    return settings_key(row), is_study(row)


def _gaps(lacking: Sequence[tuple[Plan, list[tuple[int, Want]]]]) -> tuple[Gap, ...]:
    """Joins trials that lack the same cells."""
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[Plan, int]]] = defaultdict(list)
    for plan, wants in lacking:
        cells = tuple(_words(plan, wants))
        groups[_title(plan), cells].append((plan, len(dict.fromkeys(want for _, want in wants))))
    gaps = []
    for (title, cells), members in groups.items():
        plan = members[0][0]
        trials = tuple(sorted({p.trial for p, _ in members}))
        names = {model.method_name(m): m for m in plan.methods}
        missing = [names[cell.partition(":")[0]] for cell in cells]
        command = _command([plan for plan, _ in members], trials, missing)
        gaps.append(Gap(title, trials, cells, sum(count for _, count in members), command))
    return tuple(sorted(gaps, key=lambda gap: gap.trials))


def _command(plans: Sequence[Plan], trials: Sequence[int], methods: Sequence[str]) -> str:
    """What makes cells that trials lack: in the folders of a sweep's runs a line for each."""

    def line(plan: Plan, numbers: Sequence[int]) -> str:
        return run_command(
            plan.environment, plan.behavior, methods, numbers, plan.variant, plan.seed,
            plan.overrides, plan.measures, workdir=plan.workdir,
        )  # fmt: skip

    if not plans[0].workdir:
        return line(plans[0], trials)
    by_trial = sorted(plans, key=lambda plan: plan.trial)
    return "\n".join(dict.fromkeys(line(plan, [plan.trial]) for plan in by_trial))


def _title(plan: Plan) -> str:
    varied = [f"{name} {value}" for name, value in plan.overrides.items()]
    varied += [f"seed {plan.seed}"] if plan.seed else []
    parts = [model.environment_name(plan.environment), model.behavior_name(plan.behavior)]
    return ", ".join([*parts, *varied])


def _words(plan: Plan, wants: Sequence[tuple[int, Want]]) -> Iterator[str]:
    asked: dict[tuple[str, int], int] = defaultdict(int)
    for table, want in _wants(plan):
        asked[want[2], table] += 1
    missing: dict[str, dict[int, list[AgentKey]]] = defaultdict(lambda: defaultdict(list))
    for table, want in wants:
        missing[want[2]][table].append(want[-1])
    for method in ordered(missing, METHOD_ORDER):
        parts = []
        for table, agents in sorted(missing[method].items()):
            named = "; ".join(_agent(plan.environment, key) for key in agents)
            every = len(agents) == asked[method, table]
            parts.append(f"Table {table} ({f'all {len(agents)} agents' if every else named})")
        yield f"{model.method_name(method)}: {', '.join(parts)}"


def _agent(environment: str, key: AgentKey) -> str:
    names = paper.COVARIATES[environment]
    return model.agent_name(dict(zip(names, map(float, key), strict=True)))


def _share_table(counts: Mapping[tuple[int, str], Mapping[int, Mapping[Want, bool]]]) -> Table:
    trials = sorted({trial for found in counts.values() for trial in found})
    lines = []
    for (table, environment), found in sorted(counts.items(), key=lambda x: x[0][0]):
        cells = [_share(found.get(trial, {})) for trial in trials]
        labels = (f"Table {table}", model.environment_name(environment))
        lines.append(Line(labels, tuple(cells)))
    return Table(
        name="share_done",
        environment="",
        title="Cells with rows, of those that there would be",
        stubs=("Table", "Environment"),
        columns=tuple(Column(f"Trial {trial}") for trial in trials),
        lines=tuple(lines),
    )


def _share(wants: Mapping[Want, bool]) -> Cell:
    done = sum(wants.values())
    return Cell(pieces=((f"{done} of {len(wants)}" if wants else model.DASH, ""),))
