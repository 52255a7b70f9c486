"""The stage that fits a model-based method of a run, with checkpoints."""

from __future__ import annotations

from pathlib import Path

from experiments.families import method_settings
from experiments.progress import monitored_training
from experiments.records import make_row
from experiments.settings import stage_key
from experiments.stages import Run
from experiments.workdir import Workdir
from persim_jax import checkpoints
from persim_jax.methods import MODEL_BASED, find_method
from persim_jax.methods.model_based import FittedModel, parameter_count, untrained

FOLDER = "models"


def model_folder(workdir: Workdir, name: str) -> Path:
    """Where the weights, checkpoints and curves of a method lie."""
    return workdir.path / FOLDER / name


def fit_model(name: str, run: Run) -> FittedModel:
    """The model of a method, from its folder or trained now, from the last checkpoint on.

    Raises:
      CorruptCheckpointError: Weights or the last checkpoint were cut short or altered.
      ValueError: The dataset is not valid; says which agent and step.
      DivergedError: A member's loss is no longer finite.
    """
    workdir, world, dataset = run.workdir, run.world, run.dataset
    recipe, folder = MODEL_BASED[name], model_folder(workdir, name)
    settings = method_settings(workdir.config, name, tuple(world.test_rows()))
    train, weights = recipe.train(dataset, settings), folder / "weights"
    if (stored := checkpoints.latest_step(weights)) is not None:
        empty = untrained(dataset, world.env, recipe, settings)
        return empty.replace(params=checkpoints.restore(weights, stored, empty.params))
    folder.mkdir(parents=True, exist_ok=True)
    with (
        run.display.stage(workdir, f"fit {name}", train.num_rounds) as stage,
        monitored_training(folder, train, stage, run.checkpoint_seconds) as monitor,
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
