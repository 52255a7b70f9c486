"""The main job from covariates to a report, in process and as people start it."""

import dataclasses
import importlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import workdir
from experiments.records import read_rows
from experiments.run import run, show_tables
from experiments.stamps import ROOT
from persim_jax.data import storage
from tests.experiments.jobs import TINY, environment, launch, made_once, tiny

pytestmark = [pytest.mark.slow, pytest.mark.optimizes]

PREDICTION = ("rmse_mean", "rmse_std", "r2_median", "r2_mean", "episodes_left_out")
CONTROL = ("return_mean", "return_std")


def printed(config, where: Path, width: int = 80) -> str:
    """Runs in this process; returns what was printed."""
    console = Console(file=io.StringIO(), width=width)
    before = jax.config.jax_default_matmul_precision
    assert run(config, where, console=console) == where / "report.html"
    assert jax.config.jax_default_matmul_precision == before
    return console.file.getvalue()


@pytest.fixture(scope="module", params=["mountain_car", "cart_pole"])
def smoke(request, tmp_path_factory):
    """The smoke variant, run in this process: config, workdir (not to be changed), what it said."""
    config = importlib.import_module(f"configs.{request.param}").get_config("smoke").to_dict()

    def make(folder: Path) -> None:
        text = printed(config, folder)
        (folder / "printed").write_text(text, "utf8")

    where = made_once(tmp_path_factory, f"smoke_{request.param}", make)
    return config, where, (where / "printed").read_text("utf8")


def test_a_run_leaves_what_the_contracts_promise(smoke):
    _, where, _ = smoke
    names = {path.name for path in where.iterdir()}
    assert names >= {
        "config.json", "environment.json", "dataset", "checkpoints", "simulators", "metrics.jsonl",
        "rows.jsonl", "figures", "report.html", "report.md", "report.tex", "report.csv", "log.txt",
        "timings.json", "arrays", "tensorboard",
    }  # fmt: skip
    stamp = json.loads((where / "environment.json").read_text("utf8"))
    assert stamp["matmul_precision"] == "highest"
    assert json.loads((where / "timings.json").read_text("utf8")).keys() == {
        "data", "fit persim", "prediction persim", "planning persim", "planning true_env", "report"
    }  # fmt: skip


def test_every_number_of_the_tables_has_one_row(smoke):
    config, where, _ = smoke
    rows = read_rows(where / "rows.jsonl")
    found = {(row["method"], row["metric"], row["paper_label"], row["agent_id"]) for row in rows}
    assert len(found) == len(rows)
    agents = {(row["paper_label"], row["agent_id"]) for row in rows if row["agent_id"] is not None}
    assert len(agents) == 5
    measured = {(m, metric) for m, metric, _, agent in found if agent is not None}
    both = ("persim", "true_env")
    assert measured == {
        *itertools.product(["persim"], PREDICTION), *itertools.product(both, CONTROL)
    }  # fmt: skip
    others = {(method, metric) for method, metric, _, agent in found if agent is None}
    assert len(found) == 5 * 9 + len(others)
    names = {"mountain_car": ["gravity"], "cart_pole": ["force", "length"]}[config["environment"]]
    assert others == {
        *itertools.product(["persim"], [f"factor_correlation_{name}" for name in names]),
        ("any", "collect_steps_per_second"), ("persim", "train_seconds"),
        *itertools.product(both, ["compile_seconds", "plan_decisions_per_second"]),
    }  # fmt: skip
    for row in rows:
        assert row["environment"] == config["environment"]
        assert (row["variant"], row["trial"], row["seed"]) == ("smoke", 0, 0)
        assert row["behavior"] == ("any" if row["method"] == "true_env" else "random")


def test_the_report_knows_what_the_shipped_policies_earn(smoke):
    config, where, _ = smoke
    text = (where / "report.md").read_text("utf8")
    assert "returns of the behavior and test policies" not in text
    shown = [float(x) for x in re.findall(r"\| (-?[\d.]+) ± ", text.replace("−", "-"))]
    shipped = ROOT / "experiments" / "shipped_policies" / f"{config['environment']}.json"
    for policy in json.loads(shipped.read_text("utf8"))["policies"]:
        assert min(abs(x - policy["return_mean"]) for x in shown) < 0.06


def test_what_is_printed_says_each_stage_in_a_line(smoke):
    config, _, text = smoke
    lines = text.splitlines()
    assert lines[0].startswith(f"{config['environment']}, random data, smoke variant, trial 0")
    stages = ["data", "fit persim", "prediction persim", "planning persim", "planning true_env"]
    for line, stage in zip(lines[1:], [*stages, "report"], strict=True):
        assert re.match(rf"{stage}\b.* \(\d+\.\d s\)$", line)


def test_the_tables_fit_a_terminal_and_show_the_paper_beside_ours(smoke):
    config, where, _ = smoke
    console = Console(file=io.StringIO(), width=80)
    show_tables(where, config, console)
    text = console.file.getvalue()
    assert "Table 1" in text
    assert "Table 2" in text
    paper = {
        "mountain_car": ("0.04 (1.00)", "−53.95 ± 4.10"),
        "cart_pole": ("0.014 (0.98)", "200.0 ± 0.0"),
    }
    for number in paper[config["environment"]]:
        assert number in text
    assert max(map(len, text.splitlines())) <= 80
    rows = read_rows(where / "rows.jsonl")
    value = next(r for r in rows if (r["method"], r["metric"]) == ("true_env", "return_mean"))
    assert f"{value['value']:.1f}".replace("-", "−") in text


def test_a_second_start_runs_nothing_again(smoke, tmp_path, monkeypatch):
    config, where, _ = smoke
    shutil.copytree(where, tmp_path, dirs_exist_ok=True)
    # Somebody may commit while the tests run.
    stamp = json.loads((where / "environment.json").read_text("utf8"))
    monkeypatch.setattr(workdir, "environment_stamp", lambda: stamp)
    kept = ("rows.jsonl", "timings.json", "report.html", "metrics.jsonl", "environment.json")
    before = {name: (tmp_path / name).read_bytes() for name in kept}
    log = (where / "log.txt").read_text("utf8")
    assert "nothing to do: all of it was done before" in printed(config, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == before
    assert "started" not in (tmp_path / "log.txt").read_text("utf8")[len(log) :]


# The launcher, as a command.


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
