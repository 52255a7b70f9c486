"""Model-based methods in a run: their rows, their files, kills, and workdirs of older versions."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import model_methods, workdir
from experiments.baseline_settings import method_digest
from experiments.families import FAMILIES, method_settings
from experiments.families import check as check_families
from experiments.method_stages import run_of
from experiments.model_methods import fit_model, model_folder
from experiments.records import read_rows
from experiments.run import run
from experiments.stages import Run, make_dataset, make_world
from persim_jax.methods import METHODS
from tests.experiments.jobs import arrays_of, quiet_display, rows_of, tiny
from tests.experiments.test_baselines import changed
from tests.experiments.worlds import Killed

CONFIG = tiny()
NAMES = ("concat_mlp", "pooled_mlp", "per_agent_mlp")
RUN = NAMES[1:]  # `concat_mlp` is trained and measured by the same code
OWN = ("baselines", "ablations", "own_batch_size")


def start(path, methods=("pooled_mlp",), planning=False):
    console = Console(file=io.StringIO(), width=200)
    run(CONFIG, path, methods, console, checkpoint_seconds=0.0, planning=planning)
    return console.file.getvalue()


def test_every_method_has_a_stage_and_an_unknown_one_is_told():
    assert all(callable(run_of(name)) for name in METHODS)
    with pytest.raises(ValueError, match="no stage runs the method 'dreamer'"):
        run_of("dreamer")


@pytest.mark.parametrize(
    ("path", "value", "renamed"),
    [
        (OWN, 7, set(NAMES)),
        (("train", "num_epochs"), 77, {"persim", *NAMES}),
        (("planner", "horizon"), 9, {"persim", *NAMES}),
        (("baselines", "bcq", "a", "threshold"), 0.7, {"bcq_a"}),
        (("trial",), 3, set()),
    ],
)
def test_settings_of_a_family_name_its_rows_and_nobody_elses(path, value, renamed):
    new = changed(CONFIG, *path, value=value)
    methods = ("persim", "true_env", "bcq_a", *NAMES)
    found = {m for m in methods if method_digest(CONFIG, m) != method_digest(new, m)}
    assert found - {"true_env"} == renamed


def test_a_familys_rows_do_not_depend_on_what_it_says_it_does_not_use():
    family = FAMILIES[0]
    assert set(family.methods) == set(NAMES)
    assert len({method_digest(CONFIG, name) for name in ("persim", "concat_mlp")}) == 2


def test_settings_that_are_wrong_are_told_before_anything_is_made(tmp_path):
    wrong = changed(CONFIG, *OWN, value=0)
    with pytest.raises(ValueError, match=r"baselines\.ablations: own_batch_size is 0"):
        run(wrong, tmp_path / "run", NAMES, Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()
    lacking = changed(CONFIG, "baselines", value={})
    with pytest.raises(ValueError, match=r"config lacks baselines\.ablations, which pooled_mlp"):
        check_families(lacking, NAMES[1:])
    with pytest.raises(ValueError, match="'persim' has no section"):
        method_settings(CONFIG, "persim")


def test_a_workdir_from_before_a_family_goes_on_and_takes_its_settings(tmp_path):
    old = changed(CONFIG, "baselines", value={k: v for k, v in CONFIG["baselines"].items()
                                              if k != "ablations"})  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(old))
    workdir.Workdir(tmp_path, CONFIG)
    stored = json.loads((tmp_path / "config.json").read_text("utf8"))
    assert stored["baselines"]["ablations"] == CONFIG["baselines"]["ablations"]
    with pytest.raises(ValueError, match=r"another config.*ablations\.own_batch_size \(was 32"):
        workdir.Workdir(tmp_path, changed(CONFIG, *OWN, value=8))
    with pytest.raises(ValueError, match=r"bcq\.a\.threshold"):
        workdir.Workdir(tmp_path, changed(CONFIG, "baselines", "bcq", "a", "threshold", value=0.9))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two of them, and what it printed."""
    path = tmp_path_factory.mktemp("models") / "whole"
    with jax.numpy_dtype_promotion("standard"):
        return path, start(path, RUN)


