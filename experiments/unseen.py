"""Agents that were not in the training data: how well their simulators predict, and how fast.

    python -m experiments.unseen --config=configs/mountain_car.py --workdir=runs/mountain_car
    python -m experiments.unseen --config=configs/cart_pole.py --workdir=runs/cart_pole \
        --config.behavior=pure_eps40 --num_newcomers=50

Data and simulators are those of the run in the workdir, made now if they are missing. Newcomers are
drawn from the same ranges by another seed. Each shows some transitions of the data's behavior, or
only its covariates (the paper's Appendix F.5), and is then predicted open loop in fresh episodes:
of that behavior, and of the test policy, which no data follow.
"""

from __future__ import annotations

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

from envs.covariates import AgentTable, make_agents, nearest
from experiments import run, settings
from experiments.errors import one_line_each
from experiments.measure import episode_scores
from experiments.policies import greedy_act
from experiments.progress import Display
from experiments.records import Row, append_rows, make_row, value_text
from experiments.settings import stage_key
from experiments.stages import World, dataset_info, make_dataset, make_simulators, make_world
from experiments.workdir import Workdir, opened
from persim_jax import collect
from persim_jax.data.dataset import OfflineDataset
from persim_jax.evaluation import prediction
from persim_jax.models.true_env import true_dynamics
from persim_jax.personalization.newcomers import of_prior
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import Trajectory

FLAGS = flags.FLAGS
NUM_TRANSITIONS = (0, 5, 10, 20, 50)
NUM_EPISODES = 20
SPEED_NEWCOMERS, SPEED_TRANSITIONS = 10_000, 20
POLICIES = ("behavior", "test_policy")


class Crowd(NamedTuple):
    """Newcomers.

    Attributes:
      world: As if there were no others.
      dataset: One trajectory of each under the data's behavior.
    """

    world: World
    dataset: OfflineDataset


def measure(
    config: Mapping[str, Any],
    workdir: str | Path,
    num_newcomers: int = 100,
    num_transitions: Sequence[int] = NUM_TRANSITIONS,
    speed_newcomers: int = SPEED_NEWCOMERS,
    console: Console | None = None,
) -> list[Row]:
    """Personalizes newcomers and predicts them.

    Args:
      config: Of a run, as a plain dict.
      workdir: Of that run, made if missing.
      num_newcomers: Agents that are predicted.
      num_transitions: Numbers of transitions that they show.
      speed_newcomers: Agents that are personalized against the clock; 0 leaves that out.
      console: Where progress is shown.

    Returns:
      The rows.

    Raises:
      ValueError: The config is wrong, or the workdir was made with another one.
    """
    settings.check(config, ("persim",))
    with (
        jax.default_matmul_precision(config["matmul_precision"]),
        Display(console or Console()) as display,
    ):
        world = make_world(config)
        with opened(workdir, config) as where:
            dataset = make_dataset(where, world, display)
            simulators = make_simulators(where, world, dataset, display)
            if simulators.noise is None:
                simulators = simulators.with_noise(dataset)
            with display.stage(where, "unseen", len(num_transitions) + 1) as stage:
                crowd = make_crowd(config, world, num_newcomers)
                truth = {p: true_episodes(config, crowd.world, p) for p in POLICIES}
                rows = _known(where, simulators, world, num_newcomers)
                stage.step(1, "known agents")
                for index, count in enumerate(num_transitions):
                    rows += _from_transitions(where, simulators, crowd, truth, count)
                    stage.step(index + 2, f"from {count} transitions")
                if speed_newcomers:
                    rows.append(measure_speed(where, simulators, world, speed_newcomers))
            return rows


def make_crowd(config: Mapping[str, Any], world: World, count: int) -> Crowd:
    """Agents from the training agents' ranges that are none of them, and what they do."""
    newcomers = newcomer_world(config, world, count)
    key = jax.random.fold_in(stage_key(config, "data"), 1)
    behavior = collect.BEHAVIORS[config["behavior"]]
    act = greedy_act(config["environment"])
    trajectories = collect.collect_dataset(
        key, world.env, newcomers.env_params, act, newcomers.pure_params, behavior
    )
    return Crowd(newcomers, as_dataset(newcomers, trajectories, behavior.name))


def newcomer_world(config: Mapping[str, Any], world: World, count: int) -> World:
    """The world of agents drawn by the next seed, without the test agents, which were known."""
    name, seed = config["environment"], config["agents"]["seed"] + 1
    drawn = make_agents(name, count + len(world.agents.test_ids), seed)
    rows = np.setdiff1d(np.arange(drawn.num_agents), [drawn.row_of(a) for a in drawn.test_ids])
    agents = AgentTable(
        name, drawn.covariate_names, drawn.agent_ids[rows], drawn.covariates[rows], (), (), {}
    )
    own = nearest(name, agents.covariates, np.asarray(world.policies.pure_covariates))
    return world._replace(
        agents=agents,
        env_params=jax.vmap(world.env.params)(jnp.asarray(agents.covariates)),
        pure_params=jax.tree.map(lambda leaf: jnp.asarray(leaf)[own], world.policies.pure),
    )


