"""The numbers of Table 2, as rows: what a method earns in the true environment.

Episodes are kept in `episodes.jsonl` as they end, so that a run that was killed goes on with the
next one: on a hard environment a single episode takes minutes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.covariates import AgentTable
from experiments.measure import agent_fields, episode_obs
from experiments.progress import Display, Stage
from experiments.records import Row, make_row
from experiments.settings import planner_config, stage_key
from experiments.stages import World
from experiments.workdir import LOG, Workdir
from persim_jax.evaluation import paper
from persim_jax.evaluation.returns import evaluate_returns
from persim_jax.methods.base import Method
from persim_jax.types import PyTree

EPISODES_FILE = "episodes.jsonl"


class Episode(NamedTuple):
    """One episode in the true environment.

    Attributes:
      method: As in rows.
      agent_id: Whose.
      number: Which of the agent's evaluation episodes, from 0.
      value: Its undiscounted return.
      steps: Its length, which is the number of decisions.
      seconds: What it took; of episodes that ran together an equal share.
    """

    method: str
    agent_id: int
    number: int
    value: float
    steps: int
    seconds: float


def control_ids(workdir: Workdir, world: World, method: Method) -> list[int]:
    """Ids of the test agents on which a method is evaluated, in the order of the tables.

    Planning may be restricted to the agents that the paper prints, since a single episode of a
    hard environment takes minutes on a CPU.
    """
    return agents_of_control(workdir.config, world.agents, method.plans)


def agents_of_control(config: Mapping[str, Any], agents: AgentTable, plans: bool) -> list[int]:
    """As `control_ids`, from a run's config alone."""
    ids = list(agents.test_ids)
    if not plans or config["evaluation"]["planning_agents"] == "all":
        return ids
    about = {i: agents.covariates_of(i) for i in ids}
    cell = {
        i: paper.paper_value(2, agents.environment, about[i], "any", "true_env", "return_mean")
        for i in ids
    }
    return [i for i in ids if cell[i] is not None] or ids


def measure_returns(
    workdir: Workdir,
    world: World,
    method: Method,
    fitted: PyTree,
    display: Display,
    left_out: Collection[int] = (),
) -> None:
    """Runs the evaluation episodes that have not been run yet and adds the rows of their agents.

    Nothing is done for a method that plans where `workdir.planning` is false.

    Args:
      workdir: Of the run.
      world: Its environment and agents.
      method: Whose policies act.
      fitted: What they are made from.
      display: Shows progress.
      left_out: Ids of the agents for which the method has no policy.
    """
    if method.plans and not workdir.planning:
        return
    ids = [a for a in control_ids(workdir, world, method) if a not in left_out]
    todo = [a for a in ids if not workdir.has(method.name, "return_mean", a)]
    name = f"{'planning' if method.plans else 'evaluation'} {method.name}"
    if todo:
        goes_on = len(todo) < len(ids) or bool(read_episodes(workdir, method.name))
        with display.stage(workdir, name, len(ids), goes_on=goes_on) as stage:
            _run_agents(workdir, world, method, fitted, todo, stage)
    # From the rows and not from this process, which may have run a part of the episodes only.
    if method.plans and (todo or not workdir.has(method.name, "plan_decisions_per_second")):
        rows = [r for r in workdir.rows_of(method.name, "return_mean") if r.get("num_decisions")]
        rate = sum(row["num_decisions"] for row in rows) / sum(row["wall_s"] for row in rows)
        workdir.add([_cost_row(workdir, method, "plan_decisions_per_second", rate)])


