"""A counterfactual: what would this agent do under these other actions, and how surely.

    python -m experiments.query --workdir=runs/glucose --agent=p007 --actions=doses.csv \
        --out=answer.csv

`--actions` is a table with a row for each step ahead, in columns of the actions' and inputs' names.
The answer has a row for each step, too: the mean over members, its standard deviation and the ends
of its intervals for each coordinate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from experiments import cli, questions
from persim_jax import queries
from persim_jax.calibration import load as load_calibration
from persim_jax.queries import Answer
from persim_jax.simulators import PersonalizedSimulators

FLAGS = flags.FLAGS


def query(
    workdir: str | Path,
    agent: str,
    actions: str | Path,
    out: str | Path,
    state: str | None = None,
    levels: Sequence[float] = queries.LEVELS,
) -> tuple[Answer, list[str]]:
    """Asks and writes the answer.

    Args:
      workdir: Of `experiments.fit`, and of `experiments.validate` if it was asked.
      agent: Id or name.
      actions: Table of actions and inputs.
      out: CSV to write.
      state: See `experiments.questions.read_state`.
      levels: Nominal coverage of the intervals.

    Returns:
      The answer, and what to know before relying on it.

    Raises:
      KeyError: There is no such agent.
      FileNotFoundError: A file is missing.
      ValueError: Says what does not fit. Nothing is written.
    """
    path = cli.refuse_existing(out)
    simulators = questions.open_simulators(workdir)
    name = questions.agent_of(simulators, agent)
    schedule = questions.read_schedule(actions, simulators, with_actions=True)
    start = questions.read_state(state, simulators, name)
    calibration = load_calibration(Path(workdir) / "calibration.json")
    answer = queries.ask(
        simulators, name, schedule.actions, start, schedule.inputs, levels, calibration
    )
    limit, verdict = questions.trusted_steps(workdir, name, answer.num_steps)
    notes = [*answer.notes, *filter(None, [verdict])]
    write_answer(path, simulators, schedule, answer, limit)
    return answer, notes


def write_answer(
    path: Path,
    simulators: PersonalizedSimulators,
    schedule: questions.Schedule,
    answer: Answer,
    limit: int | None,
    extra: dict[str, np.ndarray] | None = None,
) -> None:
    """Writes an answer with a row for each step.

    Args:
      path: The file.
      simulators: Of whom.
      schedule: What was asked.
      answer: What came out.
      limit: Steps that validation trusts; None where nobody knows.
      extra: More columns `[T]`.
    """
    info = simulators.info
    header, cells = questions.action_cells(simulators, np.asarray(schedule.actions))
    header = ["step", *header]
    if schedule.inputs is not None:
        header += (
            info.input_names if info else [f"input_{i}" for i in range(schedule.inputs.shape[1])]
        )
    percent = [f"{100 * level:g}" for level in answer.levels]
    for name in answer.names:
        ends = [f"{name}_{end}_{p}" for p in percent for end in ("lower", "upper")]
        header += [name, f"{name}_std", *ends]
    header += ["outside_data", "beyond_trust", *(extra or {})]
    rows: list[list[Any]] = []
    for t in range(answer.num_steps):
        row: list[Any] = [t + 1, *cells[t]]
        if schedule.inputs is not None:
            row += [float(x) for x in schedule.inputs[t]]
        for d in range(len(answer.names)):
            row += [answer.mean[t, d], answer.std[t, d]]
            row += [
                end[k, t, d] for k in range(len(percent)) for end in (answer.lower, answer.upper)
            ]
        row += [int(answer.outside[t]), int(limit is not None and t >= limit)]
        rows.append(row + [float(column[t]) for column in (extra or {}).values()])
    cli.write_csv(path, header, rows)


def main(argv: Sequence[str]) -> None:
    """Asks what the flags say."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    with cli.one_line_each():
        levels = [float(level) for level in FLAGS.levels]
        answer, notes = query(
            FLAGS.workdir, FLAGS.agent, FLAGS.actions, FLAGS.out, FLAGS.state, levels
        )
    for note in notes:
        cli.warn(note)
    print(f"wrote {answer.num_steps} steps of agent {FLAGS.agent} to {FLAGS.out}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of experiments.fit.", required=True)
    flags.DEFINE_string("agent", None, "Whose simulator, by id or name.", required=True)
    flags.DEFINE_string(
        "actions", None, "Table, CSV or Parquet, with the actions and inputs of each step ahead.",
        required=True,
    )  # fmt: skip
    flags.DEFINE_string("out", None, "CSV to write; it must not exist.", required=True)
    flags.DEFINE_string(
        "state", None, "Where to start: numbers as in 1.5,2, or a table as the data whose last "
        "rows are taken, which simulators with lags need. By default where the agent ended.",
    )  # fmt: skip
    flags.DEFINE_list("levels", list(map(str, queries.LEVELS)), "Coverage of the intervals.")
    app.run(main)
