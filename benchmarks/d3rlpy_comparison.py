"""Discrete BCQ and CQL here and in d3rlpy: the same data, settings and number of gradient steps.

d3rlpy is no dependency; give it an environment of its own, then run from the repository's root:

    python3.11 -m venv scratch && scratch/bin/pip install d3rlpy==2.8.1 torch
    python -m benchmarks.d3rlpy_comparison --d3rlpy_python=scratch/bin/python \
        --workdir=runs/d3rlpy --out=benchmarks/d3rlpy.jsonl

Both learn one policy from the trajectories of all 500 agents, five times from different seeds, and
play the same beginnings of episodes of the five test agents. Speed is that of a row of five
learners: ours trains them as one program, d3rlpy one after the other. Both have one thread, where
seconds are those of the CPU, so that the ratio is the same on a busy machine.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from rich.console import Console

from configs import cart_pole, mountain_car
from experiments.progress import Display
from experiments.records import RowContext, append_rows, make_row, read_rows
from experiments.settings import stage_key
from experiments.stages import World, make_dataset, make_world
from experiments.sweeping.devices import find_cores
from experiments.workdir import opened
from persim_jax.collect import initial_obs
from persim_jax.data.dataset import OfflineDataset
from persim_jax.evaluation.returns import evaluate_returns
from persim_jax.learners.offline import Lanes, OfflineConfig, train_offline
from persim_jax.methods.offline import CONFIGS, OfflinePolicies, make_learner, offline_method
from persim_jax.normalizer import identity

FLAGS = flags.FLAGS
SIDE = pathlib.Path(__file__).with_name("d3rlpy_side.py")
CORES = frozenset(find_cores())
SEEDS = 5
SETTINGS: dict[str, Any] = {
    "hidden": (256, 256),
    "learning_rate": 3e-4,
    "discount": 0.99,
    "batch_size": 32,
    # d3rlpy copies the target whole; ours can do the same.
    "target_every": 100,
    "weight": 1.0,
    "threshold": 0.3,
    "logit_penalty": 0.5,
}
OWN_FIELDS = {"cql": ("weight",), "bcq": ("threshold", "logit_penalty")}


def main(argv: Sequence[str]) -> None:
    """Runs both sides of every pair of environment and learner that has no rows yet."""
    del argv
    # Before jax makes its first array and counts the cores that it may use.
    run_on({max(CORES)})
    out = pathlib.Path(FLAGS.out)
    done = {(r["environment"], r["method"]) for r in (read_rows(out) if out.exists() else [])}
    for module in (mountain_car, cart_pole):
        config = module.get_config().to_dict() | {"behavior": FLAGS.behavior}
        name = config["environment"]
        with Display(Console()) as display, opened(f"{FLAGS.workdir}/{name}", config) as workdir:
            world = make_world(config)
            dataset = make_dataset(workdir, world, display)
            for learner in ("cql", "bcq"):
                if (name, f"{learner}_p") not in done:
                    append_rows(out, compare(workdir.context, world, dataset, config, learner))
    print(markdown(read_rows(out)))


def run_on(cores: Collection[int]) -> None:
    """Keeps this process to some cores, where the system lets one say so (macOS does not)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def compare(
    context: RowContext, world: World, dataset: OfflineDataset, config: Mapping[str, Any], name: str
) -> list[dict[str, Any]]:
    """Both sides of one learner on one dataset, as rows."""
    begin = episode_beginnings(world, config)
    job = pathlib.Path(FLAGS.workdir) / f"{world.env.spec.name}_{name}.npz"
    settings = SETTINGS | {
        "learner": name, "environment": world.env.spec.name, "num_steps": FLAGS.num_steps,
        "seeds": SEEDS, "threads": 1,
    }  # fmt: skip
    write_job(job, world, dataset, begin, settings)
    speeds = our_speed(world, dataset, name)
    theirs = their_side(job)
    speeds += our_speed(world, dataset, name)
    ours = our_returns(world, dataset, begin, name)
    rows = []
    for library, returns, rates in (
        ("persim_jax", ours, speeds),
        ("d3rlpy", np.asarray(theirs["returns"]), theirs["steps_per_second"]),
    ):
        shared = {"method": f"{name}_p", "library": library, "num_steps": FLAGS.num_steps}
        versions = theirs["versions"] if library == "d3rlpy" else {}
        rows += [
            make_row(
                context, metric=f"{library}_return_mean", value=returns.mean(),
                seed_values=returns.mean(axis=1), num_episodes=returns.shape[1], **shared,
            ),
            make_row(
                context, metric=f"{library}_gradient_steps_per_second", value=float(np.mean(rates)),
                all_values=list(rates), versions=versions, **shared,
            ),
        ]  # fmt: skip
    return rows


def episode_beginnings(world: World, config: Mapping[str, Any]) -> np.ndarray:
    """First observations of the episodes of all test agents, `[agents * episodes, D]`."""
    key = stage_key(config, "episodes")
    found = []
    for row in world.test_rows():
        params = jax.tree.map(
            lambda leaf, row=row: jnp.repeat(leaf[row][None], FLAGS.episodes, axis=0),
            world.env_params,
        )
        numbers = jnp.arange(FLAGS.episodes)
        found.append(initial_obs(jax.random.fold_in(key, row), world.env, params, numbers))
    return np.concatenate([np.asarray(obs) for obs in found])