def read_episodes(workdir: Workdir, method: str, agent_id: int | None = None) -> list[Episode]:
    """Episodes of a method that have ended, all or one agent's; a line that was cut off is not."""
    path, found = workdir.path / EPISODES_FILE, []
    for text in path.read_text("utf8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError, TypeError):
            found.append(Episode(**json.loads(text)))
    return [e for e in found if e.method == method and agent_id in (None, e.agent_id)]


def _run_agents(
    workdir: Workdir, world: World, method: Method, fitted: PyTree, todo: list[int], stage: Stage
) -> None:
    settings = workdir.config["evaluation"]
    count = settings["planning_episodes" if method.plans else "policy_episodes"]
    together = settings["episodes_per_call"] if method.plans else 0
    run = _compiled(workdir, world, method, fitted, together or count)
    done = len(control_ids(workdir, world, method)) - len(todo)
    for agent_id in todo:
        episodes = read_episodes(workdir, method.name, agent_id)
        while len(episodes) < count:
            episodes += run(agent_id, len(episodes))
            _append(workdir, episodes[-(together or count) :])
            stage.watch.lap()
            stage.step(done, f"{done} agents done, {len(episodes)} of {count} episodes of the next")
        workdir.add(_return_rows(workdir, world, episodes[:count]))
        done += 1
        stage.step(done, f"{done} agents, {count} episodes each")
        values = [episode.value for episode in episodes]
        LOG.info("%s, agent %d: return %.1f", method.name, agent_id, np.mean(values))


def _compiled(
    workdir: Workdir, world: World, method: Method, fitted: PyTree, together: int
) -> Callable[[int, int], list[Episode]]:
    """`(agent_id, first) -> episodes`: runs `together` episodes of an agent, from number `first`.

    Compiled apart from the measurement, so that neither cost hides the other.
    """
    planner = planner_config(workdir.config) if method.plans else None
    width = workdir.config["evaluation"]["width"] or together
    numbers, key = jnp.arange(together), stage_key(workdir.config, "planning")
    agents, obs = jnp.zeros(together, jnp.int32), jnp.zeros((together, world.env.spec.obs_size))
    start = time.perf_counter()
    program = evaluate_returns.lower(
        key, world.env, world.env_params, method.policy, fitted, planner, agents, obs, numbers,
        width,
    ).compile()  # fmt: skip
    seconds = time.perf_counter() - start
    workdir.add([_cost_row(workdir, method, "compile_seconds", seconds)])

    def run(agent_id: int, first: int) -> list[Episode]:
        agents = jnp.full(together, world.agents.row_of(agent_id), jnp.int32)
        obs = episode_obs(workdir, world, agent_id, first + together)[first:]
        start, agent_key = time.perf_counter(), jax.random.fold_in(key, agent_id)
        found = program(agent_key, world.env_params, fitted, agents, obs, first + numbers)
        values, steps = (np.asarray(x).tolist() for x in found)
        each = (time.perf_counter() - start) / together
        _check_finite(world, method.name, agent_id, first, values, steps)
        lines = enumerate(zip(values, steps, strict=True), first)
        return [Episode(method.name, agent_id, n, v, s, each) for n, (v, s) in lines]

    return run


def _check_finite(
    world: World, method: str, agent_id: int, first: int, values: list[float], steps: list[int]
) -> None:
    """Stops where the true environment left the finite numbers: its return would be no number."""
    both = enumerate(zip(values, steps, strict=True), first)
    bad = [f"{number} at step {step}" for number, (value, step) in both if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{world.env.spec.name} left the finite numbers under {method}, agent {agent_id} "
            f"{world.agents.covariates_of(agent_id)}, episode(s) {', '.join(bad)}: episodes before "
            f"them are kept in {EPISODES_FILE}; look at the actions, or at the physics of this "
            "agent"
        )


def _append(workdir: Workdir, episodes: list[Episode]) -> None:
    lines = "".join(json.dumps(episode._asdict()) + "\n" for episode in episodes)
    with (workdir.path / EPISODES_FILE).open("a", encoding="utf8") as file:
        file.write("\n" + lines)  # a line that a kill cut short must not swallow the next one


def _return_rows(workdir: Workdir, world: World, episodes: list[Episode]) -> list[Row]:
    values = np.asarray([episode.value for episode in episodes], np.float64)
    fields: dict[str, Any] = {
        "method": episodes[0].method,
        "num_episodes": len(values),
        "wall_s": sum(episode.seconds for episode in episodes),
        **agent_fields(world, episodes[0].agent_id),
    }
    steps = sum(episode.steps for episode in episodes)
    context = workdir.context_of(episodes[0].method)
    return [
        make_row(
            context, metric="return_mean", value=values.mean(), episode_values=values,
            num_decisions=steps, **fields,
        ),
        make_row(context, metric="return_std", value=values.std(), **fields),
    ]  # fmt: skip


def _cost_row(workdir: Workdir, method: Method, metric: str, value: float) -> Row:
    context = workdir.context_of(method.name)
    return make_row(context, method=method.name, metric=metric, value=value)
