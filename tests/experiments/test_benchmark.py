"""Rows of speed: what is timed, how a row follows from the timings, and what is compared."""

import dataclasses
import io
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

import envs
from configs import cart_pole, half_cheetah
from experiments import benchmark
from experiments.records import RowContext, append_rows, read_rows
from experiments.stamps import ROOT

CONFIG = cart_pole.get_config("smoke").to_dict()


def shown(table):
    """A table's text."""
    file = io.StringIO()
    Console(width=300, file=file).print(table)
    return file.getvalue()


def test_a_row_holds_the_median_rate_and_its_spread():
    context = RowContext.from_config(CONFIG)
    job = benchmark.Job("any", "collect_steps_per_second", context, 60, lambda: None)
    row = benchmark._row(job, np.array([2.0, 1.0, 6.0]))
    # 60 steps in 1, 2 and 6 seconds.
    assert (row["fastest"], row["value"], row["slowest"]) == (60.0, 30.0, 10.0)
    assert (row["wall_s"], row["num_steps"], row["repeats"]) == (9.0, 60, 3)


def test_every_stage_is_called_once_to_compile_and_then_in_turn(monkeypatch):
    calls = []
    context = RowContext.from_config(CONFIG)

    def job(name):
        return benchmark.Job(name, "m", context, 1, lambda: calls.append(name))

    monkeypatch.setattr(benchmark, "_collect_jobs", lambda config, steps: [job("a"), job("b")])
    monkeypatch.setattr(benchmark, "_plan_jobs", lambda config, steps: [job("c")])
    rows = benchmark.benchmark(CONFIG, repeats=2)
    assert calls == ["a", "b", "c"] * 3
    assert [row["method"] for row in rows] == ["a", "b", "c"]
    calls.clear()
    benchmark.benchmark(CONFIG, stages=("plan",), repeats=1)
    assert calls == ["c", "c"]


@pytest.mark.slow
def test_the_classic_environments_have_one_way_to_step_and_two_to_plan(tmp_path):
    rows = benchmark.benchmark(CONFIG, steps=2, repeats=1)
    about = [(row["method"], row["metric"], row["num_steps"]) for row in rows]
    assert about == [
        ("any", "collect_steps_per_second", 2 * CONFIG["agents"]["num_agents"]),
        ("true_env", "plan_decisions_per_second", 2),
        ("persim", "plan_decisions_per_second", 2),
    ]
    for row in rows:
        assert row["value"] * row["wall_s"] == pytest.approx(row["num_steps"])
    append_rows(tmp_path / "rows.jsonl", rows)
    assert "1.00" in shown(benchmark.compare(rows, read_rows(tmp_path)))


def test_products_are_those_of_a_run(monkeypatch):
    seen = []
    call = lambda: seen.append(str(jax.config.jax_default_matmul_precision))  # noqa: E731
    job = benchmark.Job("any", "a", RowContext.from_config(CONFIG), 1, call)
    monkeypatch.setattr(benchmark, "_collect_jobs", lambda config, steps: [job])
    benchmark.benchmark(CONFIG, ("collect",), repeats=1)
    assert seen == [CONFIG["matmul_precision"]] * 2


def test_what_is_wrong_with_a_command_takes_a_line(tmp_path):
    command = [sys.executable, "-m", "experiments.benchmark", f"--workdir={tmp_path / 'new'}"]
    flags = ["--config=configs/cart_pole.py:smoke", f"--compare={tmp_path / 'none'}"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no rows at ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_every_backend_is_timed_under_its_own_name():
    assert envs.backends("cart_pole") == ()
    assert envs.backends("half_cheetah") == ("mjx", "mujoco", "generalized")
    config = half_cheetah.get_config("smoke").to_dict()
    jobs = benchmark._collect_jobs(config, 3)
    assert [job.context.backend for job in jobs] == ["mjx", "mujoco", "generalized"]
    assert {job.work for job in jobs} == {60}
    # Rows of different backends must not replace each other.
    assert len({job.context.config_digest for job in jobs}) == 3


def test_a_row_is_compared_with_the_newest_of_its_kind_on_the_same_device():
    context = RowContext.from_config(CONFIG)
    job = benchmark.Job("any", "collect_steps_per_second", context, 100, lambda: None)
    row = benchmark._row(job, np.array([1.0]))
    older = row | {"value": 10.0, "measured_at": "2000-01-01T00:00:00+00:00"}
    newer = row | {"value": 50.0, "measured_at": "2001-01-01T00:00:00+00:00"}
    elsewhere = row | {"value": 1.0, "device": "another"}
    text = shown(benchmark.compare([row], [newer, older, elsewhere]))
    assert "50 (" in text
    assert "2.00" in text
    other = dataclasses.replace(context, device="another")
    alone = benchmark.compare([benchmark._row(job._replace(context=other), np.ones(1))], [newer])
    assert "2.00" not in shown(alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ("fly",)}, "stage 'fly' is unknown: use some of collect, plan"),
        ({"steps": 0}, "steps 0 and repeats 3 must be at least 1"),
        ({"repeats": 0}, "steps 20 and repeats 0 must be at least 1"),
    ],
)
def test_what_cannot_be_timed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        benchmark.benchmark(CONFIG, **options)
