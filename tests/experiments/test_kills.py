"""A run that is killed, at whatever moment and however often, ends as an unbroken one."""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import time
import types
from pathlib import Path

import numpy as np
import pytest

from experiments import run as run_module
from experiments.records import read_rows, row_key
from experiments.run import run
from persim_jax import checkpoints, files
from persim_jax.files import write_atomically
from tests.experiments.jobs import (
    ROOT,
    TINY,
    assert_same_arrays,
    command,
    compile_cache,
    curve_of,
    environment,
    launch,
    quiet_display,
    rows_of,
    tiny,
)

pytestmark = [pytest.mark.slow, pytest.mark.optimizes]

LONG = {"train__num_epochs": 6, "train__polish_rounds": 2}


def assert_same_runs(first: Path, second: Path) -> None:
    """Rows but for times, data, simulators, arrays of figures and training curves."""
    assert rows_of(first) == rows_of(second)
    for name in (
        "dataset/dataset",
        "simulators/simulators",
        "arrays/factors",
        "arrays/predictions",
    ):
        assert_same_arrays(first / f"{name}.npz", second / f"{name}.npz")
    one, two = ([line | {"wall_s": 0} for line in curve_of(path)] for path in (first, second))
    assert one == two
    assert [line["epoch"] for line in one] == list(range(1, 9))
    assert not list(second.rglob(".*.tmp"))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def light_report(where: Path) -> Path:
    write_atomically(where / "report.html", b"a report")
    return where / "report.html"


def name_of(path: Path) -> tuple[object, ...]:
    """What a written file adds: rows by their identity, times by their stage, else the file."""
    if path.name == "rows.jsonl":
        return path.name, frozenset(row_key(row) for row in read_rows(path))
    if path.name == "timings.json":
        return path.name, frozenset(json.loads(path.read_text("utf8")))
    return path.parent.name, path.name


def test_no_window_between_two_writes_loses_anything(tmp_path, monkeypatch):
    """In process: each start is killed at the first write that none before it made."""
    config = tiny(**LONG)
    monkeypatch.setattr(run_module, "build_report", light_report)
    console, seen, save = quiet_display().console, set(), checkpoints.save

    def die_once(*name):
        if name not in seen:
            seen.add(name)
            raise Killed

    def replace_and_die(source, target):
        os.replace(source, target)
        die_once(*name_of(Path(target)))

    def die_and_save(folder, step, state):
        # Its line in the curve is written, the checkpoint is not.
        die_once("epoch", step)
        save(folder, step, state)

    known = {name: getattr(os, name) for name in dir(os) if not name.startswith("__")}
    mortal = types.SimpleNamespace(**known | {"replace": replace_and_die})
    with compile_cache(tmp_path / "cache"):
        run(config, tmp_path / "unbroken", console=console, checkpoint_seconds=0.0)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", mortal)
            patch.setattr(checkpoints, "save", die_and_save)
            for _ in range(200):
                with contextlib.suppress(Killed):
                    run(config, tmp_path / "broken", console=console, checkpoint_seconds=0.0)
                    break
    # At least data and their row, eight checkpoints, simulators, and the rows of each agent.
    assert len(seen) >= 2 + 8 + 2 + 3 * 5
    assert_same_runs(tmp_path / "unbroken", tmp_path / "broken")


# When a process is killed: once its log holds this line, or this file is there, and at most so
# many seconds later.
MOMENTS = (
    ("INFO data: started", 0.8),
    ("INFO fit persim: started", 1.0),
    ("checkpoints/4.json", 0.5),
    ("INFO prediction persim: started", 0.4),
    ("INFO planning persim: started", 0.4),
    ("INFO report: started", 2.0),
)


def start_and_kill(flags: list[str], where: Path, mark: str, delay: float) -> str | None:
    """Kills the launcher `delay` seconds after a mark; says in which stage, or None if it ended."""
    log = where / "log.txt"
    before = log.stat().st_size if log.exists() else 0

    def text() -> str:
        return log.read_bytes()[before:].decode() if log.exists() else ""

    process = subprocess.Popen(
        command(*flags), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while mark not in text() and not (where / mark).exists() and time.monotonic() < deadline:
        if process.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(delay)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == (-signal.SIGKILL if alive else 0), errors
    started, done = (re.findall(rf"INFO (.*): {word}", text()) for word in ("started", "done"))
    inside = [stage for stage in started if stage not in done]
    return (inside[-1] if inside else "between stages") if alive else None


def test_a_run_that_is_killed_in_every_stage_ends_as_an_unbroken_one(tmp_path):
    flags = [
        "--config=configs/mountain_car.py:smoke", *TINY, "--config.train.num_epochs=6",
        "--config.train.polish_rounds=2", "--checkpoint_seconds=0",
        f"--compile_cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    whole = launch(*flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    rng, kills = np.random.default_rng(7), []
    broken = [*flags, f"--workdir={tmp_path / 'broken'}"]
    for mark, most in MOMENTS:
        delay = float(rng.uniform(0, most))
        kills.append(start_and_kill(broken, tmp_path / "broken", mark, delay))
    last = launch(*broken)
    assert last.returncode == 0, last.stderr
    assert len([stage for stage in kills if stage]) >= 4, kills
    assert len(set(filter(None, kills))) >= 3, kills
    assert_same_runs(tmp_path / "whole", tmp_path / "broken")
    one, two = ((tmp_path / n / "report.csv").read_text("utf8") for n in ("whole", "broken"))
    assert one == two


def test_the_tiny_flags_make_the_tiny_config():
    config = importlib.import_module("configs.mountain_car").get_config("smoke").to_dict()
    for flag in TINY:
        name, _, value = flag.removeprefix("--config.").partition("=")
        section, _, field = name.partition(".")
        assert str(tiny()[section][field]) in (value, str(eval(value)))
        config[section][field] = tiny()[section][field]
    differing = {s for s in config if config[s] != tiny()[s]}
    assert differing <= {"model", "evaluation"}
