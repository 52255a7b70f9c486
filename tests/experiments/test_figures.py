import math
import pathlib
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from PIL import Image, ImageSequence

from experiments import figures
from experiments.figures import scenes
from experiments.figures.animation import FRAME_MS, LAST_FRAME_MS, last_finite
from experiments.figures.curves import duration
from experiments.figures.factors import tsne_embedding
from experiments.figures.filmstrip import PREDICTED_ALPHA, STEPS
from experiments.figures.gallery import draw_gallery
from persim_jax.evaluation import paper
from persim_jax.evaluation.latent import first_component_correlation
from tests.experiments import synthetic

RNG = np.random.default_rng(0)


def check_file(path: pathlib.Path, figure: Figure) -> None:
    with Image.open(path) as image:
        inches = figure.get_size_inches()
        assert image.size == pytest.approx(tuple(inches * 160), abs=1)
        # A picture of one colour would be empty.
        assert len(image.convert("L").getcolors(256) or []) > 8


def test_factors_show_every_agent_in_the_colour_of_its_covariate(tmp_path: pathlib.Path) -> None:
    covariates = RNG.uniform(size=(40, 2))
    factors = np.stack([covariates @ RNG.normal(size=(2, 3)) for _ in range(3)])
    names = ("force", "length")
    path = tmp_path / "factors.png"
    figure = figures.plot_agent_factors(factors, covariates, names, [0, 7], path, member=1)
    check_file(path, figure)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(panels) == 4
    for index, axes in enumerate(panels):
        points, rings = (c for c in axes.collections if isinstance(c, PathCollection))
        np.testing.assert_allclose(points.get_array(), covariates[:, index // 2])
        np.testing.assert_allclose(rings.get_offsets(), points.get_offsets()[[0, 7]])
    for row in (0, 1):
        own = [first_component_correlation(f, covariates[:, row]) for f in factors]
        expected = f"{own[1]:.2f} (all members: {min(own):.2f} to {max(own):.2f})"
        assert panels[2 * row + 1].get_title() == f"|r| with component 1: {expected}"
        # Three factors, linear in both covariates, determine them.
        assert panels[2 * row].get_title().endswith("R² from all factors 1.00")


def test_factors_of_wrong_shape_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"factors \(5, 3\), covariates \(5, 1\) and 1 names"):
        figures.plot_agent_factors(
            np.ones((5, 3)), np.ones((5, 1)), ["gravity"], [], tmp_path / "a.png"
        )


def test_tsne_keeps_far_clusters_apart() -> None:
    clusters = np.repeat([[0.0] * 3, [50.0] * 3], 10, axis=0) + RNG.normal(size=(20, 3))
    embedded = tsne_embedding(clusters)
    centres = embedded.reshape(2, 10, 2).mean(axis=1)
    spread = embedded.reshape(2, 10, 2).std(axis=1).max()
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread
    np.testing.assert_array_equal(embedded, tsne_embedding(clusters))


def polygons(axes: Any, alpha: float) -> list[np.ndarray]:
    found = [p for p in axes.patches if isinstance(p, Polygon)]
    return [p.get_xy() for p in found if p.get_facecolor()[3] == alpha]


def test_film_strip_draws_true_opaque_and_predicted_translucent(tmp_path: pathlib.Path) -> None:
    true = np.zeros((2, 51, 4))
    true[1, 45:] = np.nan
    predicted = true + np.array([0.3, 0.0, 0.2, 0.0])
    agents = [{"force": 10.0, "length": 0.85}, {"force": 10.0, "length": 0.15}]
    path = tmp_path / "strip.png"
    figure = figures.plot_filmstrip("cart_pole", true, predicted, agents, path)
    check_file(path, figure)
    grid = np.array(figure.axes).reshape(2, len(STEPS))
    assert [axes.get_title() for axes in grid[0]] == ["start", *(f"step {s}" for s in STEPS[1:])]
    for row, length in enumerate((1.7, 0.3)):
        _, pole = polygons(grid[row, 1], 1.0)
        _, shadow = polygons(grid[row, 1], PREDICTED_ALPHA)
        # Upright from the cart's top, as long as the agent's own pole.
        assert np.ptp(pole[:, 1]) == pytest.approx(length)
        tip, foot = shadow[1:3].mean(axis=0), shadow[[0, 3]].mean(axis=0)
        assert math.atan2(*(tip - foot)) == pytest.approx(0.2)
        assert foot[0] == pytest.approx(0.3)
    assert not polygons(grid[1, 5], 1.0)
    assert "ended" in grid[1, 5].texts[0].get_text()
    # One scale for all agents.
    assert len({round(float(np.diff(axes.get_xlim())[0]), 9) for axes in grid.flat}) == 1


def test_steps_beyond_the_horizon_are_left_out(tmp_path: pathlib.Path) -> None:
    true, predicted = synthetic.states("mountain_car")
    agents = list(paper.paper_agents("mountain_car"))
    path = tmp_path / "strip.svg"
    figure = figures.plot_filmstrip("mountain_car", true, predicted, agents, path)
    assert len(figure.axes) == 5 * 2
    assert path.read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="no drawing of 'acrobot'; there is one of cart"):
        figures.plot_filmstrip("acrobot", true, predicted, agents, path)
    with pytest.raises(ValueError, match="and 1 agents do not fit"):
        figures.plot_filmstrip("mountain_car", true, predicted, agents[:1], path)


