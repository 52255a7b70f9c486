"""Figures of a report: a run's own, those over many runs, and those that the documents show."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from experiments.figures.gallery import Picture, draw_gallery
from experiments.figures.studies import plot_curves, plot_improvement
from experiments.records import Row
from experiments.reporting import model
from experiments.reporting.model import Table
from experiments.reporting.newcomers import newcomers_curves
from experiments.reporting.studies import (
    QUALITY,
    Curve,
    behavior_curves,
    is_number,
    knob_curves,
    study_axis,
    study_names,
    study_title,
)
from experiments.reporting.workdir import Workdir
from experiments.stamps import ROOT

IMAGES = ROOT / "docs" / "images"


class Drawn(NamedTuple):
    """Pictures by the section that shows them, and what could not be drawn, in words."""

    overview: tuple[Picture, ...] = ()
    unseen: tuple[Picture, ...] = ()
    studies: tuple[Picture, ...] = ()
    figures: tuple[Picture, ...] = ()
    missing: tuple[str, ...] = ()


def draw_pictures(workdir: Workdir, overview: Sequence[Table]) -> Drawn:
    """Draws what can be drawn into the `figures/` of a workdir.

    Args:
      workdir: What was read.
      overview: The tables of PerSim against other methods.
    """
    out = workdir.path / "figures"
    figures, missing = _figures(workdir)
    rows = workdir.rows
    unseen = [
        _curves(newcomers_curves(rows), out / "unseen.png", "transitions shown",
                "Unseen agents: error against what they have shown", _UNSEEN),
    ]  # fmt: skip
    studies = [_study(rows, knob, out) for knob in study_names(rows)]
    quality = _curves(
        behavior_curves(rows), out / "behavior_quality.png", "data",
        "Quality of the data's behavior", _STUDY, tuple(map(model.behavior_name, QUALITY)),
    )  # fmt: skip
    return Drawn(
        overview=tuple(_improvement(table, out) for table in overview if len(table.lines) > 1),
        unseen=tuple(picture for picture in unseen if picture),
        studies=tuple(picture for picture in (*studies, quality) if picture),
        figures=tuple(figures),
        missing=tuple(missing),
    )


_UNSEEN = (
    "Median over newcomers in fresh episodes of the data's behavior, with 95 % bootstrap bands."
)
_STUDY = (
    "Means over the test agents that all points of a line have, with 95 % bootstrap bands over "
    "trials or, of one trial, episodes."
)


def _figures(workdir: Workdir) -> tuple[list[Picture], list[str]]:
    if workdir.kept:
        return [picture for picture in _SHIPPED if picture.path.exists()], []
    if not workdir.is_sweep:
        return draw_gallery(workdir.path, workdir.config)
    found: list[Picture] = []
    drawn: set[str] = set()
    for run in workdir.runs:
        folder, environment = workdir.path / run.name, str(run.config.get("environment"))
        if environment not in drawn and (folder / "arrays").is_dir():
            drawn.add(environment)
            found += [p for p in draw_gallery(folder, run.config)[0] if _is_of_paper(p)]
    missing = "Figures 1 and 2: no run of the sweep has left arrays for them yet"
    return found, [] if found else [missing]


def _is_of_paper(picture: Picture) -> bool:
    return picture.title.startswith("Figure") and picture.path.suffix != ".gif"


def _improvement(table: Table, out: pathlib.Path) -> Picture:
    path = out / f"{table.name}.png"
    plot_improvement(table, path)
    names = [f"{' '.join(line.labels)} {line.cells[0].pieces[0][0]}" for line in table.lines]
    caption = (
        "Right of the line PerSim is better, left of it the other method. Bars: 95 % intervals; "
        "coloured dots: the interval excludes 0.5, grey ones: it does not."
    )
    return Picture(path, table.title, caption, f"Probabilities of improvement: {', '.join(names)}.")


def _study(rows: Sequence[Row], knob: str, out: pathlib.Path) -> Picture | None:
    """The curves over a setting whose values are numbers."""
    curves = knob_curves(rows, knob)
    curves = [curve for curve in curves if all(is_number(point.x) for point in curve.points)]
    logarithmic = all(point.x > 0 for curve in curves for point in curve.points)
    path = out / f"{knob.replace('.', '_')}.png"
    return _curves(curves, path, study_axis(knob), study_title(knob), _STUDY, (), logarithmic)


def _curves(
    curves: Sequence[Curve],
    path: pathlib.Path,
    label: str,
    title: str,
    caption: str,
    ticks: Sequence[str] = (),
    logarithmic: bool = False,
) -> Picture | None:
    if not curves:
        return None
    plot_curves(curves, path, label, ticks, logarithmic)
    places = ", ".join(dict.fromkeys(model.environment_name(c.environment) for c in curves))
    return Picture(path, title, caption, f"Line plots over {label}, of {places}.")


# Rows hold no arrays: of kept results, the figures are those that the documents show.
_SHIPPED = (
    Picture(
        IMAGES / "agent_factors.png",
        "Figure 1: agent factors against covariates",
        "The learned factors of 500 cart-poles, random data, coloured by covariates that training "
        "never saw. Left: t-SNE; right: principal components. Rings: test agents. Made by "
        "python -m experiments.run --config=configs/cart_pole.py --workdir=runs/cart_pole.",
        "Scatter plots of the factors of 500 agents, coloured by force and length.",
    ),
    Picture(
        IMAGES / "half_cheetah.png",
        "Figure 2: true and predicted states",
        "HalfCheetah's test agents, true (dark) and predicted open loop for 50 steps (orange), "
        "from data of 20 % random actions; docs/images/half_cheetah.gif moves. Made by "
        "python -m experiments.run --config=configs/half_cheetah.py --config.behavior=pure_eps20 "
        "--workdir=runs/half_cheetah.",
        "Drawing of true and predicted states of the five test agents side by side.",
    ),
)
