"""What a report says of a sweep: the whole plan, with commands that work, each setting apart."""

import dataclasses
import functools
import json
import shlex
import sys
import types

import pytest
from absl import flags
from ml_collections import config_flags

from configs import sweeps
from configs.sweeps import Job
from envs.covariates import make_agents
from experiments import run
from experiments.baseline_settings import method_digest
from experiments.records import IDENTITY, append_rows, make_row
from experiments.reporting import build
from experiments.reporting.coverage import coverage
from experiments.reporting.studies import knob_curves, study_tables
from experiments.reporting.workdir import read_workdir
from experiments.stamps import jsonable
from experiments.sweep import prepare
from experiments.sweeping.done import identities
from experiments.sweeping.index import DONE, Index
from experiments.sweeping.plan import make_plan, make_request
from tests.experiments import synthetic

# Of ml_collections, which loads the config's file.
PARSES = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
MINE = "abc123"


def job(trial=0, *changes, methods=("persim",), measures=("prediction",)):
    return Job("configs/mountain_car.py", (("trial", trial), *changes), methods, measures)


def rows_of(planned, value, method="persim", **fields):
    """The rows with which a method of a job is done, all of one value."""
    agents = make_agents(planned.config["environment"], **planned.config["agents"])
    names = ("environment", "behavior", "variant", "trial", "seed")
    context = synthetic.context(**{name: planned.config[name] for name in names})
    context = dataclasses.replace(context, config_digest=method_digest(planned.config, method))
    found = [dict(zip(IDENTITY, i, strict=True)) for i in identities(planned, method)]
    return [
        make_row(
            context, method=method, metric=i["metric"], value=value, agent_id=i["agent_id"],
            covariates=agents.covariates_of(i["agent_id"]), **fields,
        )
        for i in found
    ]  # fmt: skip


def announced(plan, folder, results):
    """The sweep's folder as it is when its first job begins."""
    folder.mkdir(exist_ok=True)
    prepared = prepare(plan, folder, results)
    prepared.write_plan()
    return prepared


def done(planned, folder, value, **fields):
    """What a job leaves that the sweep has run."""
    where = folder / "jobs" / planned.folder
    where.mkdir(parents=True, exist_ok=True)
    (where / "config.json").write_text(json.dumps(planned.config))
    rows = [row for m in planned.job.methods for row in rows_of(planned, value, m, **fields)]
    append_rows(where / "rows.jsonl", rows)
    Index(folder).add(planned, DONE, rows=len(rows), code_version=MINE, lacks=[])


def shown(table):
    return [cell.pieces[0][0] for line in table.lines for cell in line.cells if cell.measures]


def test_what_counted_as_done_is_in_the_report(tmp_path):
    """Trial 0 was accepted before, trial 1 is the sweep's: means are over both."""
    first, second = plan = make_plan([job(0), job(1)], "default")
    results, folder = tmp_path / "results", tmp_path / "sweep"
    # Beside what the sweep asks for: returns of the same config, and errors of another trial.
    returns, other = make_plan([job(0, measures=("returns",)), job(2)], "default")
    accepted = rows_of(first, 10.0) + rows_of(returns, -5.0) + rows_of(other, 99.0)
    append_rows(results / "mountain_car" / "random.jsonl", accepted)
    announced(plan, folder, results)
    done(second, folder, 1.0)
    workdir = read_workdir(folder)
    assert {row["trial"] for row in workdir.rows} == {0, 1}
    assert {row["metric"] for row in workdir.rows} == {"rmse_mean"}
    found = coverage(workdir)
    # The paper prints three of the five agents' errors.
    assert (found.done, found.wanted, found.gaps) == (6, 6, ())
    assert found.jobs == "2 done"
    table = build.table_1(workdir.rows, "mountain_car")
    assert set(shown(table)) == {"5.5"}
    assert any("2 trials" in note for note in table.notes)
    # Not to be accepted again.
    assert {row["trial"] for row in read_workdir(folder, elsewhere=False).rows} == {1}
    # Where the accepted rows are gone that is said, and their trial is missing.
    results.rename(tmp_path / "moved")
    workdir = read_workdir(folder)
    assert any("rows of 1 job lay" in text and str(results) in text for text in workdir.missing)
    found = coverage(workdir)
    assert (found.done, found.wanted, [gap.trials for gap in found.gaps]) == (3, 6, [(0,)])


