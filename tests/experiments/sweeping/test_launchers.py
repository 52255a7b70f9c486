"""The launchers measure what their numbers promise, and the commands they name do the same."""

import importlib
import shlex

import pytest

from configs.sweeps import UNSEEN as UNSEEN_NAME
from configs.sweeps import Job
from experiments import store
from experiments.records import read_rows
from experiments.sweeping import launchers
from experiments.sweeping.done import identities, what_is_left
from experiments.sweeping.index import Index
from experiments.sweeping.launchers import RUN, UNSEEN
from experiments.sweeping.plan import make_plan

TINY = (
    ("agents.num_agents", 8),
    ("model.state_features", (8,)),
    ("train.num_epochs", 2),
    ("train.polish_rounds", 0),
    ("train.batch_size", 512),
    ("prediction.num_episodes", 2),
    ("prediction.num_steps", 10),
    ("planner.num_candidates", 4),
    ("planner.horizon", 2),
)
ERRORS = Job("configs/mountain_car.py", TINY, ("persim",), ("prediction",))
RETURNS = Job("configs/mountain_car.py", TINY, ("true_env",), ("returns",))
NEWCOMERS = Job("configs/mountain_car.py", TINY, ("persim",), ("unseen",), UNSEEN_NAME)


@pytest.mark.slow
@pytest.mark.optimizes
def test_jobs_of_one_config_share_a_workdir_and_leave_the_numbers_that_they_promise(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(launchers, "SHOWN", (0, 5))
    plan = make_plan([ERRORS, RETURNS, NEWCOMERS], "smoke")
    assert len({planned.folder for planned in plan}) == 1
    workdir = tmp_path / "jobs" / plan[0].folder
    seen = set()
    for planned, launcher in zip(plan, (RUN, RUN, UNSEEN), strict=True):
        with store.using(tmp_path / "store"):
            launcher.run(planned.config, workdir, planned.job.methods, planned.job.measures)
        rows = read_rows(workdir / "rows.jsonl")
        found = {
            (r["environment"], r["behavior"], r["method"], r["agent_id"], r["trial"], r["metric"],
             r["config_digest"]) for r in rows
        }  # fmt: skip
        promised = {i for method in planned.job.methods for i in identities(planned, method)}
        assert promised <= found
        new = {(r["method"], r["metric"]) for r in rows} - seen
        seen |= new
        # What was not asked for was not measured.
        if planned is plan[0]:
            assert not any(metric == "return_mean" for _, metric in new)
        elif planned is plan[1]:
            assert {method for method, _ in new} == {"true_env"}
    assert not (workdir / "report.html").exists()
    # Rows alone say so, in another folder.
    todo = what_is_left(plan, tmp_path / "new", Index(tmp_path / "new"), workdir, "x", False)
    assert todo.done == plan


@pytest.mark.parametrize(
    ("job", "launcher", "module"),
    [(ERRORS, RUN, "experiments.run"), (NEWCOMERS, UNSEEN, "experiments.unseen")],
)
def test_the_command_makes_the_same_config(tmp_path, job, launcher, module):
    words = launcher.command(job, "smoke", tmp_path)
    assert words[:3] == ["python", "-m", module]
    flags = dict(word.split("=", 1) for word in words[3:])
    path, _, variant = flags["--config"].partition(":")
    config = importlib.import_module(path[:-3].replace("/", ".")).get_config(variant)
    for name, value in flags.items():
        if name.startswith("--config."):
            section, _, field = name.removeprefix("--config.").partition(".")
            config[section][field] = type(config[section][field])(eval(value))
    (planned,) = make_plan([job], "smoke")
    (again,) = make_plan([Job(job.config, tuple(
        (f"{s}.{f}", config[s][f]) for s, f in (name.split(".") for name, _ in TINY)
    ), job.methods, job.measures, job.launcher)], "smoke")  # fmt: skip
    assert again.key == planned.key
    assert shlex.split(shlex.join(words)) == words


def test_the_command_of_runs_says_what_is_measured(tmp_path):
    words = RUN.command(RETURNS, "default", tmp_path)
    assert "--methods=true_env" in words
    assert "--planning=true" in words
    assert "--planning=false" in RUN.command(ERRORS, "default", tmp_path)
    assert "--config=configs/mountain_car.py:default" in words
