"""The launcher as people start it: what it shows, how it goes on, what it says when it cannot."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.records import read_rows
from experiments.stamps import ROOT
from persim_jax.data import storage
from tests.experiments.jobs import TINY, command, environment, launch, made_once, tiny

pytestmark = [pytest.mark.slow, pytest.mark.optimizes]


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a launcher ends that cannot go on."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    return line


WRONG_FLAGS = {
    "environment": (
        ["--config=configs/acrobot.py:smoke", "--config.trial=1"],
        "there is no config file configs/acrobot.py: use configs/mountain_car.py",
    ),
    "variant": (
        ["--config=configs/cart_pole.py:tiny"],
        "configs/cart_pole.py: variant 'tiny' is unknown: use one of smoke, default, paper",
    ),
    "typo": (
        ["--config.behaviour=pure"],
        '--config.behaviour=pure: the config has no such field. Did you mean "behavior"',
    ),
    "nested typo": (
        ["--config.train.epochs=3"],
        "--config.train.epochs=3: the config has no such field",
    ),
    "name": (
        ["--config.variant=paper"],
        "--config.variant=paper: the file and what follows its colon say that: --config=FILE:VARIA",
    ),
    "type": (["--config.trial=second"], "--config.trial=second: invalid literal for int()"),
    "behavior": (
        ["--config.behavior=noisy"],
        "config.behavior is 'noisy': use one of random, pure, pure_eps20, pure_eps40",
    ),
    "value": (["--config.train.batch_size=0"], "config.train: batch_size is 0"),
    "method": (["--methods=persim,magic"], "method 'magic' is unknown: use some of persim, true_e"),
    "no method": (["--methods="], "there is no method: use some of persim, true_env"),
    "flag": (["--wrokdir=x"], "Unknown command line flag 'wrokdir'. Did you mean: workdir ?"),
    "argument": (["smoke"], "unknown arguments: smoke"),
    "interval": (["--checkpoint_seconds=-1"], "--checkpoint_seconds=-1"),
}


@pytest.mark.parametrize("case", WRONG_FLAGS)
def test_wrong_flags_are_told_in_one_line_and_leave_nothing(tmp_path, case):
    flags, message = WRONG_FLAGS[case]
    done = launch("--config=configs/mountain_car.py:smoke", f"--workdir={tmp_path / 'run'}", *flags)
    assert message in told(done)
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_required_flags_are_named():
    assert "--workdir must have a value" in told(launch("--config=configs/mountain_car.py:smoke"))
    assert "--config must have a value" in told(launch("--workdir=nowhere"))


def test_help_says_what_the_flags_are_for():
    text = launch("--help").stdout
    for flag in ("config", "workdir", "methods", "deterministic", "compile_cache"):
        assert re.search(rf"--(\[no\])?{flag}: \w+", text)
    assert "configs/base.py lists them" in " ".join(text.split())
    assert "--config" in launch("--helpfull").stdout


FLAGS = (
    "--config=configs/mountain_car.py:smoke", "--config.behavior=pure_eps20", "--config.trial=1",
    *TINY,
)  # fmt: skip


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A folder with a run of `FLAGS`, as a command, not to be changed: workdir, output, seconds."""

    def make(folder: Path) -> None:
        start = time.monotonic()
        done = launch(
            *FLAGS, f"--workdir={folder / 'run'}", f"--compile_cache={folder / 'cache'}",
            XLA_FLAGS="--xla_cpu_enable_fast_math=false",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = {"out": done.stdout, "err": done.stderr, "seconds": time.monotonic() - start}
        (folder / "told.json").write_text(json.dumps(told), "utf8")

    folder = made_once(tmp_path_factory, "launched", make)
    return folder / "run", json.loads((folder / "told.json").read_text("utf8"))


@pytest.fixture
def copied(launched, tmp_path):
    """A copy of that run, and the flags that go on with it."""
    where, _ = launched
    shutil.copytree(where, tmp_path / "run")
    cache = f"--compile_cache={where.parent / 'cache'}"
    return tmp_path / "run", (*FLAGS, f"--workdir={tmp_path / 'run'}", cache)


def test_the_launcher_runs_and_shows_the_tables(launched):
    where, told = launched
    assert told["err"] == ""
    lines = told["out"].splitlines()
    assert lines[-1] == f"report: {where / 'report.html'}"
    assert any(line.startswith("Table 1, MountainCar") for line in lines)
    assert any(line.startswith("Table 2, MountainCar") for line in lines)
    assert not any("INFO" in line or line.startswith("I1") for line in lines)
    for row in read_rows(where / "rows.jsonl"):
        assert row["trial"] == 1
        assert row["behavior"] == ("any" if row["method"] == "true_env" else "pure_eps20")
    stored = json.loads((where / "config.json").read_text("utf8"))
    assert stored == json.loads(json.dumps(tiny(behavior="pure_eps20", trial=1)))
    assert "INFO data: started" in (where / "log.txt").read_text("utf8")


def test_flags_for_jax_take_effect_and_keep_what_was_set(launched):
    where, _ = launched
    stamp = json.loads((where / "environment.json").read_text("utf8"))
    assert stamp["xla_flags"] == "--xla_cpu_enable_fast_math=false --xla_gpu_deterministic_ops=true"
    assert "--config.trial=1" in stamp["command"]
    cached = {path.name for path in (where.parent / "cache").iterdir()}
    assert any("run_epoch" in name for name in cached)


@pytest.mark.parametrize(
    ("deterministic", "before", "expected"),
    [
        (True, "", "true"),
        (False, "", "false"),
        (True, "--xla_gpu_deterministic_ops=false", "false"),
    ],
)
def test_xla_itself_sees_the_flag(tmp_path, deterministic, before, expected):
    code = (
        f"from experiments.run import set_up_jax; set_up_jax({deterministic}, None); "
        "import jax; jax.jit(lambda x: x + 1)(1.0).block_until_ready()"
    )
    flags = f"{before} --xla_dump_to={tmp_path} --xla_dump_hlo_as_text".strip()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(XLA_FLAGS=flags), check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "tpu" not in done.stderr
    options = next(tmp_path.glob("*debug_options")).read_text()
    found = re.search(r"xla_gpu_deterministic_ops: (\w+)", options)
    # A default is not printed.
    assert (found.group(1) if found else "false") == expected


def test_a_second_launch_runs_no_stage_again(launched, copied):
    where, flags = copied
    rows, log = (where / "rows.jsonl").read_bytes(), (where / "log.txt").read_text("utf8")
    timings = json.loads((where / "timings.json").read_text("utf8"))
    start = time.monotonic()
    done = launch(*flags)
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {where / 'report.html'}"
    assert (where / "rows.jsonl").read_bytes() == rows
    # The command differs, which the report says; nothing else is done.
    started = re.findall(r"INFO (.*): started", (where / "log.txt").read_text("utf8")[len(log) :])
    assert started == ["report"]
    after = json.loads((where / "timings.json").read_text("utf8"))
    assert after | {"report": 0} == timings | {"report": 0}
    assert seconds < launched[1]["seconds"]


def test_a_workdir_of_another_config_is_refused(copied):
    where, flags = copied
    rows = (where / "rows.jsonl").read_bytes()
    line = told(launch(*flags, "--config.trial=2", "--config.train.num_epochs=3"))
    assert "Fields that differ: train.num_epochs (was 2, now 3), trial (was 1, now 2). Gi" in line
    assert str(where) in line
    assert (where / "rows.jsonl").read_bytes() == rows


def test_a_dataset_that_was_cut_short_is_named(copied):
    where, flags = copied
    path = where / "dataset" / "dataset.npz"
    path.write_bytes(path.read_bytes()[:-1])
    line = told(launch(*flags))
    assert str(path) in line
    assert "delete" in line


def test_nan_in_a_dataset_is_named_by_agent_and_step(copied, monkeypatch):
    where, flags = copied
    shutil.rmtree(where / "simulators")
    shutil.rmtree(where / "checkpoints")
    path = where / "dataset" / "dataset"
    dataset, provenance = storage.load_dataset(path), storage.load_provenance(path)
    obs = np.array(dataset.obs)
    obs[5, 7, 1] = np.nan
    monkeypatch.setattr(storage, "validate", lambda dataset: None)
    storage.save_dataset(path, dataclasses.replace(dataset, obs=obs), provenance)
    line = told(launch(*flags))
    assert re.search(r"agent 5\b", line)
    assert re.search(r"step 7\b", line)
    assert "ValueError" in (where / "log.txt").read_text("utf8")


def flip(path: Path) -> None:
    """Alters one bit in the middle of the largest file below a path."""
    victim = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)


