"""The numbers of Table 1, as rows, and the episodes that all measurements share."""

from __future__ import annotations

import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.policies import greedy_act
from experiments.progress import Display
from experiments.records import Row, make_row
from experiments.settings import stage_key
from experiments.stages import World
from experiments.workdir import Workdir
from persim_jax.collect import initial_obs
from persim_jax.evaluation import prediction
from persim_jax.methods.base import Method
from persim_jax.types import PyTree


def agent_fields(world: World, agent_id: int) -> dict[str, Any]:
    """What rows say of an agent."""
    return {
        "agent_id": int(agent_id),
        "covariates": world.agents.covariates_of(agent_id),
        "paper_label": world.agents.paper_labels.get(agent_id),
    }


def episode_obs(workdir: Workdir, world: World, agent_id: int, count: int) -> jax.Array:
    """Initial observations `[E, D]` of an agent's evaluation episodes.

    They depend on seed, trial, agent and episode only, so every method meets the same ones, and
    more episodes begin with the fewer.
    """
    key = jax.random.fold_in(stage_key(workdir.config, "episodes"), agent_id)
    row = world.agents.row_of(agent_id)
    params = jax.tree.map(lambda leaf: jnp.repeat(leaf[row][None], count, axis=0), world.env_params)
    return initial_obs(key, world.env, params, jnp.arange(count))


def open_loop_paths(
    workdir: Workdir, world: World, method: Method, fitted: PyTree, agent_id: int
) -> prediction.OpenLoop:
    """The protocol's open-loop predictions for one agent, beside the truth."""
    settings = workdir.config["prediction"]
    assert method.model is not None
    model, params = method.model(fitted)
    row = world.agents.row_of(agent_id)
    key = jax.random.fold_in(stage_key(workdir.config, "prediction"), agent_id)
    key_true, key_model = jax.random.split(key)
    episodes = prediction.true_episodes(
        key_true,
        world.env,
        jax.tree.map(lambda leaf: leaf[row], world.env_params),
        greedy_act(world.env.spec.name),
        world.policies.test,
        episode_obs(workdir, world, agent_id, settings["num_episodes"]),
        settings["warm_up"] + settings["num_steps"],
    )
    return prediction.open_loop(
        key_model, model, params, jnp.asarray(row), episodes, settings["warm_up"],
        settings["combine"],
    )  # fmt: skip


def measure_prediction(
    workdir: Workdir, world: World, method: Method, fitted: PyTree, display: Display
) -> None:
    """Runs the prediction test of every test agent that has none yet and adds its rows."""
    todo = [a for a in world.agents.test_ids if not workdir.has(method.name, "rmse_mean", a)]
    if not todo or method.model is None:
        return
    done = len(world.agents.test_ids) - len(todo)
    name = f"prediction {method.name}"
    with display.stage(workdir, name, done + len(todo), goes_on=done > 0) as stage:
        for agent_id in todo:
            start = time.perf_counter()
            paths = open_loop_paths(workdir, world, method, fitted, agent_id)
            rmse, r2 = episode_scores(paths)
            seconds = time.perf_counter() - start
            workdir.add(_prediction_rows(workdir, world, method.name, agent_id, rmse, r2, seconds))
            stage.watch.lap()
            done += 1
            stage.step(done, f"{done} agents, {len(rmse)} episodes each")


def episode_scores(paths: prediction.OpenLoop) -> tuple[np.ndarray, np.ndarray]:
    """RMSE and R^2 of each episode `[E]`; NaN for those, and only those, too short for a score.

    Where a model leaves the finite numbers the error is infinite, or else it would pass for an
    episode without a score.
    """
    scores = prediction.score(paths)
    rmse, r2 = np.asarray(scores.rmse, np.float64), np.asarray(scores.r2, np.float64)
    lost = (np.asarray(paths.mask).sum(axis=1) >= 2) & ~np.isfinite(rmse)
    return np.where(lost, np.inf, rmse), np.where(lost, -np.inf, r2)


def _prediction_rows(
    workdir: Workdir,
    world: World,
    name: str,
    agent_id: int,
    rmse: np.ndarray,
    r2: np.ndarray,
    seconds: float,
) -> list[Row]:
    # Two kinds of values are null in a row: an infinite one, and that of an agent all of whose
    # episodes are left out, which has no score. `episodes_diverged` tells them apart.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        values = {
            "rmse_mean": np.nanmean(rmse),
            "rmse_std": np.nanstd(rmse),
            "r2_median": np.nanmedian(r2),
            "r2_mean": np.nanmean(r2),
            "episodes_left_out": np.isnan(rmse).sum(),
        }
    num_diverged = int(np.isinf(rmse).sum())
    per_episode: dict[str, Any] = {
        "rmse_mean": {"episode_values": rmse, "episodes_diverged": num_diverged},
        "r2_median": {"episode_values": r2, "episodes_diverged": num_diverged},
    }
    return [
        make_row(
            workdir.context_of(name),
            method=name,
            metric=metric,
            value=float(value),
            num_episodes=len(rmse),
            wall_s=seconds,
            **agent_fields(world, agent_id),
            **per_episode.get(metric, {}),
        )
        for metric, value in values.items()
    ]
