"""Return of offline learners over the number of synthetic trajectories that they are given.

python -m experiments.figures.augmentation --rows=results --out=docs/images/synthetic.png
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.errors import one_line_each
from experiments.figures.style import COLORS, PAGE_WIDTH, draw
from experiments.records import Row, read_rows
from experiments.reporting import model
from experiments.reporting.measures import measure
from experiments.reporting.sheet import environments, make_sheet
from persim_jax.evaluation import paper
from persim_jax.methods.offline import AUGMENTED, OWN, POOLED, parse_name

FLAGS = flags.FLAGS
LEARNERS = ("bcq", "cql")


def plot_augmentation(path: str | pathlib.Path, rows: Sequence[Row]) -> Figure:
    """A row of panels for each environment, a panel for each test agent, a line for each learner.

    0 synthetic trajectories is `-A`; the dashed line is `-P`, which has the true trajectories of
    all agents. Bars are 95 % intervals of the mean over episodes.

    Args:
      path: The picture.
      rows: Rows of any kind.

    Returns:
      The figure.

    Raises:
      ValueError: No row is of a learner with synthetic trajectories.
    """
    found = [r for r in rows if r["behavior"] == "random" and parse_name(r["method"])]
    names = environments(r for r in found if parse_name(r["method"])[2])  # type: ignore[index]
    if not names:
        raise ValueError("no row has synthetic trajectories: run persim_bcq_5 and others first")

    def paint(figure: Figure) -> None:
        axes = figure.subplots(len(names), 5, squeeze=False, sharex=True, sharey="row")
        for line, name in zip(axes, names, strict=True):
            for axis, agent in zip(line, paper.paper_agents(name), strict=True):
                _panel(axis, found, name, agent)
            line[0].set_ylabel(f"{model.environment_name(name)}\nreturn")
        figure.supxlabel("synthetic trajectories of each agent", fontsize="medium")
        # The lines of the first panel, in the last one, where there is most room.
        axes[0][-1].legend(*axes[0][0].get_legend_handles_labels(), loc="center")

    return draw(path, PAGE_WIDTH, 2.4 * len(names) + 0.4, paint)


def _panel(axis: Axes, rows: Sequence[Row], environment: str, agent: dict[str, float]) -> None:
    sheet = make_sheet(rows, environment, 3, ("return_mean",))
    key = paper.agent_key(environment, agent)
    cells = {method: found for (_, method, who, _), found in sheet.cells.items() if who == key}
    about = {method: parse_name(method) for method in cells}
    for learner, color in zip(LEARNERS, COLORS, strict=False):
        points = sorted(
            (said.num_synthetic, measure(cells[method], None))
            for method, said in about.items()
            if said is not None and said.learner == learner and said.view in (OWN, AUGMENTED)
        )
        if points:
            counts = [count for count, _ in points]
            values = np.array([m.value for _, m in points])
            low, high = (np.array([getattr(m, end) for _, m in points]) for end in ("low", "high"))
            bars = np.nan_to_num([values - low, high - values])
            axis.errorbar(
                counts, values, np.maximum(bars, 0.0), color=color, marker="o", ms=3,
                label=learner.upper(),
            )  # fmt: skip
        for method, said in about.items():
            if said is not None and (said.learner, said.view) == (learner, POOLED):
                axis.axhline(measure(cells[method], None).value, color=color, ls="--", lw=0.8)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xticks([0, 1, 5, 20, 100], ["0", "1", "5", "20", "100"])
    axis.set_title(model.agent_name(agent), fontsize="small")


def main(argv: Sequence[str]) -> None:
    """Draws the figure from accepted rows."""
    with one_line_each():
        if len(argv) > 1:
            raise ValueError(f"unknown arguments: {' '.join(argv[1:])}")
        plot_augmentation(FLAGS.out, read_rows(FLAGS.rows))


if __name__ == "__main__":
    flags.DEFINE_string("rows", "results", "File of rows, or folder of *.jsonl files.")
    flags.DEFINE_string("out", None, "The picture, .png or .svg.", required=True)
    app.run(main)