def as_dataset(world: World, trajectories: Trajectory, behavior: str) -> OfflineDataset:
    """Trajectories of the agents of a world as a dataset on the host."""
    host: Any = jax.tree.map(np.asarray, trajectories)
    return OfflineDataset(
        obs=host.obs, actions=host.actions, rewards=host.rewards, terminated=host.terminated,
        mask=host.mask, agent_ids=world.agents.agent_ids, covariates=world.agents.covariates,
        info=dataset_info(world, behavior),
    )  # fmt: skip


def first_steps(dataset: OfflineDataset, count: int) -> OfflineDataset:
    """The first transitions of each agent; all where an episode is shorter."""
    fields = ("actions", "rewards", "terminated", "mask")
    cut = {name: getattr(dataset, name)[:, :count] for name in fields}
    return dataset.replace(obs=dataset.obs[:, : count + 1], **cut)


def true_episodes(config: Mapping[str, Any], world: World, policy: str) -> list[Trajectory]:
    """Fresh true episodes of every agent of a world, leaves `[E, warm_up + S, ...]`."""
    asked = config["prediction"]
    steps = asked["warm_up"] + asked["num_steps"]
    epsilon = collect.BEHAVIORS[config["behavior"]].epsilon if policy == "behavior" else 0.0
    act, episodes = greedy_act(config["environment"]), []
    count = min(NUM_EPISODES, asked["num_episodes"])
    for row in range(world.agents.num_agents):
        key = jax.random.fold_in(stage_key(config, "episodes"), 10_000 + row)
        key_obs, key_steps = jax.random.split(key)
        repeat = lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], count, axis=0)  # noqa: E731
        own = jax.tree.map(lambda leaf: repeat(leaf[row]), (world.env_params, world.pure_params))  # noqa: B023
        acting = own[1] if policy == "behavior" else jax.tree.map(repeat, world.policies.test)
        lanes = jnp.arange(count)
        obs = collect.initial_obs(key_obs, world.env, own[0], lanes)
        episodes.append(
            collect.collect(
                key_steps, true_dynamics(world.env), own[0], world.env, act, acting,
                jnp.asarray(epsilon), lanes, obs, steps,
            )
        )  # fmt: skip
    return episodes


def _known(
    where: Workdir, simulators: PersonalizedSimulators, world: World, count: int
) -> list[Row]:
    """What the trained agents' own simulators reach in such episodes: the bound for newcomers."""
    rows = np.linspace(0, world.agents.num_agents - 1, min(count, world.agents.num_agents))
    rows = rows.astype(int)
    agents = AgentTable(
        world.agents.environment, world.agents.covariate_names, world.agents.agent_ids[rows],
        world.agents.covariates[rows], (), (), {},
    )  # fmt: skip
    pick = lambda tree: jax.tree.map(lambda leaf: leaf[rows], tree)  # noqa: E731
    some = world._replace(
        agents=agents, env_params=pick(world.env_params), pure_params=pick(world.pure_params)
    )
    found = []
    for policy in POLICIES:
        episodes = true_episodes(where.config, some, policy)
        found += _rows(where, simulators, rows, episodes, f"known_agents_{policy}", {})
    return found


def _from_transitions(
    where: Workdir,
    simulators: PersonalizedSimulators,
    crowd: Crowd,
    truth: Mapping[str, list[Trajectory]],
    count: int,
) -> list[Row]:
    """Rows of newcomers that show `count` transitions, with covariates and without."""
    found = []
    for source in ("", "_and_covariates"):
        covariates = crowd.dataset.covariates if source else None
        newcomers, steps = of_prior(simulators, crowd.dataset.agent_ids, covariates), 0.0
        if count:
            shown = first_steps(crowd.dataset, count)
            newcomers, steps = newcomers.update(shown), float(shown.lengths.mean())
        theirs, rows = newcomers.simulators(), np.arange(newcomers.num_agents)
        name = f"{count}_transitions{source}"
        for policy, episodes in truth.items():
            extras = {"transitions_shown": steps}
            found += _rows(where, theirs, rows, episodes, f"newcomers_{policy}_{name}", extras)
    return found


