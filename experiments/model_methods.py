"""The stage that fits a model-based method of a run, and what it measures."""

from __future__ import annotations

from pathlib import Path

from experiments.arrays import read_predictions, write_predictions
from experiments.control import measure_returns
from experiments.explain import measure_growth
from experiments.families import method_settings
from experiments.measure import measure_prediction
from experiments.progress import CHECKPOINT_SECONDS, Display, monitored_training
from experiments.records import make_row
from experiments.settings import stage_key
from experiments.stages import World
from experiments.workdir import Workdir
from persim_jax import checkpoints
from persim_jax.data.dataset import OfflineDataset
from persim_jax.methods import MODEL_BASED, find_method
from persim_jax.methods.model_based import FittedModel, parameter_count, untrained

FOLDER = "models"


def run_model(
    name: str,
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Fits the model of a method, tests its predictions and plans in it, as far as not done yet."""
    method = find_method(name)
    fitted = fit_model(name, workdir, world, dataset, display, checkpoint_seconds)
    measure_prediction(workdir, world, method, fitted, display)
    write_predictions(workdir, world, method, fitted)
    measure_growth(workdir, world, name, read_predictions(workdir, name))
    measure_returns(workdir, world, method, fitted, display)


def model_folder(workdir: Workdir, name: str) -> Path:
    """Where the weights, checkpoints and curves of a method lie."""
    return workdir.path / FOLDER / name


def fit_model(
    name: str,
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> FittedModel:
    """The model of a method, from its folder or trained now, from the last checkpoint on.

    Raises:
      CorruptCheckpointError: Weights or the last checkpoint were cut short or altered.
      ValueError: The dataset is not valid; says which agent and step.
      DivergedError: A member's loss is no longer finite.
    """
    recipe, folder = MODEL_BASED[name], model_folder(workdir, name)
    settings = method_settings(workdir.config, name, tuple(world.test_rows()))
    train, weights = recipe.train(dataset, settings), folder / "weights"
    if (stored := checkpoints.latest_step(weights)) is not None:
        empty = untrained(dataset, world.env, recipe, settings)
        return empty.replace(params=checkpoints.restore(weights, stored, empty.params))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        display.stage(workdir, f"fit {name}", train.num_rounds) as stage,
        monitored_training(folder, train, stage, checkpoint_seconds) as monitor,
    ):
        key = stage_key(workdir.config, "fit")
        fitted: FittedModel = find_method(name).fit(
            key, dataset, world.env, world.env_params, settings, monitor
        )
        seconds = stage.watch.seconds
        row = make_row(
            workdir.context_of(name), method=name, metric="train_seconds", value=seconds,
            wall_s=seconds, precision=train.precision,
            num_parameters=parameter_count(fitted.model),
        )  # fmt: skip
        # The weights are written last: with them the stage counts as done.
        workdir.add([row])
        stage.watch.lap()
        checkpoints.save(weights, train.num_rounds, fitted.params)
    return fitted
