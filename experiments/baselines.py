"""The stage that fits the offline baselines of a run, with checkpoints, lane by lane."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.baseline_settings import offline_settings
from experiments.policies import greedy_act
from experiments.progress import Display, Stage
from experiments.records import make_row
from experiments.settings import stage_key
from experiments.stages import Run, World, make_simulators
from experiments.workdir import LOG, Workdir
from persim_jax import checkpoints
from persim_jax.collect import BEHAVIORS
from persim_jax.learners.offline import OfflineState
from persim_jax.methods import Monitor, find_method, parse_name
from persim_jax.methods.offline import OfflinePolicies
from persim_jax.synthetic import synthetic_trajectories
from persim_jax.types import Trajectory

FOLDER = "offline"


def fit_baseline(name: str, run: Run) -> OfflinePolicies:
    """An offline baseline fitted to the test agents of a run, from its last checkpoint on.

    Raises:
      CorruptCheckpointError: The last checkpoint was cut short or altered.
      ValueError: The dataset has no rewards or is not valid.
    """
    workdir, world, display = run.workdir, run.world, run.display
    settings = offline_settings(workdir.config, name)._replace(agents=tuple(world.test_rows()))
    about = parse_name(name)
    if about is not None and about.num_synthetic:
        simulators = make_simulators(*run)
        with display.stage(workdir, f"synthetic {name}") as stage:
            agents = world.test_rows()
            found = synthetic_of(workdir, world, simulators, about.num_synthetic, agents)
            stage.note = f"{int(found.mask.sum())} steps of {len(settings.agents)} agents"
        settings = settings._replace(synthetic=found)
    folder, total = workdir.path / FOLDER / name, settings.train.num_steps
    goes_on = checkpoints.latest_step(folder) is not None
    with (
        display.stage(workdir, f"fit {name}", total, goes_on) as stage,
        monitored(folder, total, stage, run.checkpoint_seconds) as monitor,
    ):
        key = stage_key(workdir.config, "offline")
        method = find_method(name)
        fitted: OfflinePolicies = method.fit(
            key, run.dataset, world.env, world.env_params, settings, monitor
        )
        seconds, lanes = stage.watch.seconds, len(fitted.agents)
        context = workdir.context_of(name)
        rows = {"train_seconds": seconds, "gradient_steps_per_second": lanes * total / seconds}
        workdir.add(
            [
                make_row(context, method=name, metric=metric, value=value, wall_s=seconds)
                for metric, value in rows.items()
                if not workdir.has(name, metric)
            ]
        )
        stage.note = f"{total} gradient steps of {lanes} learner{'s' * (lanes > 1)}"
    return fitted


def synthetic_of(
    workdir: Workdir, world: World, simulators: Any, count: int, agents: Sequence[int]
) -> Trajectory:
    """Synthetic trajectories of agents in rows `[L]`, leaves `[L, count, ...]`, on the host."""
    config = workdir.config
    found = synthetic_trajectories(
        stage_key(config, "synthetic"), simulators.model, simulators.params, world.env,
        world.env_params, greedy_act(config["environment"]), world.pure_params,
        BEHAVIORS[config["behavior"]], jnp.asarray(agents, jnp.int32), count,
    )  # fmt: skip
    host: Trajectory = jax.tree.map(np.asarray, found)
    return host


def lost_agents(
    name: str, workdir: Workdir, world: World, fitted: OfflinePolicies, display: Display
) -> list[int]:
    """Ids of the test agents whose learner diverged, each told by learner, trial and reason."""
    lost = []
    for agent_id in world.agents.test_ids:
        row = world.agents.row_of(agent_id)
        step = fitted.diverged(row)
        if step is not None:
            lost.append(agent_id)
            who = f"{name} of agent {agent_id} {world.agents.covariates_of(agent_id)}"
            trial = workdir.config["trial"]
            text = (
                f"{who} diverged in trial {trial} at gradient step {step}: it has no return; the "
                "others go on. Lower its learning rate, or raise baselines.train.max_value"
            )
            if fitted.spoiled(row):
                text = (
                    f"{who} has nothing to learn from in trial {trial}: its simulator left the "
                    "finite numbers in a synthetic trajectory. It has no return; the others go on. "
                    "Train simulators that stay finite for a whole episode"
                )
            LOG.error(text)
            display.say(text)
    return lost


@contextlib.contextmanager
def monitored(
    folder: Path,
    total: int,
    stage: Stage,
    checkpoint_seconds: float,
    note: Callable[[Any, jax.Array], str] | None = None,
) -> Iterator[Monitor]:
    """A monitor that restores from checkpoints and writes one now and then, and at the end.

    Args:
      folder: Of the checkpoints.
      total: Gradient steps of the training.
      stage: What shows and times it.
      checkpoint_seconds: Least time between two checkpoints.
      note: `(state, losses) -> text` to show; by default step and mean loss.
    """
    saved = time.perf_counter()

    def restore(state: OfflineState) -> OfflineState:
        step = checkpoints.latest_step(folder)
        if step is not None:
            state = checkpoints.restore(folder, step, state)
            LOG.info("%s goes on from gradient step %d", folder.name, step)
        return state

    def on_chunk(state: OfflineState, losses: jax.Array) -> None:
        nonlocal saved
        step = int(state.step)
        # The lanes whose training goes on.
        good = np.asarray(losses, np.float64)[np.asarray(state.diverged_at) < 0]
        text = f"{good.mean():.3g}" if good.size else "none"
        stage.step(step, note(state, losses) if note else f"step {step}, loss {text}")
        if step == total or not good.size or time.perf_counter() - saved >= checkpoint_seconds:
            checkpoints.save(folder, step, state)
            stage.watch.lap()
            saved = time.perf_counter()

    yield Monitor(restore, on_chunk)
