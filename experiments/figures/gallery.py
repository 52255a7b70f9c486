"""All figures of a run, drawn from what lies in its workdir."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.figures.animation import write_gif
from experiments.figures.curves import plot_horizon_error, plot_learning_curves, plot_timings
from experiments.figures.factors import plot_agent_factors
from experiments.figures.filmstrip import plot_filmstrip, plot_side_by_side
from experiments.figures.horizons import METHODS, plot_horizons
from experiments.figures.scenes import SCENES
from experiments.reporting.model import method_name
from persim_jax.evaluation import paper

SIDE_BY_SIDE = ("persim", "cadm_vanilla", "cadm_pets")
"""The methods of Figure 2."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure on disk.

    Attributes:
      path: Its file.
      title: A heading.
      caption: What is to be seen, in words.
      alt: What a reader who cannot see it should know.
    """

    path: pathlib.Path
    title: str
    caption: str
    alt: str


def draw_gallery(
    workdir: pathlib.Path, config: Mapping[str, Any]
) -> tuple[list[Picture], list[str]]:
    """Draws what can be drawn into `figures/`.

    Args:
      workdir: A run's folder; anything may be missing.
      config: Its config, for the environment's name.

    Returns:
      The pictures, and what is missing, in words.
    """
    painters: tuple[tuple[str, Callable[..., list[Picture]]], ...] = (
        ("arrays/factors.npz", _factors),
        ("arrays/predictions.npz", _predictions),
        ("arrays/predictions.npz", _horizon),
        ("metrics.jsonl", _curves),
        ("timings.json", _timings),
    )
    pictures: list[Picture] = []
    missing: list[str] = []
    for source, painter in painters:
        path = workdir / source
        if not path.exists():
            missing.append(f"{source} ({_CONTENT[painter.__name__]})")
            continue
        try:
            pictures += painter(path, workdir / "figures", config)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            # A half-written or old file must not hide the rest of the report.
            missing.append(f"{_CONTENT[painter.__name__]}: {source} cannot be drawn ({error})")
    try:
        pictures += _rivals(workdir / "arrays", workdir / "figures", config)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        missing.append(f"methods beside each other: they cannot be drawn ({error})")
    return pictures, missing


_CONTENT: Mapping[str, str] = {
    "_factors": "Figure 1, agent factors",
    "_predictions": "Figure 2, predicted states",
    "_horizon": "error over the horizon",
    "_curves": "learning curves",
    "_timings": "time by stage",
}


def _factors(source: pathlib.Path, out: pathlib.Path, config: Mapping[str, Any]) -> list[Picture]:
    arrays = _load(source, "factors", "covariates", "test_rows")
    names = _covariate_names(config, arrays["covariates"].shape[1])
    path = out / "agent_factors.png"
    plot_agent_factors(arrays["factors"], arrays["covariates"], names, arrays["test_rows"], path)
    count = arrays["covariates"].shape[0]
    caption = (
        f"The learned factors of {count} agents, coloured by covariates that training never saw. "
        "Left: t-SNE; right: principal components. Rings: test agents."
    )
    alt = f"Scatter plots of the factors of {count} agents, coloured by {' and '.join(names)}."
    return [Picture(path, "Figure 1: agent factors against covariates", caption, alt)]


def _predictions(
    source: pathlib.Path, out: pathlib.Path, config: Mapping[str, Any]
) -> list[Picture]:
    environment = config.get("environment", "")
    if environment not in SCENES:
        return []
    arrays = _load(source, "true", "predicted", "covariates")
    agents = _agents(config, arrays["covariates"])
    states = (environment, arrays["true"], arrays["predicted"], agents)
    strip, gif = out / "predictions.png", out / "predictions.gif"
    plot_filmstrip(*states, strip)
    write_gif(*states, gif)
    caption = (
        "One episode per test agent, predicted open loop for "
        f"{arrays['true'].shape[1] - 1} steps. Dark: true state; orange: predicted state. "
        f"{SCENES[environment].caption}"
    ).rstrip()
    alt = "Film strip of true and predicted states of the test agents over the horizon."
    return [
        Picture(strip, "Figure 2: true and predicted states", caption, alt),
        Picture(
            gif,
            "Figure 2 in motion",
            "The same episodes, step by step; an ended episode stays, paler.",
            "Animation of true and predicted states of the test agents side by side.",
        ),
    ]


def _horizon(source: pathlib.Path, out: pathlib.Path, config: Mapping[str, Any]) -> list[Picture]:
    names = ("rmse_per_step", "rmse_per_step_low", "rmse_per_step_high", "covariates")
    arrays = _load(source, *names)
    agents = _agents(config, arrays["covariates"])
    path = out / "horizon_error.png"
    rmse, low, high = (arrays[name] for name in names[:3])
    plot_horizon_error(rmse, low, high, agents, path)
    last = arrays["rmse_per_step"][:, -1]
    caption = "Error of the open-loop prediction after each step: mean and band over episodes."
    alt = f"Line plot of error over steps; at the last step from {_span(last)}."
    return [Picture(path, "Error over the horizon", caption, alt)]


def _rivals(folder: pathlib.Path, out: pathlib.Path, config: Mapping[str, Any]) -> list[Picture]:
    """Methods beside each other, where another than PerSim has been tested."""
    files = {"persim": folder / "predictions.npz"}
    files |= {m: folder / f"predictions_{m}.npz" for m in METHODS if m != "persim"}
    names = ("true", "predicted", "rmse_per_step", "covariates")
    found = {m: _load(path, *names) for m, path in files.items() if path.exists()}
    environment = config.get("environment", "")
    if not set(found) - {"persim"}:
        return []
    agents = _agents(config, next(iter(found.values()))["covariates"])
    path = out / "horizon_error_by_method.png"
    errors = {environment: {m: arrays["rmse_per_step"] for m, arrays in found.items()}}
    plot_horizons(errors, {environment: agents}, path)
    caption = "Mean error of the open-loop prediction after each step, a panel for each test agent."
    alt = f"Line plots of error over steps for {', '.join(map(method_name, found))}."
    pictures = [Picture(path, "Error over the horizon, by method", caption, alt)]
    shown = {m: found[m] for m in SIDE_BY_SIDE if m in found}
    if environment in SCENES and len(shown) > 1:
        pictures.append(_side_by_side(shown, environment, agents, out / "predictions_rivals.png"))
    return pictures


def _side_by_side(
    found: Mapping[str, Mapping[str, Any]],
    environment: str,
    agents: list[dict[str, float]],
    path: pathlib.Path,
) -> Picture:
    true = [arrays["true"] for arrays in found.values()]
    if not all(np.array_equal(true[0], other, equal_nan=True) for other in true):
        raise ValueError("the arrays of the methods are of different episodes")
    predicted = {method_name(m): arrays["predicted"] for m, arrays in found.items()}
    plot_side_by_side(environment, true[0], predicted, agents, path)
    caption = (
        "One episode per test agent, predicted open loop by each method. Dark: true state; orange: "
        f"predicted state. {SCENES[environment].caption}"
    ).rstrip()
    alt = f"Film strips of true and predicted states, for {' and '.join(predicted)}."
    return Picture(path, "Figure 2: true state and the prediction of each method", caption, alt)


def _curves(source: pathlib.Path, out: pathlib.Path, config: Mapping[str, Any]) -> list[Picture]:
    del config
    lines = [json.loads(x) for x in source.read_text(encoding="utf8").split("\n") if x.strip()]
    lines = [line for line in lines if isinstance(line.get("loss"), list)]
    if not lines:
        raise ValueError("no line has an epoch and a list of losses")
    losses = [[np.nan if v is None else float(v) for v in line["loss"]] for line in lines]
    path = out / "learning_curves.png"
    phases = [str(line["phase"]) for line in lines if "phase" in line]
    epochs = [line["epoch"] for line in lines]
    plot_learning_curves(epochs, losses, path, phases if len(phases) == len(epochs) else ())
    caption = f"Training loss of the {len(losses[0])} members of the ensemble."
    alt = f"Line plot of training loss over {len(lines)} epochs; it ends at {_span(losses[-1])}."
    return [Picture(path, "Learning curves", caption, alt)]


def _timings(source: pathlib.Path, out: pathlib.Path, config: Mapping[str, Any]) -> list[Picture]:
    del config
    timings = json.loads(source.read_text(encoding="utf8"))
    path = out / "timings.png"
    plot_timings(timings, path)
    longest = max(timings, key=timings.get)
    alt = f"Bar chart of seconds by stage; the longest is {longest} with {timings[longest]:.0f} s."
    return [Picture(path, "Time by stage", "Wall-clock time of the stages of this run.", alt)]


def _load(source: pathlib.Path, *names: str) -> dict[str, np.ndarray[Any, Any]]:
    # Opened here: numpy would leave a broken archive open.
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        absent = [name for name in names if name not in file]
        if absent:
            raise ValueError(f"it lacks the arrays {', '.join(absent)}")
        return {name: file[name] for name in names}


def _covariate_names(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    known = paper.COVARIATES.get(config.get("environment", ""), ())
    return known if len(known) == count else tuple(f"covariate {i}" for i in range(count))


def _agents(config: Mapping[str, Any], covariates: Any) -> list[dict[str, float]]:
    names = _covariate_names(config, covariates.shape[1])
    return [dict(zip(names, map(float, row), strict=True)) for row in covariates]


def _span(values: Any) -> str:
    finite = np.asarray(values, float)[np.isfinite(values)]
    return f"{finite.min():.2g} to {finite.max():.2g}" if finite.size else "no finite value"
