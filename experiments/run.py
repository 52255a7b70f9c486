"""The main job: one environment, one behavior, from covariates to a report.

    python -m experiments.run --config=configs/mountain_car.py --workdir=runs/mountain_car
    python -m experiments.run --config=configs/cart_pole.py:smoke --workdir=/tmp/smoke \
        --config.behavior=pure_eps20 --config.trial=1

Started again on the same workdir it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from experiments import settings
from experiments.arrays import write_arrays
from experiments.measure import measure_prediction, measure_returns
from experiments.report import build_report
from experiments.stages import fit_method, make_dataset, make_world
from experiments.workdir import LOG, Workdir
from persim_jax.methods import METHODS
from persim_jax.methods.persim import PERSIM
from persim_jax.methods.true_env import TRUE_ENV

FLAGS = flags.FLAGS
DEFAULT_METHODS = (PERSIM.name, TRUE_ENV.name)


def run(
    config: Mapping[str, Any],
    workdir: str | Path,
    methods: tuple[str, ...] = DEFAULT_METHODS,
    console: Console | None = None,
) -> Path:
    """Runs every stage that is not done yet.

    Args:
      config: As `configs/base.py` makes it, as a plain dict.
      workdir: Made if missing.
      methods: Names in `METHODS`.
      console: Where progress is shown.

    Returns:
      Path of the report.

    Raises:
      ValueError: The config is wrong, or the workdir was made with another one.
    """
    console = console or Console()
    settings.check(config, methods)
    jax.config.update("jax_default_matmul_precision", config["matmul_precision"])
    where = Workdir(workdir, config)
    world = make_world(where.config)
    dataset = make_dataset(where, world)
    console.print(
        f"{config['environment']}, {config['behavior']}: {dataset.num_agents} agents, "
        f"{int(dataset.lengths.sum())} steps",
        highlight=False,
    )
    for name in methods:
        method = METHODS[name]
        fitted = fit_method(name, where, world, dataset, console)
        # The truth predicts itself: True env has no place in the prediction test.
        if method is not TRUE_ENV:
            measure_prediction(where, world, method, fitted)
        measure_returns(where, world, method, fitted, console)
        if method is PERSIM:
            write_arrays(where, world, fitted)
    with where.timed("report"):
        report = build_report(where.path)
    LOG.info("report: %s", report)
    return report


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    console = Console()
    methods = tuple(FLAGS.methods)
    try:
        report = run(FLAGS.config.to_dict(), FLAGS.workdir, methods, console)
    except ValueError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False)
        raise SystemExit(1) from error
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "configs/ENV.py[:variant]", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
    flags.DEFINE_list("methods", list(DEFAULT_METHODS), f"Some of {', '.join(METHODS)}.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