def test_a_method_that_counted_as_done_is_in_the_report_and_the_sweeps_rows_win(tmp_path):
    (planned,) = plan = make_plan(
        [job(methods=("persim", "bcq_a"), measures=("returns",))], "default"
    )
    results, folder = tmp_path / "results", tmp_path / "sweep"
    append_rows(results / "a.jsonl", rows_of(planned, -7.0, "bcq_a"))
    prepared = announced(plan, folder, results)
    (left,) = prepared.todo.jobs
    assert left.job.methods == ("persim",)
    done(left, folder, -3.0)
    # As if a number had been accepted meanwhile: the sweep has its own.
    append_rows(results / "a.jsonl", rows_of(planned, -99.0, "persim"))
    rows = read_workdir(folder).rows
    assert {(row["method"], row["value"]) for row in rows} == {("persim", -3.0), ("bcq_a", -7.0)}
    assert Index(folder).entries[planned.key].name == planned.name
    assert coverage(read_workdir(folder)).gaps == ()


def test_a_second_start_writes_nothing_and_an_index_from_before_learns_of_done_jobs(tmp_path):
    first, second = plan = make_plan([job(0), job(1)], "default")
    results, folder = tmp_path / "results", tmp_path / "sweep"
    append_rows(results / "a.jsonl", rows_of(first, 10.0))
    folder.mkdir()
    done(second, folder, 1.0)
    announced(plan, folder, results)
    text = (folder / "index.jsonl").read_bytes()
    prepared = announced(plan, folder, results)
    assert (prepared.todo.jobs, prepared.todo.notes[1:]) == ([], [])
    assert (folder / "index.jsonl").read_bytes() == text
    assert {entry.state for entry in Index(folder).entries.values()} == {DONE}
    # Whose rows are in neither place is to do again.
    (results / "a.jsonl").unlink()
    assert prepare(plan, folder, results).todo.jobs == [first]