def write_job(
    path: pathlib.Path,
    world: World,
    dataset: OfflineDataset,
    begin: np.ndarray,
    settings: Mapping[str, Any],
) -> None:
    """Writes what the other side needs.

    d3rlpy's episodes are lists of steps, so each gets one more step behind its last, whose action
    is never trained on, where a time limit cut it off: there the value of the next state counts.
    """
    data = dataset.transitions()
    ends = np.append(np.diff(data.agent) != 0, True)
    rows = np.repeat(world.test_rows(), FLAGS.episodes)
    np.savez(
        path, obs=data.obs, actions=data.actions, rewards=data.rewards, terminals=data.terminated,
        timeouts=ends & ~data.terminated, num_actions=dataset.info.num_actions,
        begin=begin, covariates=np.asarray(world.agents.covariates)[rows],
        settings=json.dumps(settings),
    )  # fmt: skip


def their_side(job: pathlib.Path) -> dict[str, Any]:
    """Runs d3rlpy in its own environment."""
    out = job.with_suffix(".json")
    command = [FLAGS.d3rlpy_python, str(SIDE), str(job), str(out)]
    free = functools.partial(run_on, CORES)
    subprocess.run(command, check=True, preexec_fn=free)
    found: dict[str, Any] = json.loads(out.read_text("utf8"))
    return found


def _trained(
    world: World, dataset: OfflineDataset, name: str, num_lanes: int, num_steps: int
) -> tuple[OfflinePolicies, float]:
    """Learners with different keys on all data; and their steps per second, without compilation."""
    fields = {k: SETTINGS[k] for k in ("hidden", "learning_rate", "discount", "target_every")}
    fields |= {"target_rate": 1.0} | {k: SETTINGS[k] for k in OWN_FIELDS[name]}
    learner = make_learner(world.env.spec, CONFIGS[name, True](**fields))
    data = jax.tree.map(jnp.asarray, dataset.transitions())
    size = jnp.full(num_lanes, data.rewards.shape[0], jnp.int32)
    lanes, keys = Lanes(jnp.zeros_like(size), size), jax.random.split(jax.random.key(0), num_lanes)
    chunk = min(500, num_steps)
    config = OfflineConfig(num_steps, SETTINGS["batch_size"], chunk)
    times = [time.process_time()]

    def lap(state: Any, metrics: Any) -> None:
        jax.block_until_ready((state, metrics))
        times.append(time.process_time())

    state = train_offline(learner, config, keys, data, lanes, on_chunk=lap)
    # The first chunk compiles, or finds the compiled program.
    seconds = (times[-1] - times[1]) / max(len(times) - 2, 1)
    scale = identity(world.env.spec.obs_size)
    policies = OfflinePolicies(
        states=state.learner,
        normalizers=jax.tree.map(lambda leaf: jnp.repeat(leaf[None], num_lanes, axis=0), scale),
        agents=jnp.arange(num_lanes, dtype=jnp.int32),
        diverged_at=state.diverged_at,
        learner=learner,
    )
    return policies, num_lanes * chunk / max(seconds, 1e-9)


def our_speed(world: World, dataset: OfflineDataset, name: str) -> list[float]:
    """Gradient steps per second of a row of five learners, all of them together."""
    return [_trained(world, dataset, name, 5, 2000)[1]]


def our_returns(world: World, dataset: OfflineDataset, begin: np.ndarray, name: str) -> np.ndarray:
    """Returns of each seed, `[seeds, agents * episodes]`."""
    policies, _ = _trained(world, dataset, name, SEEDS, FLAGS.num_steps)
    rows = jnp.asarray(np.repeat(world.test_rows(), FLAGS.episodes), jnp.int32)
    found = []
    for seed in range(SEEDS):
        # The lane of this seed acts for every agent.
        agents = jnp.where(jnp.arange(SEEDS) == seed, -1, len(world.agents.agent_ids))
        one = policies.replace(agents=agents.astype(jnp.int32))
        values, _ = evaluate_returns(
            jax.random.key(seed), world.env, world.env_params, offline_method("bcq_p").policy, one,
            None, rows, jnp.asarray(begin),
        )  # fmt: skip
        found.append(np.asarray(values))
    return np.stack(found)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each environment and learner."""
    lines = [
        "| environment | learner | return, ours | d3rlpy | steps/s, ours | d3rlpy | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    by_name = {(r["environment"], r["method"], r["metric"]): r for r in rows}
    for environment, method in dict.fromkeys((e, m) for e, m, _ in by_name):
        cells = []
        for library in ("persim_jax", "d3rlpy"):
            values = by_name[environment, method, f"{library}_return_mean"]["seed_values"]
            cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
        ours, theirs = (
            by_name[environment, method, f"{library}_gradient_steps_per_second"]["value"]
            for library in ("persim_jax", "d3rlpy")
        )
        speeds = f"{ours:.0f} | {theirs:.0f} | {ours / theirs:.1f}"
        lines.append(f"| {environment} | {method} | {' | '.join(cells)} | {speeds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    flags.DEFINE_string("d3rlpy_python", None, "Python of the environment with d3rlpy.")
    flags.DEFINE_string("workdir", None, "Folder for data and jobs.")
    flags.DEFINE_string("out", None, "File of rows, made or added to.")
    flags.DEFINE_string("behavior", "pure_eps20", "Which data.")
    flags.DEFINE_integer("num_steps", 2000, "Gradient steps of each learner.")
    flags.DEFINE_integer("episodes", 20, "Of each test agent.")
    flags.mark_flags_as_required(["d3rlpy_python", "workdir", "out"])
    app.run(main)
