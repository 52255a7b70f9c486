"""A sweep that is killed, at whatever moment and however often, ends as one left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.stamps import ROOT
from experiments.sweeping.index import DONE, RUNNING, Index
from tests.experiments.jobs import environment
from tests.experiments.sweep_jobs import STEPS, rows_of_sweep

pytestmark = pytest.mark.slow

COUNTING = "--sweep=tests/experiments/sweep_jobs.py:counting"
KILLS = 10


def command(where: Path, *flags: str) -> list[str]:
    shared = ["--variant=smoke", f"--workdir={where}", "--workers=2", "--share_devices"]
    return [sys.executable, "-m", "experiments.sweep", *shared, *flags]


def start(where: Path, *flags: str, **changes: str) -> subprocess.Popen:
    # A session of its own, so that the whole group can be killed at once.
    return subprocess.Popen(
        command(where, *flags), cwd=ROOT, env=environment(**changes), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(where: Path, *flags: str, **changes: str) -> str:
    process = start(where, *flags, **changes)
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text
    return text


def size_of(where: Path) -> int:
    """Of what jobs have written."""
    return sum(path.stat().st_size for path in where.glob("jobs/*/rows.jsonl"))


def kill(process: subprocess.Popen, everyone: bool) -> bool:
    """Kills the sweep, with its workers or alone; says whether it was still at work."""
    working = process.poll() is None
    if working and everyone:
        os.killpg(process.pid, signal.SIGKILL)
    elif working:
        process.kill()
    process.communicate()
    return working


def wait_for_rows(process: subprocess.Popen, where: Path, more_than: int) -> None:
    end = time.monotonic() + 300
    while size_of(where) <= more_than and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def test_a_sweep_killed_ten_times_ends_with_the_rows_of_one_left_alone(tmp_path):
    """At random moments: three while it starts, the others while jobs write their rows."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(whole, COUNTING, SWEEP_TEST_PACE="0.01")
    rng, notes = np.random.default_rng(5), tmp_path / "notes.txt"
    changes = {"SWEEP_TEST_PACE": "0.3", "SWEEP_TEST_NOTES": str(notes)}
    kills = cut_off = 0
    for number in range(KILLS):
        before = size_of(broken)
        process = start(broken, COUNTING, **changes)
        if number >= 3:
            wait_for_rows(process, broken, before)
        time.sleep(float(rng.uniform(0, 1.5 if number < 3 else 0.6)))
        # Now and then the sweep alone: its workers must not go on without it.
        kills += kill(process, everyone=number % 3 != 2)
        states = [entry.state for entry in Index(broken).entries.values()]
        cut_off += RUNNING in states
    assert kills == KILLS, "the jobs are too short: the sweep ended before it was killed"
    assert cut_off >= 5
    finish(broken, COUNTING, SWEEP_TEST_PACE="0.01", SWEEP_TEST_NOTES=str(notes))
    assert rows_of_sweep(broken) == rows_of_sweep(whole)
    assert len(rows_of_sweep(whole)) == 8 * (STEPS + 1)
    assert {entry.state for entry in Index(broken).entries.values()} == {DONE}
    # Again and again begun, yet what jobs share was made once, unless a kill cut just that off.
    made = [line for line in notes.read_text().splitlines() if line.startswith("made")]
    assert set(made) == {f"made {b}" for b in ("random", "pure", "pure_eps20", "pure_eps40")}
    assert not list(broken.rglob("*.tmp"))


TINY = [
    "--sweep=configs/sweeps.py:rank", "--environments=mountain_car",
    *(f"--override={change}" for change in (
        "agents.num_agents=8", "model.state_features=(8,)", "train.num_epochs=3",
        "train.polish_rounds=0", "prediction.num_episodes=3", "prediction.num_steps=20",
    )),
]  # fmt: skip


def test_real_runs_that_are_killed_end_as_those_left_alone_and_are_not_run_again(tmp_path):
    """Two ranks on the same data, which is collected once; PerSim trained and tested."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    cache = f"--compile_cache={tmp_path / 'cache'}"
    finish(whole, *TINY, cache)
    rows = rows_of_sweep(whole)
    assert {key[5] for key in rows} >= {"rmse_mean", "train_seconds", "collect_steps_per_second"}
    assert len({key[6] for key in rows}) == 2
    datasets = {path.read_bytes() for path in whole.glob("jobs/*/dataset/dataset.npz")}
    assert len(datasets) == 1
    assert len(list(whole.glob("store/dataset/*"))) == 1
    process = start(broken, *TINY, cache)
    wait_for_rows(process, broken, 0)
    assert kill(process, everyone=True)
    finish(broken, *TINY, cache)
    assert rows_of_sweep(broken) == rows
    # A second time there is nothing to do, and no worker is started for it.
    stamps = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    began = time.monotonic()
    text = finish(whole, *TINY, cache)
    assert time.monotonic() - began < 60
    assert "0 jobs to do, 2 done" in text
    same = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert {p: t for p, t in same.items() if p.name != ".lock"} == {
        p: t for p, t in stamps.items() if p.name != ".lock"
    }
    commands = [
        json.loads(path.read_text("utf8"))["command"]
        for path in whole.glob("jobs/*/environment.json")
    ]
    assert all(c.startswith("python -m experiments.run --config=configs/") for c in commands)