class Parser:
    """The launcher's flags, defined anew for each command: none keeps what another has set."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def __call__(self, words):
        values = flags.FlagValues()

        def fresh(module):
            names = [n for n in dir(module) if n.startswith(("DEFINE_", "mark_"))]
            bound = {n: functools.partial(getattr(module, n), flag_values=values) for n in names}
            return types.SimpleNamespace(**{**vars(module), **bound})

        self.monkeypatch.setattr(run, "flags", fresh(flags))
        self.monkeypatch.setattr(run, "config_flags", fresh(config_flags))
        self.monkeypatch.setattr(run, "FLAGS", values)
        # There ml_collections looks for fields of the config that a command changes.
        self.monkeypatch.setattr(sys, "argv", words)
        run._define_flags()
        run.parse_flags(words)
        return values


@pytest.fixture
def parse(monkeypatch):
    return Parser(monkeypatch)


@PARSES
@pytest.mark.parametrize("name", ["table_1", "table_2", "table_3", "rank"])
def test_commands_of_what_is_missing_run_the_jobs_of_the_sweep(tmp_path, parse, name):
    request = make_request("default", ("mountain_car",), (0, 1))
    extra = (("model.state_features", (64, 64)), ("train.learning_rate", 0.003), ("seed", 1))
    plan = make_plan(getattr(sweeps, name)(request), "default", extra)
    announced(plan, tmp_path, tmp_path / "none")
    jobs = {str(tmp_path / "jobs" / planned.folder): planned for planned in plan}
    commands = [
        command
        for gap in coverage(read_workdir(tmp_path)).gaps
        for command in gap.command.split("\n")
    ]
    assert commands
    for command in commands:
        python, flag, module, *words = shlex.split(command)
        assert (python, flag, module) == ("python", "-m", "experiments.run")
        found = parse([module, *words])
        planned = jobs.pop(found.workdir)
        # Its folder refuses any other config.
        assert jsonable(found.config.to_dict()) == planned.config
        assert found.planning == ("returns" in planned.job.measures)
        assert set(found.methods) <= set(planned.job.methods)
    assert not jobs


@PARSES
def test_commands_of_a_run_and_of_kept_rows_are_the_launchers_too(tmp_path, parse):
    append_rows(tmp_path / "a" / "rows.jsonl", [synthetic.row("rmse_mean", 0.1)])
    stamp = {"command": "python -m experiments.run --methods=persim --planning=false"}
    config = json.dumps(synthetic.config())
    (tmp_path / "a" / "config.json").write_text(config)
    (tmp_path / "a" / "environment.json").write_text(json.dumps(stamp))
    found = coverage(read_workdir(tmp_path / "a"))
    # Without planning only errors were asked for.
    assert (found.done, found.wanted) == (1, 3)
    (gap,) = found.gaps
    values = parse(shlex.split(gap.command)[2:])
    assert (values.planning, values.methods) == (False, ["persim"])
    append_rows(tmp_path / "kept" / "b.jsonl", [synthetic.row("rmse_mean", 0.1)])
    for gap in coverage(read_workdir(tmp_path / "kept")).gaps:
        line = gap.command.partition("; do ")[2].removesuffix("; done") or gap.command
        values = parse(shlex.split(line.replace("$trial", "3"))[2:])
        assert values.planning
        assert values.config.trial == (3 if line != gap.command else gap.trials[0])


def horizons(*values):
    return [
        job(trial, ("planner.horizon", value), measures=("returns",))
        for trial in (0,)
        for value in values
    ]


def test_settings_that_a_sweep_varies_are_cells_of_their_own(tmp_path):
    """The `horizons` of the documentation; 50 is the shipped one."""
    ten, twenty_five, fifty = plan = make_plan(horizons(10, 25, 50), "default")
    announced(plan, tmp_path, tmp_path / "none")
    done(ten, tmp_path, -10.0, measured_at="2026-01-01")
    found = coverage(read_workdir(tmp_path))
    # The paper prints three agents' returns.
    assert (found.done, found.wanted) == (3, 9)
    assert {gap.title for gap in found.gaps} == {
        "MountainCar, Random, planner.horizon 25", "MountainCar, Random",
    }  # fmt: skip
    done(twenty_five, tmp_path, -25.0, measured_at="2026-01-02")
    rows = read_workdir(tmp_path).rows
    table = build.table_2(rows, "mountain_car")
    # None is shipped: those measured last, and it is said.
    assert {text[:5] for text in shown(table)} == {"−25.0"}
    assert table.notes[-1] == (
        "Settings: planner.horizon=25; other settings not shown: planner.horizon=10."
    )
    done(fifty, tmp_path, -50.0, measured_at="2025-12-31")
    rows = read_workdir(tmp_path).rows
    table = build.table_2(rows, "mountain_car")
    # Measured first, and yet shown: the shipped config has the main tables.
    assert {text[:5] for text in shown(table)} == {"−50.0"}
    assert table.notes[-1] == (
        "Settings: those of the shipped config; other settings not shown: planner.horizon=10; "
        "planner.horizon=25."
    )
    assert coverage(read_workdir(tmp_path)).gaps == ()
    (curve,) = knob_curves(rows, "planner.horizon")
    assert [(point.x, point.value) for point in curve.points] == [(10, -10), (25, -25), (50, -50)]
    assert list(study_tables(rows)) == ["planner.horizon"]


def test_seeds_are_told_apart(tmp_path):
    first, second = plan = make_plan([job(0), job(0, ("seed", 1))], "default")
    announced(plan, tmp_path, tmp_path / "none")
    done(first, tmp_path, 1.0)
    found = coverage(read_workdir(tmp_path))
    assert (found.done, found.wanted) == (3, 6)
    assert [gap.title for gap in found.gaps] == ["MountainCar, Random, seed 1"]
    done(second, tmp_path, 2.0)
    assert coverage(read_workdir(tmp_path)).gaps == ()
    assert set(shown(build.table_1(read_workdir(tmp_path).rows, "mountain_car"))) == {"1"}


def test_what_a_number_does_not_depend_on_makes_no_other_cell(tmp_path):
    """An offline learner does not plan: one number for all horizons."""
    jobs = [
        job(0, ("planner.horizon", value), methods=("bcq_p",), measures=("returns",))
        for value in (10, 25)
    ]
    plan = make_plan(jobs, "default")
    announced(plan, tmp_path, tmp_path / "none")
    done(plan[0], tmp_path, -10.0)
    assert prepare(plan, tmp_path, tmp_path / "none").todo.jobs == []
    workdir = read_workdir(tmp_path)
    assert coverage(workdir).gaps == ()
    assert not any("Settings" in note for note in build.table_2(workdir.rows, "mountain_car").notes)


def test_an_override_of_a_whole_sweep_is_not_varied():
    base = {"train.num_epochs": 50}
    rows = [
        synthetic.row("rmse_mean", value) | {"overrides": base | {"model.rank": rank}}
        for rank, value in ((1, 0.5), (2, 0.25))
    ]
    (curve,) = knob_curves(rows, "model.rank")
    assert [(point.x, point.value) for point in curve.points] == [(1, 0.5), (2, 0.25)]
