"""Prediction error over the horizon for PerSim, CaDM and the ablations, agent by agent.

python -m experiments.figures.horizons --rows=results --out=docs/images/horizons.png
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from experiments.errors import one_line_each
from experiments.figures.curves import cut_explosions, log_if_positive
from experiments.figures.style import COLORS, DASHES, PAGE_WIDTH, agent_label, draw
from experiments.records import Row, read_rows
from experiments.reporting.model import environment_name, method_name
from experiments.reporting.selection import agent_of, select
from experiments.reporting.sheet import environments
from persim_jax.evaluation import paper

FLAGS = flags.FLAGS
METHODS = (
    "persim", "cadm_vanilla", "cadm_pets", "concat_mlp", "pooled_mlp", "per_agent_mlp",
)  # fmt: skip
"""In the order of the legend; each has its own colour, whichever others there are."""

Errors: TypeAlias = Mapping[str, Mapping[str, ArrayLike]]
"""By environment and method, `[A, S]`; NaN where no episode lasted, or nothing was measured."""


def plot_horizons(
    errors: Errors,
    agents: Mapping[str, Sequence[Mapping[str, float]]],
    path: str | os.PathLike[str],
) -> Figure:
    """Draws a row of panels for each environment, a panel for each agent, a line for each method.

    Args:
      errors: Mean error after each open-loop step.
      agents: By environment, the agents' covariates by name, length A.
      path: File to write.

    Raises:
      ValueError: If there is nothing to draw, or shapes do not fit each other.
    """
    if not errors:
        raise ValueError("there are no errors over the horizon: run the prediction test first")
    lines = {name: _checked(name, errors[name], len(agents[name])) for name in errors}
    columns = max(len(agents[name]) for name in lines)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(lines), columns, squeeze=False, sharex="row", sharey="row")
        for row, (name, found) in zip(grid, lines.items(), strict=True):
            for index, agent in enumerate(agents[name]):
                axes = row[index]
                for method, values in found.items():
                    look = METHODS.index(method) if method in METHODS else len(METHODS)
                    steps = np.arange(1, values.shape[1] + 1)
                    axes.plot(
                        steps, values[index], color=COLORS[look], linestyle=DASHES[look],
                        label=method_name(method),
                    )  # fmt: skip
                axes.set_title(agent_label(agent).replace(", ", "\n"), fontsize=9.5)
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            every = _together(found)
            log_if_positive(row[0], every)
            cut_explosions(row[0], every)
            row[0].set_ylabel(f"{environment_name(name)}\nRMSE of the state")
        grid[-1, columns // 2].set_xlabel("open-loop step")
        handles = {
            label: line
            for axes in figure.axes
            for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles)
        )

    return draw(path, PAGE_WIDTH, 2.5 * len(lines) + 0.9, paint)


def _checked(name: str, found: Mapping[str, ArrayLike], num_agents: int) -> dict[str, np.ndarray]:
    """The errors of an environment as arrays of the right sizes."""
    values = {method: np.asarray(found[method], float) for method in found}
    for method, array in values.items():
        if array.ndim != 2 or len(array) != num_agents:
            raise ValueError(
                f"errors {array.shape} of {method} in {name} do not fit {num_agents} agents: give "
                "[agents, steps]"
            )
    return values


def _together(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """All errors of an environment, `[methods * A, S]`, NaN past a method's last step."""
    length = max(values.shape[1] for values in found.values())
    pad = lambda values: np.pad(  # noqa: E731
        values, ((0, 0), (0, length - values.shape[1])), constant_values=np.nan
    )
    return np.concatenate([pad(values) for values in found.values()])


def errors_of(rows: Iterable[Row], behavior: str) -> dict[str, dict[str, np.ndarray]]:
    """The errors that rows of `rmse_over_horizon` hold, the mean over trials.

    Args:
      rows: Rows of any kind.
      behavior: Of the data that models were trained on.
    """
    chosen = [
        row
        for row in select(rows)
        if (row["metric"], row["behavior"]) == ("rmse_over_horizon", behavior)
    ]
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in environments(chosen):
        mine = [row for row in chosen if row["environment"] == name]
        known = {row["method"] for row in mine}
        found[name] = {
            method: _mean_over_trials([row for row in mine if row["method"] == method], name)
            for method in METHODS
            if method in known
        }
    return found


def _mean_over_trials(rows: Sequence[Row], environment: str) -> np.ndarray:
    """`[A, S]` of one method, agents in the paper's order."""
    agents = paper.paper_agents(environment)
    order = {paper.agent_key(environment, agent): index for index, agent in enumerate(agents)}
    length = max(len(row["step_values"]) for row in rows)
    total, count = np.zeros((len(order), length)), np.zeros((len(order), length))
    for row in rows:
        values = np.array([np.nan if v is None else v for v in row["step_values"]], float)
        reached = np.pad(np.isfinite(values), (0, length - len(values)))
        index = order[agent_of(row)]
        total[index, reached] += values[reached[: len(values)]]
        count[index] += reached
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def main(argv: Sequence[str]) -> None:
    """Draws the figure from accepted rows."""
    with one_line_each():
        if len(argv) > 1:
            raise ValueError(f"unknown arguments: {' '.join(argv[1:])}")
        found = errors_of(read_rows(FLAGS.rows), FLAGS.behavior)
        plot_horizons(found, {name: paper.paper_agents(name) for name in found}, FLAGS.out)


if __name__ == "__main__":
    flags.DEFINE_string("rows", "results", "File of rows, or folder of *.jsonl files.")
    flags.DEFINE_string("out", None, "The picture, .png or .svg.", required=True)
    flags.DEFINE_string("behavior", "random", "Of the data that models were trained on.")
    app.run(main)
