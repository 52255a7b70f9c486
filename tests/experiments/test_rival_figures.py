"""Figures with several methods: who is drawn where, and from which rows."""

import pathlib
from typing import Any

import numpy as np
import pytest

from experiments import figures
from experiments.figures.filmstrip import OUTSIDE, PREDICTED_ALPHA
from experiments.figures.gallery import draw_gallery
from experiments.figures.horizons import errors_of, plot_horizons
from persim_jax.evaluation import paper
from tests.experiments import synthetic
from tests.experiments.test_figures import check_file, polygons

AGENTS = [{"force": 10.0, "length": 0.85}, {"force": 10.0, "length": 0.15}]


def test_models_stand_side_by_side_in_the_view_of_the_first(tmp_path: pathlib.Path) -> None:
    true = np.zeros((2, 51, 4))
    near, far = true.copy(), true.copy()
    near[..., 0] = 0.3
    far[..., 0] = np.where(np.arange(51) < 40, 0.1, 1e6)
    path = tmp_path / "strip.png"
    predicted = {"PerSim": near, "CaDM": far}
    figure = figures.plot_side_by_side("cart_pole", true, predicted, AGENTS, path)
    check_file(path, figure)
    # Each agent has three panels of each model.
    drawn = {
        (axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start): axes
        for axes in figure.axes
    }
    assert sorted(drawn) == [(r, c) for r in range(2) for c in (0, 1, 2, 4, 5, 6)]
    assert drawn[0, 1].get_title() == "PerSim\nstep 30"
    assert drawn[0, 5].get_title() == "CaDM\nstep 30"
    for row in range(2):
        for column, expected in ((0, 0.3), (1, 0.3), (4, 0.1), (5, 0.1)):
            assert len(polygons(drawn[row, column], 1.0)) == 2  # the truth, in every panel
            cart, _ = polygons(drawn[row, column], PREDICTED_ALPHA)
            assert cart[:, 0].mean() == pytest.approx(expected, abs=0.1)
        assert not polygons(drawn[row, 6], PREDICTED_ALPHA)
        assert OUTSIDE in [text.get_text() for text in drawn[row, 6].texts]
        assert drawn[row, 0].get_xlim() == drawn[row, 4].get_xlim()
    with pytest.raises(ValueError, match="there is no model's prediction"):
        figures.plot_side_by_side("cart_pole", true, {}, AGENTS, path)


def test_each_agent_has_a_panel_and_each_method_its_own_line(tmp_path: pathlib.Path) -> None:
    errors = {
        "cart_pole": {
            "persim": np.geomspace(0.01, 1, 10) * np.ones((2, 1)),
            "pooled_mlp": np.geomspace(0.1, 2, 10) * np.ones((2, 1)),
        },
        "mountain_car": {"pooled_mlp": np.full((1, 4), 0.5)},
    }
    agents = {"cart_pole": AGENTS, "mountain_car": [{"gravity": 0.001}]}
    path = tmp_path / "horizons.png"
    figure = plot_horizons(errors, agents, path)
    check_file(path, figure)
    first, second, other = (axes for axes in figure.axes if axes.lines)
    for axes, index in ((first, 0), (second, 1)):
        for line, method in zip(axes.lines, ("persim", "pooled_mlp"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 11))
            np.testing.assert_array_equal(line.get_ydata(), errors["cart_pole"][method][index])
    assert first.get_yscale() == "log"
    # A method looks alike whichever others there are, and unlike them.
    looks = [(line.get_color(), line.get_linestyle()) for line in (*first.lines, *other.lines)]
    assert looks[1] == looks[2] != looks[0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["PerSim", "Pooled MLP"]
    with pytest.raises(ValueError, match=r"errors \(1, 4\) of pooled_mlp .* do not fit 2 agents"):
        plot_horizons(errors, agents | {"mountain_car": AGENTS}, path)
    with pytest.raises(ValueError, match="there are no errors over the horizon"):
        plot_horizons({}, {}, path)


def horizon_row(values: list[Any], agent: int, method: str, **fields: Any) -> dict[str, Any]:
    return synthetic.row("rmse_over_horizon", 1.0, agent, method, step_values=values, **fields)


def test_errors_come_from_rows_by_agent_and_method_as_means_over_trials() -> None:
    rows = [
        horizon_row([1.0, 2.0, 4.0], 3, "persim", trial=0),
        horizon_row([3.0, None, 4.0], 3, "persim", trial=1),
        horizon_row([0.5, 0.5, 0.5], 0, "pooled_mlp"),
        horizon_row([9.0, 9.0, 9.0], 0, "pooled_mlp", behavior="pure"),
        synthetic.row("rmse_mean", 7.0, 0),
    ]
    found = errors_of(rows, "random")
    assert list(found) == ["mountain_car"]
    assert list(found["mountain_car"]) == ["persim", "pooled_mlp"]
    persim = found["mountain_car"]["persim"]
    assert persim.shape == (len(paper.paper_agents("mountain_car")), 3)
    np.testing.assert_array_equal(persim[3], [2.0, 2.0, 4.0])
    assert np.isnan(np.delete(persim, 3, axis=0)).all()
    np.testing.assert_array_equal(found["mountain_car"]["pooled_mlp"][0], [0.5] * 3)


def test_gallery_shows_methods_beside_each_other(tmp_path: pathlib.Path) -> None:
    workdir = synthetic.write_workdir(tmp_path / "run", "cart_pole")
    config = synthetic.config("cart_pole")
    arrays = workdir / "arrays"
    own = (arrays / "predictions.npz").read_bytes()
    for name in ("pooled_mlp", "cadm_pets"):
        (arrays / f"predictions_{name}.npz").write_bytes(own)
    for other in (arrays / "factors.npz", workdir / "metrics.jsonl", workdir / "timings.json"):
        other.unlink()
    pictures, missing = draw_gallery(workdir, config)
    assert [picture.path.name for picture in pictures[-2:]] == [
        "horizon_error_by_method.png", "predictions_rivals.png"
    ]  # fmt: skip
    assert "PerSim, PE-TS CaDM, Pooled MLP" in pictures[-2].alt
    # An ablation is no method of Figure 2.
    assert "for PerSim and PE-TS CaDM." in pictures[-1].alt
    assert len(missing) == 3
    with np.load(arrays / "predictions.npz") as stored:
        moved = dict(stored) | {"true": stored["true"] + 1.0}
    np.savez(arrays / "predictions_cadm_pets.npz", **moved)
    (arrays / "predictions.npz").rename(arrays / "predictions_cadm_vanilla.npz")
    assert "different episodes" in draw_gallery(workdir, config)[1][-1]
