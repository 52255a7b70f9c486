"""Validation of a workdir: what is written, what is said, and where nothing can be judged."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import mountain_car
from experiments import validate as module
from experiments.records import read_rows
from persim_jax.data.storage import save_dataset
from persim_jax.methods.persim import PersimConfig
from persim_jax.training import TrainConfig
from persim_jax.validation.config import CannotJudgeError, ValidationConfig
from persim_jax.validation.judgement import as_json, conclude
from persim_jax.validation.procedure import gather
from tests.validation.records import line_data

ROOT = module.__file__.rpartition("experiments")[0]
SMALL = ValidationConfig(
    agent_share=0.3, horizon=10, transitions=10, steps=(1, 10, 50), num_bootstraps=200
)
MODEL = PersimConfig(
    rank=2,
    train=TrainConfig(num_epochs=30, batch_size=64, learning_rate=2e-2),
    spare_members=0,
    state_features=(8,),
    ensemble_size=2,
)
GAINS = np.linspace(-0.6, 0.8, 30)


def workdir_of(path, data):
    """A workdir as a run leaves it, with a smoke config."""
    config = mountain_car.get_config("smoke").to_dict()
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_dataset(path / "dataset" / "dataset", data, {})
    (path / "simulators").mkdir()
    (path / "simulators" / "simulators.json").write_text("untouched")
    return path


@pytest.mark.slow
@pytest.mark.optimizes
def test_agents_that_differ_are_found_to_differ_and_others_are_not():
    found = {}
    for name, gains in (("differ", GAINS), ("alike", np.full(30, 0.3))):
        data = line_data(gains, steps=50, noise=0.02, seed=1)
        findings = conclude(gather(jax.random.key(0), data, MODEL, SMALL), SMALL)
        found[name] = findings
        # One step is as noisy as the data are: its error is known.
        curve = findings.unseen.errors["personalized"]
        assert 0.7 < curve[0] * 2**0.5 * np.asarray(data.obs)[..., 0].std() / 0.02 < 2.5
    differ, alike = found["differ"], found["alike"]
    assert differ.tails.gain.found
    assert differ.unseen.gain.found
    assert differ.unseen.gain.gain > 0.5
    assert not alike.tails.gain.found
    assert not alike.unseen.gain.found
    for findings in found.values():
        persistence, ours = (
            findings.unseen.errors[name][-1] for name in ("persistence", "personalized")
        )
        assert ours < 0.5 * persistence


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_workdir_gets_a_page_a_verdict_and_rows_and_keeps_its_simulators(tmp_path):
    workdir = workdir_of(tmp_path / "run", line_data(GAINS, steps=50, noise=0.02, seed=1))
    console = Console(file=None, quiet=True)
    findings = module.validate(workdir, SMALL, console=console)
    verdict = json.loads((workdir / "verdict.json").read_text())
    assert verdict == json.loads(json.dumps(as_json(findings, SMALL)))
    assert set(verdict) == {"agents", "coverage", "heterogeneity", "errors"}
    assert set(verdict["agents"]) == {str(i) for i in range(10, 40)}
    for own in verdict["agents"].values():
        assert own["verdict"] in {"trust", "trust_up_to", "do_not_trust"}
        assert isinstance(own["steps"], int)
    assert set(verdict["coverage"]) == {"0.5", "0.8", "0.95"}
    assert set(verdict["coverage"]["0.95"]) == {"1", "10", "50"}
    assert verdict["coverage"]["0.95"]["50"] is None  # the horizon is ten
    assert 0.8 < verdict["coverage"]["0.95"]["1"] <= 1.0
    assert verdict["heterogeneity"]["interval"][0] <= verdict["heterogeneity"]["gain"]
    assert set(verdict["errors"]["personalized"]) == {"1", "10"}
    rows = read_rows(workdir / "validation_rows.jsonl")
    (gain,) = [row for row in rows if row["metric"] == "validation_gain_known"]
    assert gain["value"] == verdict["heterogeneity"]["gain"]
    assert gain["interval"] == verdict["heterogeneity"]["interval"]
    page = (workdir / "validation.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    assert len(page) < 500_000
    for agent_id in range(10, 40):
        assert f"<td>{agent_id}</td>" in page
    assert (workdir / "simulators" / "simulators.json").read_text() == "untouched"


def test_what_cannot_be_judged_leaves_no_verdict_behind(tmp_path):
    console = Console(quiet=True)
    few = workdir_of(tmp_path / "few", line_data(np.ones(5)))
    with pytest.raises(CannotJudgeError, match="there are 5 agents"):
        module.validate(few, SMALL, console=console)
    short = workdir_of(tmp_path / "short", line_data(np.ones(20), steps=8))
    with pytest.raises(CannotJudgeError, match="too short for the steps"):
        module.validate(short, SMALL, console=console)
    for workdir in (few, short):
        assert not (workdir / "verdict.json").exists()
    with pytest.raises(FileNotFoundError, match="holds no fitted data"):
        module.validate(tmp_path, SMALL, console=console)


@pytest.mark.slow
def test_the_exit_status_tells_errors_from_what_cannot_be_judged(tmp_path):
    few = workdir_of(tmp_path / "few", line_data(np.ones(5)))
    for workdir, status, text in ((few, 2, "there are 5 agents"), (tmp_path, 1, "no fitted data")):
        done = subprocess.run(
            [sys.executable, "-m", "experiments.validate", f"--workdir={workdir}"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status
        assert text in " ".join((done.stdout + done.stderr).split())
        assert "Traceback" not in done.stderr