@pytest.mark.slow
@pytest.mark.optimizes
def test_planning_that_was_left_out_can_be_added(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    metrics = lambda: {r["metric"] for r in read_rows(folder / "rows.jsonl")}  # noqa: E731
    assert not metrics() & {"return_mean", "plan_decisions_per_second"}
    text = start(folder, NAMES[1:2], planning=True)
    assert "fit" not in text
    assert metrics() >= {"return_mean", "return_std", "plan_decisions_per_second"}
    mine = [r for r in read_rows(folder / "rows.jsonl") if r["metric"] == "return_mean"]
    assert {r["agent_id"] for r in mine} == set(make_world(CONFIG).agents.test_ids)
    assert {(r["method"], r["config_digest"]) for r in mine} == {
        ("pooled_mlp", method_digest(CONFIG, "pooled_mlp"))
    }


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_run_measures_the_methods_and_nothing_twice(whole, monkeypatch):
    path, _ = whole
    rows, ids = read_rows(path / "rows.jsonl"), set(make_world(CONFIG).agents.test_ids)
    stamp = json.loads((path / "environment.json").read_text("utf8"))
    monkeypatch.setattr(workdir, "environment_stamp", lambda: stamp)  # somebody may commit
    for name in RUN:
        for metric in ("rmse_mean", "r2_median", "rmse_over_horizon"):
            mine = [r for r in rows if (r["method"], r["metric"]) == (name, metric)]
            assert {r["agent_id"] for r in mine} == ids
            assert {r["config_digest"] for r in mine} == {method_digest(CONFIG, name)}
        (trained,) = [r for r in rows if (r["method"], r["metric"]) == (name, "train_seconds")]
        assert trained["value"] > 0
        curve = (path / "models" / name / "metrics.jsonl").read_text("utf8").splitlines()
        assert [json.loads(line)["epoch"] for line in curve] == list(range(1, len(curve) + 1))
        errors = arrays_of(path / "arrays" / f"predictions_{name}.npz")["rmse_per_step"]
        assert errors.shape == (5, CONFIG["prediction"]["num_steps"])
        assert np.isfinite(errors).all()
    assert not (path / "metrics.jsonl").exists()
    before = (path / "rows.jsonl").read_bytes()
    assert "nothing to do" in start(path, RUN)
    assert (path / "rows.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_training_that_is_killed_ends_as_an_unbroken_one(whole, tmp_path, monkeypatch):
    save, saves = model_methods.checkpoints.save, []

    def save_and_die(folder, step, state):
        save(folder, step, state)
        saves.append((folder.name, step))
        if len(saves) == 1:
            raise Killed

    monkeypatch.setattr(model_methods.checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        start(tmp_path)
    start(tmp_path)
    # The second process took the second epoch only, and then kept the weights.
    assert saves == [("checkpoints", 1), ("checkpoints", 2), ("weights", 2)]
    unbroken = {k: v for k, v in rows_of(whole[0]).items() if "pooled_mlp" in k}
    broken = {k: v for k, v in rows_of(tmp_path).items() if "pooled_mlp" in k}
    assert unbroken == broken


@pytest.mark.slow
@pytest.mark.optimizes
def test_stored_weights_are_read_and_not_trained_again(whole, monkeypatch):
    where, world = workdir.Workdir(whole[0], CONFIG), make_world(CONFIG)
    dataset = make_dataset(where, world, quiet_display())
    monkeypatch.setattr(model_methods, "monitored_training", None)
    fitted = fit_model("per_agent_mlp", Run(where, world, dataset, quiet_display()))
    leaf = jax.tree.leaves(fitted.params.weights)[0]
    assert leaf.shape[:2] == (CONFIG["model"]["ensemble_size"], len(world.agents.test_ids))
    assert model_folder(where, "per_agent_mlp") == whole[0] / "models" / "per_agent_mlp"
