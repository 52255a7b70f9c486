"""Plans for an agent with a reward of the user's, inside the agent's own simulator.

    python -m experiments.plan --workdir=runs/glucose --agent=p007 --steps=12 --inputs=meals.csv \
        --reward=my_rewards:near_target --out=plan.csv

`--reward=module:function` names a function `(obs [D], action, next_obs [D]) -> []` written with
jax.numpy, in the units of the data; with lags obs holds the newest values first. `--reward=learned`
takes one that is learned from the data's column of rewards. `--risk=worst` or
`--risk=cvar` plans for the case that the members who expect least are right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments import cli, questions
from experiments.query import write_answer
from persim_jax import queries
from persim_jax.calibration import load as load_calibration
from persim_jax.planning.config import SAMPLERS, PlannerConfig
from persim_jax.planning.episodes import PlannedEpisode
from persim_jax.planning.risk import RISKS

FLAGS = flags.FLAGS


def plan(
    workdir: str | Path,
    agent: str,
    reward: str,
    steps: int,
    out: str | Path,
    state: str | None = None,
    terminated: str | None = None,
    inputs: str | Path | None = None,
    limits: tuple[float | None, float | None] = (None, None),
    seed: int = 0,
    planner: Mapping[str, Any] | None = None,
) -> tuple[PlannedEpisode, list[str]]:
    """Plans and writes the episode with the intervals of its path.

    Args:
      workdir: As in `experiments.query.query`.
      agent: Id or name.
      reward: `module:function`, or "learned" from the data's column of rewards.
      steps: Decisions.
      out: CSV to write.
      state: See `experiments.questions.read_state`.
      terminated: `module:function`; without it nothing ends the episode.
      inputs: Table of the exogenous inputs ahead, at least one row for each step.
      limits: Least and greatest continuous action; by default those of the data.
      seed: Of the planner's candidates.
      planner: Fields of `PlannerConfig`; the sampler is chosen by the kind of actions.

    Returns:
      The episode, and what to know before relying on it.

    Raises:
      KeyError: There is no such agent.
      FileNotFoundError: A file is missing.
      ValueError: Says what does not fit. Nothing is written.
    """
    path = cli.refuse_existing(out)
    simulators = questions.open_simulators(workdir)
    name = questions.agent_of(simulators, agent)
    wanted, notes = questions.reward_of(reward, workdir, simulators)
    end = cli.load_function(terminated) if terminated else None
    simulators = simulators.with_reward(wanted, end, steps, *limits)
    schedule = questions.Schedule(None, None)
    if inputs is None and simulators.config.num_inputs:
        names = simulators.info.input_names if simulators.info else ("input_*",)
        raise ValueError(
            f"these simulators have the inputs {', '.join(names)}: give --inputs=FILE, a table "
            "with a row of them for each step"
        )
    if inputs is not None:
        schedule = questions.read_schedule(inputs, simulators, with_actions=False)
    start = questions.read_state(state, simulators, name)
    config = planner_of(simulators.config.discrete, planner or {})
    episode = jax.tree.map(
        np.asarray,
        simulators.plan_episode(jax.random.key(seed), name, config, steps, start, schedule.inputs),
    )
    taken = int(episode.mask.sum())
    asked = questions.Schedule(
        episode.actions[:taken],
        None if schedule.inputs is None else schedule.inputs[:taken],
    )
    calibration = load_calibration(Path(workdir) / "calibration.json")
    answer = queries.ask(
        simulators, name, asked.actions, start, asked.inputs, queries.LEVELS, calibration
    )
    limit, verdict = questions.trusted_steps(workdir, name, answer.num_steps)
    rewards = {
        "reward": episode.rewards[:taken],
        "reward_worst_member": episode.member_rewards.min(axis=0)[:taken],
    }
    write_answer(path, simulators, asked, answer, limit, rewards)
    return episode, [*notes, *answer.notes, *filter(None, [verdict])]


def planner_of(discrete: bool, fields: Mapping[str, Any]) -> PlannerConfig:
    """A planner for the kind of actions, some fields of it as given; None is the default.

    Raises:
      ValueError: A field has a value that it must not have, or one that nothing would use.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if "risk_level" in given and given.get("risk") != "cvar":
        raise ValueError(
            f"risk_level {given['risk_level']:g} is of the risk cvar, which is not asked for: "
            "give --risk=cvar, too"
        )
    if discrete:
        return dataclasses.replace(PlannerConfig(), **given)
    # Fewer elites and more rounds than in the benchmarks: a search begins at the middle of the
    # bounds, and "do nothing" is often at their end.
    count = given.get("num_candidates", 200)
    sizes: dict[str, Any] = {
        "sampler": "icem", "horizon": 30, "num_candidates": count, "num_rounds": 8,
        "num_elites": max(2, min(20, count // 5)),
    }  # fmt: skip
    return PlannerConfig(**(sizes | given))


def main(argv: Sequence[str]) -> None:
    """Plans what the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    fields = {name: FLAGS[name].value for name in PLANNER_FLAGS}
    with cli.one_line_each():
        episode, notes = plan(
            FLAGS.workdir, FLAGS.agent, FLAGS.reward, FLAGS.steps, FLAGS.out, FLAGS.state,
            FLAGS.terminated, FLAGS.inputs, (FLAGS.action_low, FLAGS.action_high), FLAGS.seed,
            fields,
        )  # fmt: skip
    for note in notes:
        cli.warn(note)
    worst = float(np.asarray(episode.member_rewards).sum(axis=1).min())
    print(
        f"planned {int(episode.mask.sum())} steps for agent {FLAGS.agent}: return "
        f"{float(episode.rewards.sum()):.6g} by the mean of the members, {worst:.6g} by the worst; "
        f"wrote {FLAGS.out}"
    )


PLANNER_FLAGS = ("sampler", "num_candidates", "horizon", "risk", "risk_level")


def _define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of experiments.fit.", required=True)
    flags.DEFINE_string("agent", None, "Whose simulator, by id or name.", required=True)
    flags.DEFINE_string("reward", None, "module:function, or learned.", required=True)
    flags.DEFINE_integer("steps", None, "Decisions ahead.", required=True, lower_bound=1)
    flags.DEFINE_string("out", None, "CSV to write; it must not exist.", required=True)
    flags.DEFINE_string("terminated", None, "module:function that ends an episode.")
    flags.DEFINE_string("state", None, "Where to start, as in experiments.query.")
    flags.DEFINE_string(
        "inputs", None, "Table with the exogenous inputs of the steps ahead. Where a plan looks "
        "past its end, the last row stays.",
    )  # fmt: skip
    flags.DEFINE_float("action_low", None, "Least action; by default that of the data.")
    flags.DEFINE_float("action_high", None, "Greatest action; by default that of the data.")
    flags.DEFINE_integer("seed", 0, "Of the planner's candidates.", lower_bound=0)
    flags.DEFINE_enum("sampler", None, SAMPLERS, "By default random shooting or iCEM.")
    flags.DEFINE_integer("num_candidates", None, "Plans that each decision compares.")
    flags.DEFINE_integer("horizon", None, "Steps that each decision looks ahead.")
    flags.DEFINE_enum("risk", None, RISKS, "What a plan is worth where members disagree.")
    flags.DEFINE_float("risk_level", None, "Share of the worst members that cvar averages.")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
