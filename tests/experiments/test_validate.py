"""Validation of a workdir: what is written, what is said, and where nothing can be judged."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import mountain_car
from experiments import validate as module
from experiments.fit import FORMAT
from experiments.records import RowContext, read_rows
from experiments.reporting import validation_words as words
from persim_jax.calibration import load as load_calibration
from persim_jax.choices import Choices
from persim_jax.data.lags import with_lags
from persim_jax.data.storage import save_dataset
from persim_jax.methods.persim import PersimConfig
from persim_jax.training import TrainConfig
from persim_jax.validation.config import CannotJudgeError, ValidationConfig
from persim_jax.validation.judgement import as_json, conclude
from persim_jax.validation.procedure import gather
from tests.experiments.test_validation_page import findings as made_up_findings
from tests.validation.records import line_data

ROOT = module.__file__.rpartition("experiments")[0]
SMALL = ValidationConfig(
    agent_share=0.3, horizon=10, transitions=10, steps=(1, 10, 50), num_bootstraps=200
)
MODEL = PersimConfig(
    rank=2,
    train=TrainConfig(num_epochs=40, batch_size=64, learning_rate=2e-2),
    spare_members=0,
    state_features=(8,),
    ensemble_size=2,
)
GAINS = np.linspace(0.1, 1.0, 30)


def workdir_of(path, data):
    """A workdir as a run leaves it, with a smoke config."""
    config = mountain_car.get_config("smoke").to_dict()
    # What is linear in the state is then found in a few epochs.
    linear = {"rank": 2, "state_features": [8], "agent_start": 1.0, "skip": True, "huber": 0.0}
    config["model"] |= linear | {"activation": "tanh"}
    quick = {"num_epochs": 100, "batch_size": 64, "learning_rate": 2e-2, "polish_rounds": 0}
    config["train"] |= quick
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_dataset(path / "dataset" / "dataset", data, {})
    (path / "simulators").mkdir()
    (path / "simulators" / "simulators.json").write_text("untouched")
    return path


@pytest.mark.slow
@pytest.mark.optimizes
def test_agents_that_differ_are_found_to_and_agents_that_are_alike_are_not():
    train = TrainConfig(num_epochs=100, batch_size=64, learning_rate=1e-2)
    model = dataclasses.replace(MODEL, agent_penalty=0.1, train=train)

    def judged(gains):
        data = line_data(gains, steps=50, noise=0.02, seed=1)
        return conclude(gather(jax.random.key(0), data, model, SMALL), SMALL)

    # Of newcomers: the tails of these walks are where no data are, for any of the models.
    newcomers = judged(GAINS).unseen
    assert newcomers.gain.found
    assert newcomers.gain.low > 0
    findings = judged(np.full(30, 0.3))
    for part in (findings.tails, findings.unseen):
        assert not part.gain.found
        assert part.errors["personalized"][-1] < 0.5 * part.errors["persistence"][-1]
    assert words.heterogeneity_sentence(findings.tails.gain).startswith("No difference between")


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_workdir_gets_a_page_a_verdict_and_rows_and_keeps_its_simulators(tmp_path):
    workdir = workdir_of(tmp_path / "run", line_data(GAINS, steps=50, noise=0.02, seed=1))
    console = Console(file=None, quiet=True)
    findings = module.validate(workdir, SMALL, console=console)
    for part in (findings.tails, findings.unseen):
        assert part.errors["personalized"][-1] < 0.5 * part.errors["persistence"][-1]
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
    assert 0.6 < verdict["coverage"]["0.95"]["1"] <= 1.0
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
    scaling = load_calibration(workdir / "calibration.json")
    for table in (scaling.known, scaling.unseen):
        assert table.shape == (3, 10, 2)
        assert np.all(np.diff(table, axis=0) >= 0)  # a higher level is wider
    for agent_id in range(10, 40):
        assert f"<td>{agent_id}</td>" in page
    assert (workdir / "simulators" / "simulators.json").read_text() == "untouched"


def test_what_fit_made_is_judged_with_its_own_choices(tmp_path):
    data = line_data(GAINS, steps=12)
    save_dataset(tmp_path / "dataset" / "dataset", data, {})
    choices = Choices(lags=3, rank=2, agent_penalty=0.5, seed=7)
    stored = {"format": FORMAT, "choices": dataclasses.asdict(choices)}
    (tmp_path / "choices.json").write_text(json.dumps(stored))
    found = module.read_procedure(tmp_path)
    assert found.model == choices.config()
    assert found.dataset.info.lags == 3
    np.testing.assert_array_equal(found.dataset.obs, with_lags(data, 3).obs)
    np.testing.assert_array_equal(
        jax.random.key_data(found.key), jax.random.key_data(choices.key(2))
    )
    context = RowContext.from_config(found.settings)
    assert (context.environment, context.behavior, context.seed) == ("line", "random", 7)


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


def test_an_earlier_verdict_does_not_stand_beside_half_of_a_new_one(tmp_path, monkeypatch):
    workdir = workdir_of(tmp_path / "run", line_data(np.ones(5)))
    (workdir / "verdict.json").write_text("earlier")

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(module, "gather", lambda *args: None)
    monkeypatch.setattr(module, "conclude", lambda *args: made_up_findings())
    monkeypatch.setattr(module, "to_page", lambda *args: "page")
    monkeypatch.setattr(module, "save_calibration", full)
    with pytest.raises(OSError, match="no space left"):
        module.validate(workdir, SMALL, console=Console(quiet=True))
    assert (workdir / "validation.html").read_text() == "page"
    assert not (workdir / "verdict.json").exists()


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
