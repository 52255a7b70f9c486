"""Trains the policies that make the data: `python -m experiments.train_policies --help`.

All training agents of an environment and, with another seed, the test policy's default agent are
trained as one program, by DQN or TD3. Each stops at the first greedy evaluation, over 100 episodes
on its own agent, at or above its target; easy agents will be far above it. A training that was
killed goes on with the same command.
"""

from __future__ import annotations

import logging
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.status
from absl import app, flags

from experiments.errors import one_line_each
from experiments.policies import algorithm, greedy_act, policy_config, save_policies
from experiments.policy_checkpoints import PolicyCheckpoints
from experiments.policy_recipes import RECIPES, Recipe, make_lanes, settings_of
from experiments.policy_returns import (
    EPISODES,
    Lanes,
    Measured,
    covariates_by_name,
    make_env,
    make_rows,
    returns_by_agent,
    returns_of_everyone,
    sidecar_facts,
)
from experiments.records import append_rows
from experiments.stamps import environment_stamp
from persim_jax.learners.online import Kept, OnlineConfig, Progress, train_online
from persim_jax.types import Params

CHECKPOINT_SECONDS = 300.0
LINE_SECONDS = 5.0
"""Least time between two lines of progress where there is no terminal."""

FLAGS = flags.FLAGS


def reporter(
    console: rich.console.Console,
    status: rich.status.Status,
    lanes: Lanes,
    seconds: Callable[[], float],
) -> Callable[[Progress], None]:
    """Returns what tells a person how training goes: each evaluation, and each agent that is done.

    Args:
      console: Where to. On a terminal evaluations are a moving line, else a line each, where they
        do not come by the second.
      status: The moving line.
      lanes: What is trained.
      seconds: Time that training took so far.
    """
    done: set[int] = set()
    said = -LINE_SECONDS

    def report(progress: Progress) -> None:
        nonlocal said
        now = seconds()
        returns = " ".join(f"{value:.0f}" for value in np.asarray(progress.mean_returns))
        line = f"{progress.steps} steps, {now:.0f} s, returns {returns}"
        status.update(line)
        if not console.is_terminal and now - said >= LINE_SECONDS:
            console.print(line, soft_wrap=True, highlight=False)
            said = now
        reached = set(np.flatnonzero(progress.kept.reached).tolist())
        for lane in sorted(reached - done):
            console.print(
                f"{lanes.behaviors[lane]} {covariates_by_name(lanes, lane)}: "
                f"{progress.kept.mean_return[lane]:.1f} (target {lanes.targets[lane]:g}) "
                f"after {progress.kept.steps[lane]} steps, {now:.0f} s",
                soft_wrap=True,
            )
        done.update(reached)

    return report


def train(
    lanes: Lanes,
    online: OnlineConfig,
    keys: jax.Array,
    checkpoints: PolicyCheckpoints,
    console: rich.console.Console,
) -> Kept:
    """Trains all lanes, from the newest checkpoint if there is one.

    Raises:
      FloatingPointError: Training diverged; says where the last good checkpoint is.
      CorruptCheckpointError: The newest checkpoint was cut short or altered.
    """
    env, table = make_env(lanes), jnp.asarray(lanes.covariates)
    learner = algorithm(lanes.environment).make(env.spec, policy_config(lanes.environment))
    step, folder = checkpoints.step, checkpoints.folder
    begin = "checkpoints go to" if step is None else f"training goes on from step {step} of"
    console.print(f"{begin} {folder}; a killed run goes on with the same command", soft_wrap=True)
    with console.status(f"training {len(table)} policies of {lanes.environment}") as status:
        try:
            return train_online(
                env,
                learner,
                online,
                keys,
                jax.vmap(env.params)(table),
                jnp.asarray(lanes.targets),
                reporter(console, status, lanes, lambda: checkpoints.seconds),
                checkpoints.restore,
                checkpoints.save,
            )
        except FloatingPointError as error:
            last = f"step {checkpoints.step} in {folder}" if checkpoints.step else "none yet"
            raise FloatingPointError(f"{error}. The last good checkpoint: {last}") from error


def train_and_measure(
    lanes: Lanes, recipe: Recipe, checkpoints: PolicyCheckpoints, console: rich.console.Console
) -> Measured:
    """Trains all lanes, then plays fresh episodes on their own agents and on all 500."""
    env, act = make_env(lanes), greedy_act(lanes.environment)
    roots = [jax.random.fold_in(jax.random.key(seed), i) for i, seed in enumerate(lanes.seeds)]
    train_keys, own_keys, everyone_keys = jax.vmap(jax.random.split, (0, None), 1)(
        jnp.stack(roots), 3
    )
    kept = train(lanes, recipe.online, train_keys, checkpoints, console)
    train_seconds = checkpoints.seconds
    env_params = jax.vmap(env.params)(jnp.asarray(lanes.covariates))
    params: Params = kept.learner.params
    with console.status("measuring returns"):
        own = returns_by_agent(own_keys[0], env, act, params, env_params, EPISODES, recipe.chunk)
        everyone = returns_of_everyone(
            everyone_keys[0], lanes, params, recipe.episodes, recipe.chunk
        )
    return Measured(kept, np.asarray(own), everyone, train_seconds)


