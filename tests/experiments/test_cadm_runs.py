"""CaDM in a run: what names its rows, what is refused, and what a kill costs."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import model_methods
from experiments.baseline_settings import method_digest
from experiments.families import method_settings
from experiments.model_methods import fit_model
from experiments.run import run
from experiments.stages import Run, make_world
from experiments.workdir import Workdir
from persim_jax.methods.cadm import PETS, VANILLA
from tests.experiments.jobs import dataset_of, quiet_display, tiny
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
def test_a_training_that_is_killed_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    world = make_world(CONFIG)

    def start(name):
        where = Workdir(tmp_path / name, CONFIG)
        return fit_model(PETS, Run(where, world, dataset_of(world, 30), quiet_display(), 0.0))

    whole = start("whole")
    save, saves = model_methods.checkpoints.save, []

    def save_and_die(folder, step, state):
        save(folder, step, state)
        saves.append((folder.name, step))
        if len(saves) == 1:
            raise Killed

    monkeypatch.setattr(model_methods.checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        start("broken")
    broken = start("broken")
    # Ten steps an epoch: the second process did the second one, and then kept the weights.
    assert saves == [("checkpoints", 1), ("checkpoints", 2), ("weights", 2)]
    jax.tree.map(np.testing.assert_array_equal, broken.params, whole.params)
