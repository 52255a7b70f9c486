"""CaDM in a run: what names its rows, what is refused, and what a kill costs."""

import io

import pytest
from rich.console import Console

from experiments import model_methods
from experiments.baseline_settings import method_digest
from experiments.families import method_settings
from experiments.records import read_rows
from experiments.run import run
from experiments.stages import make_world
from persim_jax.methods.cadm import PETS, VANILLA
from tests.experiments.jobs import rows_of, tiny
from tests.experiments.test_baselines import changed
from tests.experiments.worlds import Killed

CONFIG = tiny()
OWN = ("baselines", "cadm")


@pytest.mark.parametrize(
    ("path", "value", "renamed"),
    [
        ((*OWN, "network", "context_size"), 3, {VANILLA, PETS}),
        ((*OWN, "train", "batch_size"), 3, {VANILLA, PETS}),
        ((*OWN, "vanilla", "num_steps"), 3, {VANILLA}),
        ((*OWN, "pets", "ensemble_size"), 3, {PETS}),
        (("planner", "horizon"), 9, {VANILLA, PETS, "persim"}),
        (("model", "rank"), 9, {"persim"}),
        (("train", "num_epochs"), 9, {"persim"}),
    ],
)
def test_rows_are_named_by_what_their_numbers_depend_on(path, value, renamed):
    new = changed(CONFIG, *path, value=value)
    methods = (VANILLA, PETS, "persim")
    assert {m for m in methods if method_digest(CONFIG, m) != method_digest(new, m)} == renamed


@pytest.mark.parametrize("name", ["mountain_car", "cart_pole", "half_cheetah"])
def test_every_environment_has_settings_that_work(name):
    config = tiny(name)
    vanilla, pets = (method_settings(config, method) for method in (VANILLA, PETS))
    assert (vanilla.ensemble_size, pets.ensemble_size) == (1, 2)
    assert (vanilla.train.bootstrap, pets.train.bootstrap) == (False, True)


def test_settings_that_are_wrong_are_told_before_anything_is_made(tmp_path):
    for field, value, message in (
        ("decays", [0.1], r"decays are \(0\.1,\): there are 2 layers"),
        ("angles", [7], r"angles are \(7,\)"),
        ("test_particles", 0, r"baselines\.cadm\.network: test_particles is 0"),
    ):
        wrong = changed(CONFIG, *OWN, "network", field, value=value)
        with pytest.raises(ValueError, match=message):
            run(wrong, tmp_path / "run", (VANILLA,), Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_run_that_is_killed_while_training_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    config = changed(CONFIG, *OWN, "pets", "num_steps", value=20)

    def start(path):
        console = Console(file=io.StringIO(), width=200)
        run(config, path, (PETS,), console, checkpoint_seconds=0.0)

    start(tmp_path / "whole")
    rows, ids = read_rows(tmp_path / "whole" / "rows.jsonl"), make_world(config).agents.test_ids
    for metric in ("rmse_mean", "r2_median", "return_mean"):
        mine = [r for r in rows if (r["method"], r["metric"]) == (PETS, metric)]
        assert {r["agent_id"] for r in mine} == set(ids)
        assert {r["config_digest"] for r in mine} == {method_digest(config, PETS)}

    save, saves = model_methods.checkpoints.save, []

    def save_and_die(folder, step, state):
        save(folder, step, state)
        saves.append((folder.name, step))
        if len(saves) == 1:
            raise Killed

    monkeypatch.setattr(model_methods.checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        start(tmp_path / "broken")
    start(tmp_path / "broken")
    # Ten steps an epoch: the second process did the second one, and then kept the weights.
    assert saves == [("checkpoints", 1), ("checkpoints", 2), ("weights", 2)]
    assert rows_of(tmp_path / "broken") == rows_of(tmp_path / "whole")