def _rows(
    where: Workdir,
    simulators: PersonalizedSimulators,
    agents: np.ndarray,
    episodes: Sequence[Trajectory],
    name: str,
    extras: Mapping[str, Any],
) -> list[Row]:
    """Scores of the protocol's open-loop test: medians over agents, each agent's value beside."""
    start, asked = time.perf_counter(), where.config["prediction"]
    rmse, r2 = [], []
    for row, own in zip(agents.tolist(), episodes, strict=True):
        paths = prediction.open_loop(
            jax.random.key(0), simulators.model, simulators.params, jnp.asarray(row), own,
            asked["warm_up"], asked["combine"],
        )  # fmt: skip
        scores = episode_scores(paths)
        scored = ~np.isnan(scores[0])
        if scored.any():
            rmse.append(float(scores[0][scored].mean()))
            r2.append(float(np.nanmedian(scores[1])))
    shared = {"num_agents": len(rmse), "num_steps": asked["num_steps"], **extras}
    return [
        make_row(
            where.context, method="persim", metric=f"{metric}_{name}",
            value=float(np.median(values)) if values else float("nan"),
            num_episodes=len(episodes) * min(NUM_EPISODES, asked["num_episodes"]),
            wall_s=time.perf_counter() - start, agent_values=values, **shared,
        )
        for metric, values in (("rmse", rmse), ("r2", r2))
    ]  # fmt: skip


def measure_speed(
    where: Workdir, simulators: PersonalizedSimulators, world: World, count: int
) -> Row:
    """Seconds in which many newcomers are personalized, all members, after compilation."""
    crowd = newcomer_world(where.config, world, count)
    key_obs, key_steps = jax.random.split(jax.random.fold_in(stage_key(where.config, "data"), 2))
    lanes = jnp.arange(count)
    obs = collect.initial_obs(key_obs, world.env, crowd.env_params, lanes)
    behavior = collect.BEHAVIORS[where.config["behavior"]]
    trajectories = collect.collect(
        key_steps, true_dynamics(world.env), crowd.env_params, world.env,
        greedy_act(where.config["environment"]), crowd.pure_params,
        jnp.asarray(behavior.epsilon), lanes, obs, SPEED_TRANSITIONS,
    )  # fmt: skip
    dataset = as_dataset(crowd, trajectories, behavior.name)
    seconds: list[float] = []
    for _ in range(4):  # the first compiles
        start = time.perf_counter()
        jax.block_until_ready(simulators.personalize(dataset).posterior)
        seconds.append(time.perf_counter() - start)
    return make_row(
        where.context, method="persim", metric="personalize_seconds",
        value=float(np.median(seconds[1:])), wall_s=sum(seconds), num_newcomers=count,
        num_transitions=SPEED_TRANSITIONS, num_members=simulators.config.ensemble_size,
        first_call_seconds=seconds[0], repeats=seconds[1:],
    )  # fmt: skip


def counts_of(texts: Sequence[str]) -> list[int]:
    """Numbers of transitions as the flag names them.

    Raises:
      ValueError: One is no number, negative, or named twice.
    """
    counts = [int(text) if text.isdecimal() else -1 for text in texts]
    if not counts or min(counts) < 0 or len(set(counts)) < len(counts):
        raise ValueError(
            f"--num_transitions={','.join(texts)}: give whole numbers with commas between them, "
            "from 0, each once"
        )
    return counts


def main(argv: Sequence[str]) -> None:
    """Measures with the flags as parsed and says what came out."""
    del argv
    run.set_up_jax(deterministic=True, compile_cache=None)
    console = Console(width=200)
    config = FLAGS.config.to_dict()
    rows_path = Path(FLAGS.rows or Path(FLAGS.workdir) / "rows.jsonl")
    with one_line_each():
        counts = counts_of(FLAGS.num_transitions)
        rows = measure(
            config, FLAGS.workdir, FLAGS.num_newcomers, counts, FLAGS.speed_newcomers, console
        )
        append_rows(rows_path, rows)
    for row in rows:
        console.print(f"{row['metric']}: {value_text(row, '.6g')}", highlight=False)
    console.print(f"rows: {rows_path}", highlight=False)


if __name__ == "__main__":
    config_flags.DEFINE_config_file(
        "config", None, "Of the run: configs/ENV.py[:smoke|default|paper].", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Folder of the run, made if missing.")
    flags.DEFINE_integer("num_newcomers", 100, "Agents that are predicted.", lower_bound=1)
    flags.DEFINE_list(
        "num_transitions", [str(n) for n in NUM_TRANSITIONS], "Transitions that they show."
    )
    flags.DEFINE_integer(
        "speed_newcomers", SPEED_NEWCOMERS, "Agents that are personalized against the clock.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_string("rows", None, "File for the rows; the workdir's rows.jsonl by default.")
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=run.parse_flags)
