"""What settings are worth on the validation agents: how an idea is tried before it is a default.

    python -m experiments.try_settings --config=configs/half_cheetah.py --workdir=runs/no_skip \
        --config.model.skip=False
    python -m experiments.try_settings --config=configs/half_cheetah.py --workdir=runs/paper_like \
        --config.model.layer_norm=False --config.model.target=delta --decisions=0
    python -m experiments.try_settings --config=configs/cart_pole.py --workdir=runs/wide_cadm \
        --method=cadm_pets --config.baselines.cadm.network.features="(128, 128)" --decisions=0

Collects and trains as `experiments.run` does (a workdir of a run with the same config goes on),
then predicts and plans for the validation agents, never for the test agents. Planning stops after
`--decisions` steps, so that an idea costs minutes; returns of so few steps compare settings and
nothing else.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from experiments import families, run, settings
from experiments.errors import one_line_each
from experiments.measure import agent_fields, episode_obs, episode_scores, open_loop_paths
from experiments.model_methods import fit_model
from experiments.progress import Display
from experiments.records import Row, make_row, value_text
from experiments.stages import Run, World, make_dataset, make_simulators, make_world
from experiments.workdir import Workdir, opened
from persim_jax.evaluation.returns import evaluate_returns
from persim_jax.methods import MODEL_BASED, find_method
from persim_jax.methods.base import Method
from persim_jax.methods.persim import PERSIM
from persim_jax.types import PyTree

FLAGS = flags.FLAGS
DECISIONS = 80
METRICS = ("validation_rmse_mean", "validation_r2_median", "validation_return_mean")


class Tried(NamedTuple):
    """A method and what it has learned."""

    method: Method
    fitted: PyTree


def try_settings(
    config: Mapping[str, Any],
    workdir: str | Path,
    decisions: int = DECISIONS,
    console: Console | None = None,
    method: str = PERSIM.name,
) -> list[Row]:
    """Measures a config on the validation agents.

    Args:
      config: As `configs/base.py` makes it, as a plain dict.
      workdir: Made if missing.
      decisions: Planned steps from the start of one episode of each agent; 0 plans nothing.
      console: Where progress is shown.
      method: One that learns a model: PerSim, or one in `MODEL_BASED`.

    Returns:
      The rows of the three metrics, those measured before among them.

    Raises:
      ValueError: The config or the number of decisions is wrong, or the method learns no model.
    """
    if method not in (PERSIM.name, *MODEL_BASED):
        known = ", ".join((PERSIM.name, *MODEL_BASED))
        raise ValueError(f"method {method!r} learns no model: use one of {known}")
    if decisions < 0:
        raise ValueError(f"decisions is {decisions}: it must not be negative; 0 plans nothing")
    settings.check(config, (method,))
    families.check(config, (method,))
    with (
        jax.default_matmul_precision(config["matmul_precision"]),
        Display(console or Console()) as display,
    ):
        world = make_world(config)
        with opened(workdir, config) as where:
            given = Run(where, world, make_dataset(where, world, display), display)
            persim = method == PERSIM.name
            fitted = make_simulators(*given) if persim else fit_model(method, given)
            found = Tried(find_method(method), fitted)
            ids = world.agents.validation_ids
            with display.stage(where, "validation agents", len(ids)) as stage:
                for done, agent_id in enumerate(ids, 1):
                    if not where.has(method, "validation_rmse_mean", agent_id):
                        where.add(_prediction_rows(where, world, found, agent_id))
                    if decisions and not _planned(where, method, agent_id, decisions):
                        where.add([_return_row(where, world, found, agent_id, decisions)])
                    stage.step(done, f"{done} agents")
            return [row for metric in METRICS for row in where.rows_of(method, metric)]


def _planned(where: Workdir, method: str, agent_id: int, decisions: int) -> bool:
    rows = where.rows_of(method, "validation_return_mean")
    return any((r["agent_id"], r["num_decisions"]) == (agent_id, decisions) for r in rows)


def _prediction_rows(where: Workdir, world: World, found: Tried, agent_id: int) -> list[Row]:
    start = time.perf_counter()
    rmse, r2 = episode_scores(open_loop_paths(where, world, found.method, found.fitted, agent_id))
    shared = {
        "method": found.method.name,
        "num_episodes": len(rmse),
        "wall_s": time.perf_counter() - start,
        **agent_fields(world, agent_id),
    }
    context = where.context_of(found.method.name)
    return [
        make_row(context, metric="validation_rmse_mean", value=np.nanmean(rmse), **shared),
        make_row(context, metric="validation_r2_median", value=np.nanmedian(r2), **shared),
    ]


def _return_row(where: Workdir, world: World, found: Tried, agent_id: int, decisions: int) -> Row:
    spec = dataclasses.replace(world.env.spec, max_steps=decisions)
    agent = jnp.asarray([world.agents.row_of(agent_id)], jnp.int32)
    start = time.perf_counter()
    returns, steps = evaluate_returns(
        settings.stage_key(where.config, "planning"), world.env._replace(spec=spec),
        world.env_params, found.method.policy, found.fitted,
        settings.planner_config(where.config), agent, episode_obs(where, world, agent_id, 1),
    )  # fmt: skip
    name = found.method.name
    return make_row(
        where.context_of(name), method=name, metric="validation_return_mean",
        value=float(returns[0]), num_episodes=1, num_decisions=decisions, num_steps=int(steps[0]),
        wall_s=time.perf_counter() - start, **agent_fields(world, agent_id),
    )  # fmt: skip


def summary(rows: Sequence[Row]) -> Table:
    """A line for each validation agent."""
    table = Table("agent", "RMSE", "median R²", "planned return", title="Validation agents")
    for agent_id in dict.fromkeys(row["agent_id"] for row in rows):
        own = {row["metric"]: row for row in rows if row["agent_id"] == agent_id}
        about = own[METRICS[0]]["covariates"]
        planned = own.get("validation_return_mean")
        table.add_row(
            ", ".join(f"{name} {value:.3g}" for name, value in about.items()),
            value_text(own["validation_rmse_mean"], ".3g"),
            value_text(own["validation_r2_median"], ".3f"),
            f"{value_text(planned, '.1f')} in {planned['num_steps']} steps" if planned else "-",
        )
    return table


def main(argv: Sequence[str]) -> None:
    """Tries the settings as the flags have them."""
    del argv
    run.set_up_jax(deterministic=True, compile_cache=None)
    console = Console()
    with one_line_each():
        rows = try_settings(
            FLAGS.config.to_dict(), FLAGS.workdir, FLAGS.decisions, console, FLAGS.method
        )
    console.print(summary(rows))


def _define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", None, "configs/ENV.py[:variant]; --config.FIELD=VALUE is the idea.",
        lock_config=True,
    )  # fmt: skip
    flags.DEFINE_string("workdir", None, "Folder of this idea, made if missing.")
    flags.DEFINE_string("method", PERSIM.name, f"{PERSIM.name}, {', '.join(MODEL_BASED)}.")
    flags.DEFINE_integer("decisions", DECISIONS, "Planned steps of each agent; 0 plans nothing.")
    flags.mark_flags_as_required(["config", "workdir"])


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=run.parse_flags)