def run(
    lanes: Lanes,
    recipe: Recipe,
    out: pathlib.Path,
    rows_path: pathlib.Path,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> pathlib.Path:
    """Trains, measures and writes the policies of one environment.

    Args:
      lanes: What to train, from `make_lanes`.
      recipe: How.
      out: Folder of the policies, their sidecar and, until all agents reached their targets, the
        checkpoints of training.
      rows_path: JSON lines file to which the measured returns are added.
      checkpoint_seconds: Least time between two checkpoints; 0 makes one at each evaluation.

    Returns:
      The path of the sidecar.

    Raises:
      ValueError: `out` has checkpoints of another training.
      CorruptCheckpointError: The newest one was cut short or altered.
      FloatingPointError: Training diverged.
    """
    console, stamp = rich.console.Console(), environment_stamp()
    checkpoints = PolicyCheckpoints(
        out / f"{lanes.environment}_checkpoints",
        settings_of(lanes, recipe.online),
        recipe.online.budget,
        checkpoint_seconds,
    )
    measured = train_and_measure(lanes, recipe, checkpoints, console)
    params = measured.kept.learner.params
    path = save_policies(
        out,
        lanes.environment,
        pure=jax.tree.map(lambda leaf: leaf[:-1], params),
        pure_covariates=jnp.asarray(lanes.covariates[:-1]),
        test=jax.tree.map(lambda leaf: leaf[-1], params),
        facts=sidecar_facts(lanes, recipe.online, measured, stamp),
        backend=lanes.backend,
    )
    append_rows(rows_path, list(make_rows(lanes, recipe.online, measured, stamp)))
    missed = np.flatnonzero(~np.asarray(measured.kept.reached)).tolist()
    for lane in missed:
        console.print(
            f"{lanes.behaviors[lane]} {covariates_by_name(lanes, lane)} never reached "
            f"{lanes.targets[lane]:g}: its best policy, {measured.kept.mean_return[lane]:.1f}, "
            f"was kept; raise the budget in RECIPES to go on from {checkpoints.folder}, or try "
            "another seed",
            soft_wrap=True,
        )
    if not missed:
        checkpoints.delete()
    console.print(f"wrote {path} and {rows_path} after {checkpoints.seconds:.0f} s", soft_wrap=True)
    return path


def main(argv: Sequence[str]) -> None:
    """Trains as the flags say."""
    # That there is no TPU is no news.
    logging.getLogger("jax").setLevel(logging.WARNING)
    with one_line_each():
        if len(argv) > 1:
            raise ValueError(f"unknown arguments: {' '.join(argv[1:])}")
        environment, out = FLAGS.environment, pathlib.Path(FLAGS.out)
        recipe = RECIPES[environment]
        targets = _targets(FLAGS.behavior_targets) or recipe.targets
        lanes = make_lanes(environment, targets, FLAGS.seed, FLAGS.backend)
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file: --out is a folder, made if missing")
        rows = pathlib.Path(FLAGS.rows) if FLAGS.rows else out / f"{environment}.jsonl"
        # Found out before the hours that training takes.
        if rows.is_dir():
            raise ValueError(
                f"{rows} is a folder: --rows is a file of rows, such as {rows}/a.jsonl"
            )
        run(lanes, recipe, out, rows, FLAGS.checkpoint_seconds)


def _targets(texts: Sequence[str] | None) -> list[float]:
    """The mean returns at which training stops, as the flag has them."""
    try:
        found = [float(text) for text in texts or ()]
    except ValueError:
        found = [math.nan]
    # No return is ever at or above NaN: training would only end with its budget.
    if any(map(math.isnan, found)):
        given = ",".join(texts or ())
        raise ValueError(f"--behavior_targets={given} are no numbers: give two, such as -200,-150")
    return found


if __name__ == "__main__":
    # Here, not above: other launchers have flags of the same names.
    flags.DEFINE_enum(
        "environment", None, sorted(RECIPES), "Whose policies to train.", required=True
    )
    flags.DEFINE_list(
        "behavior_targets",
        None,
        "Mean returns at which training stops, of pure policies and of the test policy, such as "
        "-200,-150; the protocol's by default.",
    )
    flags.DEFINE_string(
        "out",
        "runs/policies",
        "Folder for ENVIRONMENT.npz, its sidecar and, while training, ENVIRONMENT_checkpoints.",
    )
    flags.DEFINE_string(
        "rows", None, "File for the measured returns; ENVIRONMENT.jsonl in --out by default."
    )
    flags.DEFINE_integer("seed", 0, "Of the pure policies; the test policy's is another.")
    flags.DEFINE_string(
        "backend", "auto", "What steps HalfCheetah: mujoco, mjx, generalized, or what suits here."
    )
    flags.DEFINE_float(
        "checkpoint_seconds",
        CHECKPOINT_SECONDS,
        "Least time between two checkpoints of training; 0 writes one at each evaluation.",
        lower_bound=0.0,
    )
    app.run(main)
