"""What synthetic trajectories gain: differences by hand, counts of cells, the figure."""

import numpy as np
import pytest

from experiments.figures.augmentation import plot_augmentation
from experiments.reporting import build, model
from experiments.reporting.augmentation import gain_sentences, gains_table
from experiments.reporting.selection import METHOD_ORDER, ordered
from tests.experiments.synthetic import returns


def rows_of(agent, p, a, augmented, name="persim_bcq_5"):
    """Rows of one agent, two episodes each around these means."""
    around = lambda mean: [mean - 1.0, mean + 1.0]  # noqa: E731
    named = {"bcq_p": p, "bcq_a": a, name: augmented}
    return [returns(around(mean), agent, method) for method, mean in named.items()]


# Above both, a tie at the floor, above one only, below both; the fifth agent was not run.
ROWS = [
    *rows_of(0, -500.0, -400.0, -100.0),
    *rows_of(1, -500.0, -500.0, -500.0),
    *rows_of(2, -300.0, -100.0, -200.0),
    *rows_of(3, -200.0, -200.0, -300.0),
]


def test_cells_are_counted_against_both_and_equal_means_are_ties():
    (sentence,) = gain_sentences(ROWS, "mountain_car")
    assert "PerSim-BCQ-5 is at or above both BCQ-P and BCQ-A in 2 of 4 cells" in sentence
    assert sentence.endswith("above both in 1.")
    assert gain_sentences(ROWS[:2], "mountain_car") == []
    assert gain_sentences(ROWS, "cart_pole") == []


def test_differences_are_paired_by_episode():
    table = gains_table(ROWS, "mountain_car")
    assert [line.labels for line in table.lines] == [
        ("PerSim-BCQ-5", "BCQ-P"), ("PerSim-BCQ-5", "BCQ-A")
    ]  # fmt: skip
    against_p, against_a = (line.cells for line in table.lines)
    assert [cell.measures[0].value for cell in against_p[:4]] == [400.0, 0.0, 100.0, -100.0]
    assert [cell.measures[0].value for cell in against_a[:4]] == [300.0, 0.0, -100.0, -100.0]
    # The episodes' own spread cancels in pairs.
    assert all(cell.measures[0].low == cell.measures[0].value for cell in against_p[:4])
    verdicts = [cell.measures[0].verdict for cell in against_p[:4]]
    assert verdicts == ["better", "same", "better", "worse"]
    assert not against_p[4].measures


def test_other_data_and_other_methods_stay_out():
    other = [returns([1.0, 2.0], 0, "persim"), returns([1.0, 2.0], 0, "bcq_p", behavior="pure")]
    assert gains_table([*ROWS, *other], "mountain_car") == gains_table(ROWS, "mountain_car")
    assert gains_table(other, "mountain_car").lines == ()


def test_every_number_of_trajectories_has_its_line_in_order_of_size():
    more = [row for k in (100, 20, 1) for row in rows_of(0, 0, 0, -50.0, f"persim_bcq_{k}")[2:]]
    names = [line.method for line in build.table_3([*ROWS, *more], "mountain_car").lines]
    assert names[2:] == ["persim_bcq_5", "persim_bcq_1", "persim_bcq_20", "persim_bcq_100"]
    found = gains_table([*ROWS, *more], "mountain_car")
    assert len(found.lines) == 8
    assert model.method_name("persim_cql_20") == "PerSim-CQL-20"
    assert ordered(["x_100", "x_20", "persim"], METHOD_ORDER) == ["persim", "x_20", "x_100"]


def test_the_figure_shows_returns_over_the_number_of_trajectories(tmp_path):
    more = [row for k in (1, 20) for row in rows_of(0, 0, 0, -50.0 - k, f"persim_bcq_{k}")[2:]]
    figure = plot_augmentation(tmp_path / "figure.png", [*ROWS, *more])
    assert (tmp_path / "figure.png").exists()
    axis = figure.axes[0]
    bars = axis.containers[0]
    np.testing.assert_array_equal(bars.lines[0].get_xdata(), [0, 1, 5, 20])
    np.testing.assert_allclose(bars.lines[0].get_ydata(), [-400.0, -51.0, -100.0, -70.0])
    assert [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"] == [-500.0]


def test_a_figure_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no row has synthetic trajectories"):
        plot_augmentation(tmp_path / "figure.png", [returns([1.0], 0, "bcq_p")])