def test_the_car_stands_on_the_road_and_along_it() -> None:
    for x in np.linspace(-1.2, 0.6, 19):
        body, *wheels = scenes.mountain_car_shapes([x, 0.0], {})
        axis = np.array(body.points[1]) - np.array(body.points[0])
        slope = (scenes.hill(x + 1e-6) - scenes.hill(x - 1e-6)) / 2e-6
        assert axis[1] / axis[0] == pytest.approx(slope, rel=1e-6)
        middle = np.mean([wheel.points[0] for wheel in wheels], axis=0)
        above = np.linalg.norm(middle - [x, scenes.hill(x)])
        assert above == pytest.approx(scenes.WHEEL / 2)
    # The valley of sin(3 x) and the goal near its top.
    assert scenes.hill(-math.pi / 6) == pytest.approx(0.1)
    assert scenes.hill(math.pi / 6) == pytest.approx(1.0)


@pytest.mark.parametrize("environment", ["mountain_car", "cart_pole"])
def test_animation_has_a_frame_per_step(tmp_path: pathlib.Path, environment: str) -> None:
    true, predicted = synthetic.states(environment)
    agents = list(paper.paper_agents(environment))
    width, _ = scenes.scene_of(environment).panel
    path = tmp_path / "states.gif"
    assert figures.write_gif(environment, true, predicted, agents, path) == 13
    with Image.open(path) as image:
        assert image.n_frames == 13
        assert image.width == 5 * width
        assert image.info["loop"] == 0
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
        assert image.info["duration"] == LAST_FRAME_MS
        image.seek(0)
        assert image.info["duration"] == FRAME_MS
    assert path.stat().st_size < 200_000
    arrays = [np.asarray(frame, int) for frame in frames]
    own, ended = slice(0, width), slice(4 * width + 3, 5 * width - 3)
    body = slice(40, 220)
    # The first agent moves to the end; the last stays where its episode ended, paler.
    assert np.abs(arrays[12] - arrays[7])[body, own].max() > 100
    assert np.abs(arrays[12] - arrays[7])[body, ended].max() == 0
    assert arrays[12][body, ended].min() > arrays[2][body, ended].min()
    # Both colours, and a background that is white.
    assert arrays[0][60, 5].tolist() == [255, 255, 255]
    orange = (arrays[0][..., 0] > 200) & (arrays[0][..., 2] < 170)
    assert orange[:220].sum() > 20


def test_last_finite_step() -> None:
    states = np.array([[0.0, 1.0], [np.nan, 1.0], [2.0, 2.0]])
    assert [last_finite(states, step) for step in range(3)] == [0, 0, 2]
    assert last_finite(states[1:], 0) is None


def test_horizon_error_draws_means_and_bands(tmp_path: pathlib.Path) -> None:
    rmse = np.geomspace(0.001, 1.0, 20) * np.array([[1.0], [3.0]])
    rmse[1, 15:] = np.nan
    agents = [{"gravity": 0.001}, {"gravity": 0.002}]
    path = tmp_path / "error.png"
    figure = figures.plot_horizon_error(rmse, rmse / 2, rmse * 2, agents, path)
    check_file(path, figure)
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    for line, expected in zip(axes.lines, rmse, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 21))
        np.testing.assert_array_equal(line.get_ydata(), expected)
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.0005, 2.0))
    legend = axes.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["gravity 0.001", "gravity 0.002"]
    # Told apart without colours.
    assert len({line.get_linestyle() for line in axes.lines}) == 2