def test_an_altered_checkpoint_is_named(copied):
    where, flags = copied
    shutil.rmtree(where / "simulators")
    flip(where / "checkpoints" / "2")
    line = told(launch(*flags))
    assert str(where / "checkpoints" / "2") in line
    assert "Delete the folder and run again" in line


def test_altered_simulators_are_named(copied):
    where, flags = copied
    flip(where / "simulators")
    line = told(launch(*flags))
    assert str(where / "simulators" / "simulators.npz") in line
    assert "fit again" in line


def test_training_that_diverges_is_told_in_one_line(tmp_path):
    flags = (*FLAGS, "--config.train.learning_rate=1e30", f"--workdir={tmp_path / 'run'}")
    line = told(launch(*flags))
    assert "lower config.train.learning_rate" in line
    text = (tmp_path / "run" / "log.txt").read_text("utf8")
    assert "DivergedError" in text
    assert os.path.exists(tmp_path / "run" / "dataset" / "dataset.json")


def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    # A process that was started in the background may have inherited that interrupts are ignored.
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    where = tmp_path / "run"
    words = [sys.executable, "-c", code, *command(*FLAGS, f"--workdir={where}")[1:]]
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    log, deadline = where / "log.txt", time.monotonic() + 300
    while time.monotonic() < deadline and not (log.exists() and "fit persim" in log.read_text()):
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (
        130, "error: interrupted: the same command goes on where it stopped\n"
    )  # fmt: skip
    assert "KeyboardInterrupt" in log.read_text()
