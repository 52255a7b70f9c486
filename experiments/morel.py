"""The stage that fits MOReL in a run, with checkpoints between epochs and between updates."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.baselines import FOLDER, monitored
from experiments.families import method_settings
from experiments.measure import agent_fields
from experiments.progress import Display
from experiments.records import Row, make_row
from experiments.settings import stage_key
from experiments.stages import Run, World
from experiments.workdir import LOG, Workdir
from persim_jax import checkpoints
from persim_jax.methods import find_method
from persim_jax.methods.morel import POOLED, MorelPolicies, MorelSettings
from persim_jax.methods.morel_records import GOOD, MorelConfig, MorelState


def fit_morel(name: str, run: Run) -> MorelPolicies:
    """MOReL fitted to the test agents of a run, from its last checkpoint on.

    Raises:
      CorruptCheckpointError: The last checkpoint was cut short or altered.
      ValueError: The dataset is not valid.
    """
    workdir, world = run.workdir, run.world
    settings: MorelSettings = method_settings(workdir.config, name, tuple(world.test_rows()))
    config, folder = settings.config, workdir.path / FOLDER / name
    goes_on = checkpoints.latest_step(folder) is not None

    def note(state: MorelState, losses: jax.Array) -> str:
        return progress_note(config, state, losses)

    with (
        run.display.stage(workdir, f"fit {name}", config.num_steps, goes_on) as stage,
        monitored(folder, config.num_steps, stage, run.checkpoint_seconds, note) as monitor,
    ):
        key = stage_key(workdir.config, "offline")
        fitted: MorelPolicies = find_method(name).fit(
            key, run.dataset, world.env, world.env_params, settings, monitor
        )
        seconds = stage.watch.seconds
        row = make_row(
            workdir.context_of(name), method=name, metric="train_seconds", value=seconds,
            wall_s=seconds,
        )  # fmt: skip
        new = [row] if not workdir.has(name, "train_seconds") else []
        workdir.add(new + share_rows(name, workdir, world, fitted))
        lanes = len(fitted.agents)
        stage.note = (
            f"{config.num_iterations} updates of {lanes} polic{'ies' if lanes > 1 else 'y'}, "
            f"{100 * float(np.mean(fitted.unknown)):.2g} % of the data unknown"
        )
    return fitted


def progress_note(config: MorelConfig, state: MorelState, losses: jax.Array) -> str:
    """What is shown of lanes that go on, the mean over them: losses, or what is imagined."""
    good = np.asarray(state.diverged_at) == GOOD
    if not good.any():
        return "all diverged"
    step = int(state.step)
    if step <= config.train.num_epochs:
        return f"epoch {step}, loss {np.asarray(losses)[good].mean():.3g}"
    means = {name: np.asarray(value)[good].mean() for name, value in state.metrics.items()}
    return (
        f"update {step - config.train.num_epochs}, imagined return {means['return']:.4g}, "
        f"{100 * means['halted']:.0f} % of episodes into the unknown"
    )


def share_rows(name: str, workdir: Workdir, world: World, fitted: MorelPolicies) -> list[Row]:
    """Rows of what the ensembles do not know: of one for all agents, or of each agent's own.

    `unknown_data` is the share of the data above the threshold, `unknown_visited` the share of
    imagined steps, in the last updates, that led into HALT and `halted_episodes` that of episodes.
    Who diverged has none.
    """
    agents = [None] if name == POOLED else list(world.agents.test_ids)
    rows = []
    for agent_id in agents:
        about = {} if agent_id is None else agent_fields(world, agent_id)
        lane = fitted.lane_of(-1 if agent_id is None else world.agents.row_of(agent_id))
        if int(fitted.diverged_at[lane]) != GOOD:
            continue
        values = {
            "unknown_data": fitted.unknown[lane],
            "unknown_visited": fitted.metrics["unknown"][lane],
            "halted_episodes": fitted.metrics["halted"][lane],
        }
        extras: dict[str, Any] = {
            "threshold": float(fitted.thresholds[lane]),
            "imagined_return": float(fitted.metrics["return"][lane]),
        }
        rows += [
            make_row(
                workdir.context_of(name), method=name, metric=metric, value=float(value), **extras,
                **about,
            )
            for metric, value in values.items()
            if not workdir.has(name, metric, agent_id)
        ]  # fmt: skip
    return rows


def told_agents(
    name: str, workdir: Workdir, world: World, fitted: MorelPolicies, display: Display
) -> list[int]:
    """Tells of lanes that diverged or know nothing; returns the ids of agents without a policy."""
    lost, epochs = [], method_settings(workdir.config, name).config.train.num_epochs
    trial = workdir.config["trial"]
    for agent_id in world.agents.test_ids:
        row = world.agents.row_of(agent_id)
        who = f"{name} of agent {agent_id} {world.agents.covariates_of(agent_id)}"
        step, text = fitted.diverged(row), fitted.warning(row)
        if step is not None:
            lost.append(agent_id)
            member = int(fitted.diverged_member[fitted.lane_of(row)])
            what, when = f"member {member} of its ensemble", f"epoch {step}"
            if member == GOOD:
                what, when = "its policy or values", f"iteration {step - epochs}"
            text = (
                f"{what} left the finite numbers in trial {trial} at {when}: it has no return; the "
                "others go on. Lower the learning rate, or look for extreme values in the data"
            )
        if text is not None:
            LOG.error("%s: %s", who, text)
            display.say(f"{who}: {text}")
    return lost