def test_an_exact_zero_keeps_a_linear_axis(tmp_path: pathlib.Path) -> None:
    rmse = np.array([[0.0, 1.0]])
    figure = figures.plot_horizon_error(rmse, rmse, rmse, [{"gravity": 0.1}], tmp_path / "e.png")
    assert figure.axes[0].get_yscale() == "linear"
    with pytest.raises(ValueError, match="and 2 agents do not fit"):
        figures.plot_horizon_error(rmse, rmse, rmse, [{}, {}], tmp_path / "e.png")


def test_an_agent_whose_error_explodes_leaves_the_picture(tmp_path: pathlib.Path) -> None:
    rmse = np.geomspace(0.5, 8.0, 30) * np.ones((3, 1))
    rmse[1] = np.geomspace(0.5, 1e30, 30)
    rmse[1, 20:] = np.inf
    agents = [{"mass_scale": 1.0, "damping_scale": scale} for scale in (0.3, 1.0, 1.7)]
    figure = figures.plot_horizon_error(rmse, rmse / 2, rmse * 2, agents, tmp_path / "error.png")
    assert figure.axes[0].get_ylim() == pytest.approx((0.25, 8e3))
    # Where all are alike, nothing is cut.
    figure = figures.plot_horizon_error(*[rmse[::2]] * 3, agents[::2], tmp_path / "error.png")
    assert figure.axes[0].get_ylim()[1] < 20


def test_learning_curves_have_a_line_per_member(tmp_path: pathlib.Path) -> None:
    losses = RNG.uniform(0.1, 1.0, (6, 3))
    path = tmp_path / "curves.png"
    figure = figures.plot_learning_curves(np.arange(6), losses, path)
    check_file(path, figure)
    drawn = np.stack([line.get_ydata() for line in figure.axes[0].lines], axis=1)
    np.testing.assert_array_equal(drawn, losses)
    with pytest.raises(ValueError, match="do not fit 5 epochs"):
        figures.plot_learning_curves(np.arange(5), losses, path)


def test_timings_are_bars_in_order(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "timings.png"
    figure = figures.plot_timings({"collect": 2.0, "train_persim": 130.0}, path)
    check_file(path, figure)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [2.0, 130.0]
    assert [text.get_text() for text in axes.texts] == ["2.0 s", "2 min 10 s"]
    assert axes.get_title() == "total 2 min 12 s"
    with pytest.raises(ValueError, match="timings are empty"):
        figures.plot_timings({}, path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (12.4, "12 s"),
        (59.6, "1 min 0 s"),
        (7500, "2 h 5 min"),
        (math.nan, "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_gallery_draws_what_is_there_and_names_the_rest(tmp_path: pathlib.Path) -> None:
    workdir = synthetic.write_workdir(tmp_path / "run", "cart_pole")
    (workdir / "metrics.jsonl").unlink()
    (workdir / "timings.json").write_text("{}")
    pictures, missing = draw_gallery(workdir, synthetic.config("cart_pole"))
    assert [picture.path.name for picture in pictures] == [
        "agent_factors.png",
        "predictions.png",
        "predictions.gif",
        "horizon_error.png",
    ]
    assert all(picture.path.stat().st_size > 1000 and picture.alt for picture in pictures)
    assert missing[0] == "metrics.jsonl (learning curves)"
    assert missing[1].startswith("time by stage: timings.json cannot be drawn (timings are empty")
    (workdir / "arrays" / "factors.npz").write_bytes(b"half a file")
    assert any("factors.npz cannot be drawn" in text for text in draw_gallery(workdir, {})[1])


def test_a_change_of_phase_is_marked(tmp_path: pathlib.Path) -> None:
    losses = RNG.uniform(0.1, 1.0, (4, 2))
    phases = ["adam", "adam", "polish", "polish"]
    path = tmp_path / "curves.png"
    figure = figures.plot_learning_curves([1, 2, 3, 4], losses, path, phases)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [" polish"]
    assert list(axes.lines[2].get_xdata()) == [2.5, 2.5]
