"""Speed of the stages of a run, as rows: how fast an environment steps and a planner decides.

    python -m experiments.benchmark --config=configs/half_cheetah.py --workdir=runs/benchmark
    python -m experiments.benchmark --config=configs/cart_pole.py --workdir=W --compare=results

Stages: `collect`, random data of all agents, once for each backend that the environment has, and
`plan`, decisions of the config's planner in the true environment and in simulators of the
config's size (untrained: what they know costs no time). Each is compiled, then timed several times
in turn with the others, so that a busy machine slows all of them; a row holds the median and, as
`fastest` and `slowest`, the spread.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

import envs
from envs.covariates import make_agents
from experiments import run, settings
from experiments.errors import one_line_each
from experiments.records import (
    NO_BEHAVIOR,
    Row,
    RowContext,
    append_rows,
    make_row,
    read_rows,
)
from persim_jax import collect
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.models.factor import factor_model
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import mpc_policy
from persim_jax.rollout import unroll
from persim_jax.types import PyTree

FLAGS = flags.FLAGS
STAGES = ("collect", "plan")


class Job(NamedTuple):
    """One thing to time.

    Attributes:
      method: As in rows.
      metric: As in rows.
      context: What its row says of the run, the backend included.
      work: Control steps or decisions of a call.
      call: Does them; blocks until they are done.
    """

    method: str
    metric: str
    context: RowContext
    work: int
    call: Callable[[], None]


def benchmark(
    config: Mapping[str, Any], stages: Sequence[str] = STAGES, steps: int = 20, repeats: int = 3
) -> list[Row]:
    """Times the stages of a config.

    Args:
      config: As `configs/base.py` makes it, as a plain dict.
      stages: Some of `STAGES`.
      steps: Control steps of each agent, or decisions of one.
      repeats: Timings of each, after one that is not counted.

    Returns:
      A row for each backend, or for each model that is planned in.

    Raises:
      ValueError: A stage or the config is wrong, or a number is not positive.
    """
    _check(stages, steps, repeats)
    settings.check(config, ("persim", "true_env"))
    # The precision is a run's, or else an accelerator's numbers would be of other products.
    with jax.default_matmul_precision(config["matmul_precision"]):
        jobs = _collect_jobs(config, steps) if "collect" in stages else []
        jobs += _plan_jobs(config, steps) if "plan" in stages else []
        for job in jobs:
            job.call()
        seconds = np.asarray([[_seconds(job.call) for job in jobs] for _ in range(repeats)])
    return [_row(job, seconds[:, i]) for i, job in enumerate(jobs)]


def _check(stages: Sequence[str], steps: int, repeats: int) -> None:
    if not stages:
        raise ValueError(f"there is no stage: use some of {', '.join(STAGES)}")
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(f"stage {stage!r} is unknown: use some of {', '.join(STAGES)}")
    if min(steps, repeats) < 1:
        raise ValueError(f"steps {steps} and repeats {repeats} must be at least 1")


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _row(job: Job, seconds: np.ndarray) -> Row:
    rates = job.work / seconds
    return make_row(
        job.context, behavior=NO_BEHAVIOR, method=job.method, metric=job.metric,
        value=float(np.median(rates)),
        wall_s=float(seconds.sum()), fastest=float(rates.max()), slowest=float(rates.min()),
        repeats=len(rates), num_steps=job.work,
    )  # fmt: skip


def _context(config: Mapping[str, Any], backend: str) -> RowContext:
    return dataclasses.replace(RowContext.from_config(config), backend=backend)


def _collect_jobs(config: Mapping[str, Any], steps: int) -> list[Job]:
    jobs = []
    for backend in envs.backends(config["environment"]) or ("",):
        own = {**config, "backend": backend or config["backend"]}
        env = envs.make(own["environment"], own["backend"])
        agents = make_agents(env.spec.name, **own["agents"])
        params = jax.vmap(env.params)(jnp.asarray(agents.covariates))
        call = _collector(env, params, agents.agent_ids.size, steps)
        count = agents.agent_ids.size * steps
        metric = "collect_steps_per_second"
        jobs.append(Job("any", metric, _context(own, env.spec.backend), count, call))
    return jobs


def _collector(env: envs.Env, params: PyTree, num_agents: int, steps: int) -> Callable[[], None]:
    """One call is `steps` random actions of every agent; none of them ends an episode early."""
    lanes = jnp.arange(num_agents)
    obs = collect.initial_obs(jax.random.key(0), env, params, lanes)
    nothing = jnp.zeros(num_agents)

    def call() -> None:
        jax.block_until_ready(
            collect.collect(
                jax.random.key(1), true_dynamics(env), params, env, _any_action(env.spec),
                nothing, jnp.asarray(1.0), lanes, obs, steps,
            )
        )  # fmt: skip

    return call


@functools.cache
def _any_action(spec: envs.EnvSpec) -> collect.ActFn:
    """A policy that costs nothing: the random behavior never asks it."""
    shape, dtype = ((), jnp.int32) if spec.discrete else ((spec.action_size,), jnp.float32)
    return lambda key, params, obs: jnp.zeros(shape, dtype)


def _plan_jobs(config: Mapping[str, Any], steps: int) -> list[Job]:
    env = envs.make(config["environment"], config["backend"])
    agents = make_agents(env.spec.name, **config["agents"])
    params = jax.vmap(env.params)(jnp.asarray(agents.covariates))
    still = _still_dataset(env.spec, agents.agent_ids)
    learned = factor_model(settings.persim_config(config).factor(still))
    weights = learned.init(jax.random.key(0))
    unscaled = learned.fit_normalizer(jax.tree.map(jnp.asarray, still.transitions()))
    models: list[tuple[str, DynamicsModel, PyTree]] = [
        ("true_env", true_dynamics(env), params),
        ("persim", learned, ModelParams(weights, unscaled)),
    ]
    context = _context(config, env.spec.backend)
    return [
        Job(
            name, "plan_decisions_per_second", context, steps,
            _decider(config, env, params, model, model_params, steps),
        )
        for name, model, model_params in models
    ]  # fmt: skip


def _still_dataset(spec: envs.EnvSpec, agent_ids: np.ndarray) -> OfflineDataset:
    """A step of each agent in which nothing happens: it gives a model its sizes."""
    count = len(agent_ids)
    shape, dtype = ((), np.int32) if spec.discrete else ((spec.action_size,), np.float32)
    info = DatasetInfo(
        environment=spec.name, behavior="random", obs_names=spec.obs_names, covariate_names=(),
        num_actions=spec.num_actions, action_size=spec.action_size,
    )  # fmt: skip
    return OfflineDataset(
        obs=np.zeros((count, 2, spec.obs_size), np.float32),
        actions=np.zeros((count, 1, *shape), dtype),
        rewards=np.zeros((count, 1), np.float32),
        terminated=np.zeros((count, 1), bool),
        mask=np.ones((count, 1), bool),
        agent_ids=agent_ids,
        covariates=np.zeros((count, 0), np.float32),
        info=info,
    )


def _decider(
    config: Mapping[str, Any],
    env: envs.Env,
    params: PyTree,
    model: DynamicsModel,
    model_params: PyTree,
    steps: int,
) -> Callable[[], None]:
    """One call is `steps` decisions for the first agent, each followed by a true step."""
    planner = settings.planner_config(config)
    first = jnp.zeros((), jnp.int32)
    params = jax.tree.map(lambda leaf: leaf[:1], params)
    obs = collect.initial_obs(jax.random.key(0), env, params, jnp.arange(1))[0]

    @jax.jit
    def episode(params: PyTree, model_params: PyTree, obs: jax.Array) -> jax.Array:
        truth = true_dynamics(env)
        policy = mpc_policy(model, model.bind(model_params, first, None), env, planner)
        bound = truth.bind(params, first, None)
        return unroll(jax.random.key(1), truth, bound, env, policy, obs, steps).rewards

    return lambda: jax.block_until_ready(episode(params, model_params, obs))


def compare(rows: Sequence[Row], before: Sequence[Row]) -> Table:
    """The rows as a table, each beside the newest one of the same thing in `before`."""
    table = Table("what", "backend", "per second", "spread", "before", "ratio")
    for row in rows:
        same = [r for r in before if _what(r) == _what(row) and r["value"]]
        old = max(same, key=lambda r: r["measured_at"], default=None)
        table.add_row(
            f"{row['environment']} {row['metric']} {row['method']}",
            row.get("backend", ""),
            f"{row['value']:.3g}",
            f"{row['slowest']:.3g} to {row['fastest']:.3g}",
            f"{old['value']:.3g} ({old['device']})" if old else "-",
            f"{row['value'] / old['value']:.2f}" if old else "-",
        )
    return table


def _what(row: Row) -> tuple[Any, ...]:
    names = ("environment", "method", "metric", "variant", "backend", "device")
    return tuple(row.get(name) for name in names)


def main(argv: Sequence[str]) -> None:
    """Times, stores and shows."""
    del argv
    run.set_up_jax(deterministic=True, compile_cache=None)
    with one_line_each():
        folder = Path(FLAGS.workdir)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: --workdir is a folder, made if missing")
        before = read_rows(FLAGS.compare) if FLAGS.compare else []
        rows = benchmark(FLAGS.config.to_dict(), FLAGS.stages, FLAGS.steps, FLAGS.repeats)
        append_rows(folder / "rows.jsonl", rows)
    Console().print(compare(rows, before))


def _define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "configs/ENV.py[:variant].", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder that gets rows.jsonl.")
    flags.DEFINE_list("stages", list(STAGES), f"Some of {', '.join(STAGES)}.")
    flags.DEFINE_integer("steps", 20, "Control steps of each agent, and decisions of one.")
    flags.DEFINE_integer("repeats", 3, "Timings of each.")
    flags.DEFINE_string("compare", None, "Rows, a file or a folder, to compare with.")
    flags.mark_flags_as_required(["config", "workdir"])


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=run.parse_flags)
