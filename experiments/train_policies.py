"""Trains the policies that make the data: `python -m experiments.train_policies --help`.

All training agents of an environment and, with another seed, the test policy's default agent are
trained by DQN as one vmapped program. Each stops at the first greedy evaluation, over 100 episodes
on its own agent, at or above its target; easy agents will be far above it.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.status
from absl import app, flags

import envs
from envs import covariates
from experiments.policies import dqn_config, greedy_act, save_policies
from experiments.policy_returns import (
    EPISODES,
    Lanes,
    Measured,
    covariates_by_name,
    make_rows,
    returns_by_agent,
    returns_of_everyone,
    sidecar_facts,
)
from experiments.records import append_rows
from experiments.stamps import environment_stamp
from persim_jax.learners.base import Schedule
from persim_jax.learners.dqn import make_dqn
from persim_jax.learners.online import OnlineConfig, Progress, train_online

TARGETS = {"mountain_car": (-200.0, -150.0), "cart_pole": (120.0, 150.0)}
"""Mean return at which training stops: pure policies, test policy."""
ONLINE_CONFIGS = {
    # Single random steps never leave the valley at these gravities; held ones swing the car up.
    "mountain_car": OnlineConfig(
        evaluate_every=400, capacity=100_000, hold=Schedule(1.0, 0.02, 100_000), max_hold=30
    ),
    # Policies go from 20 to 200 within a thousand steps, so they are looked at every 80.
    "cart_pole": OnlineConfig(evaluate_every=16, hold=Schedule(1.0, 0.1, 10_000)),
}
TEST_SEED_OFFSET = 1000
"""The test policy shares no random number with the pure ones."""

FLAGS = flags.FLAGS


def make_lanes(environment: str, targets: Sequence[float], seed: int) -> Lanes:
    """Returns the agents to train; two targets, of pure policies and of the test policy.

    Raises:
      ValueError: If there are not two targets.
    """
    if len(targets) != 2:
        raise ValueError(f"behavior_targets are {targets}: give two, such as -200,-150")
    table = covariates.get(environment)
    num_pure = len(table.training_agents)
    return Lanes(
        environment=environment,
        behaviors=["pure"] * num_pure + ["test"],
        covariates=np.asarray([*table.training_agents, table.default], np.float32),
        targets=np.asarray([targets[0]] * num_pure + [targets[1]], np.float32),
        seeds=[seed] * num_pure + [seed + TEST_SEED_OFFSET],
    )


def reporter(
    console: rich.console.Console, status: rich.status.Status, lanes: Lanes
) -> Callable[[Progress], None]:
    """Returns what tells a person how training goes: a moving line, and one line per agent."""
    done: set[int] = set()

    def report(progress: Progress) -> None:
        returns = " ".join(f"{value:.0f}" for value in np.asarray(progress.mean_returns))
        status.update(f"{progress.steps} steps, {progress.seconds:.0f} s, returns {returns}")
        reached = set(np.flatnonzero(progress.kept.reached).tolist())
        for lane in sorted(reached - done):
            console.print(
                f"{lanes.behaviors[lane]} {covariates_by_name(lanes, lane)}: "
                f"{progress.kept.mean_return[lane]:.1f} (target {lanes.targets[lane]:g}) "
                f"after {progress.steps} steps, {progress.seconds:.0f} s",
                soft_wrap=True,
            )
        done.update(reached)

    return report


def train_and_measure(
    lanes: Lanes, config: OnlineConfig, console: rich.console.Console
) -> Measured:
    """Trains all lanes, then plays fresh episodes on their own agents and on all 500."""
    env, act = envs.make(lanes.environment), greedy_act(lanes.environment)
    learner = make_dqn(env.spec, dqn_config(lanes.environment))
    env_params = jax.vmap(env.params)(jnp.asarray(lanes.covariates))
    roots = [jax.random.fold_in(jax.random.key(seed), i) for i, seed in enumerate(lanes.seeds)]
    train_keys, own_keys, everyone_keys = jax.vmap(jax.random.split, (0, None), 1)(
        jnp.stack(roots), 3
    )
    begin = time.monotonic()
    with console.status(f"training {len(roots)} policies of {lanes.environment}") as status:
        report = reporter(console, status, lanes)
        targets = jnp.asarray(lanes.targets)
        kept = train_online(env, learner, config, train_keys, env_params, targets, report)
    train_seconds = time.monotonic() - begin
    params = kept.learner.params
    own = returns_by_agent(own_keys[0], env, act, params, env_params, EPISODES)
    everyone = returns_of_everyone(everyone_keys[0], lanes, params)
    return Measured(kept, np.asarray(own), everyone, train_seconds)


def run(
    lanes: Lanes, config: OnlineConfig, out: pathlib.Path, rows_path: pathlib.Path
) -> pathlib.Path:
    """Trains, measures and writes the policies of one environment.

    Args:
      lanes: What to train, from `make_lanes`.
      config: Of the training loop.
      out: Folder of the policies and their sidecar.
      rows_path: JSON lines file to which the measured returns are added.

    Returns:
      The path of the sidecar.
    """
    begin, console, stamp = time.monotonic(), rich.console.Console(), environment_stamp()
    measured = train_and_measure(lanes, config, console)
    params = measured.kept.learner.params
    path = save_policies(
        out,
        lanes.environment,
        pure=jax.tree.map(lambda leaf: leaf[:-1], params),
        pure_covariates=jnp.asarray(lanes.covariates[:-1]),
        test=jax.tree.map(lambda leaf: leaf[-1], params),
        facts=sidecar_facts(lanes, config, measured, stamp),
    )
    append_rows(rows_path, list(make_rows(lanes, config, measured, stamp)))
    for lane in np.flatnonzero(~np.asarray(measured.kept.reached)).tolist():
        console.print(
            f"{lanes.behaviors[lane]} {covariates_by_name(lanes, lane)} never reached "
            f"{lanes.targets[lane]:g}: its best policy, {measured.kept.mean_return[lane]:.1f}, "
            "was kept; raise the budget in ONLINE_CONFIGS or try another seed",
            soft_wrap=True,
        )
    console.print(
        f"wrote {path} and {rows_path} after {time.monotonic() - begin:.0f} s", soft_wrap=True
    )
    return path


def main(argv: Sequence[str]) -> None:
    """Parses the flags."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    environment, out = FLAGS.environment, pathlib.Path(FLAGS.out)
    try:
        targets = [float(target) for target in FLAGS.behavior_targets or TARGETS[environment]]
        lanes = make_lanes(environment, targets, FLAGS.seed)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    rows = pathlib.Path(FLAGS.rows) if FLAGS.rows else out / f"{environment}.jsonl"
    run(lanes, ONLINE_CONFIGS[environment], out, rows)


if __name__ == "__main__":
    # Here, not above: other launchers have flags of the same names.
    flags.DEFINE_enum(
        "environment", None, sorted(TARGETS), "Whose policies to train.", required=True
    )
    flags.DEFINE_list(
        "behavior_targets",
        None,
        "Mean returns at which training stops, of pure policies and of the test policy, such as "
        "-200,-150; the protocol's by default.",
    )
    flags.DEFINE_string("out", "runs/policies", "Folder for ENVIRONMENT.npz and its sidecar.")
    flags.DEFINE_string(
        "rows", None, "File for the measured returns; ENVIRONMENT.jsonl in --out by default."
    )
    flags.DEFINE_integer("seed", 0, "Of the pure policies; the test policy's is another.")
    app.run(main)
