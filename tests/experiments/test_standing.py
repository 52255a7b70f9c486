import re

import pytest

from experiments.reporting import build, standing
from experiments.reporting.bars import to_bars
from experiments.reporting.standing import Count, Placing
from tests.experiments.synthetic import returns, row

# The paper's Table 1, random data: 0.04 and R² 1.00, then 0.01 and 1.00 twice; Table 2, random:
# -57.70 ± 5.63, -186.6 ± 4.25, -210.1 ± 4.48; BCQ-P: -500 ± 0 everywhere.
ROWS = [
    row("rmse_mean", 0.02, 0),
    row("rmse_mean", 0.03, 3),
    row("rmse_mean", 0.016, 4),
    row("r2_median", 0.9, 3),
    returns([-300.0, -302.0], 3),
    returns([-57.0, -58.0], 0),
    returns([-400.0, -402.0], 0, "bcq_p"),
    row("return_mean", -500.0, 3, "persim_bcq_5"),
]


def found() -> list[Placing]:
    tables = [make(ROWS, "mountain_car") for make in (build.table_1, build.table_2)]
    return standing.placings([*tables, build.table_3(ROWS, "mountain_car")])


def test_numbers_behind_come_worst_first() -> None:
    late = [p for p in standing.behind(found()) if p.is_ours]
    assert [(p.table, p.measure.metric, p.agent) for p in late] == [
        (1, "rmse_mean", "gravity 0.0025"),
        (2, "return_mean", "gravity 0.0025"),
        (1, "rmse_mean", "gravity 0.0035"),
        (1, "r2_median", "gravity 0.0025"),
    ]
    # (0.03 - 0.01) / 0.01, (301 - 186.6) / 186.6, (0.016 - 0.01) / 0.01, (1 - 0.9) / 1
    assert [p.gap for p in late] == pytest.approx([2.0, 0.61308, 0.6, 0.1], rel=1e-4)


def test_the_table_of_what_is_behind_can_be_read_alone() -> None:
    table = standing.behind_table([p for p in found() if p.is_ours], "behind", "Behind")
    assert [line.labels[0] for line in table.lines] == ["200 %", "61 %", "60 %", "0.10"]
    second = table.lines[1]
    assert second.labels[1] == "Table 2, return: MountainCar, Random, PerSim, gravity 0.0025"
    assert [piece[0] for piece in second.cells[0].pieces] == ["−301.0", "[−302.0, −300.0]"]
    assert second.cells[0].pieces[0][1] == "worse"
    assert second.cells[1].pieces[0][0] == "−186.6 ± 4.25"
    assert "no interval" in table.notes[1]


def test_a_printed_zero_counts_as_half_of_its_digit() -> None:
    rows = [row("rmse_mean", 0.1, 3, environment="cart_pole", behavior="pure_eps40")]
    placing = standing.placings([build.table_1(rows, "cart_pole")])[0]
    assert placing.measure.paper is not None
    assert (placing.measure.paper.value, placing.measure.paper.decimals) == (0.0, 1)
    assert placing.gap == pytest.approx(0.1 / 0.05)


def test_cells_are_counted_by_their_error_or_return() -> None:
    absent = {(1, "mountain_car", "cadm_pets"): 3, (3, "mountain_car", "persim_cql_5"): 5}
    absent |= {(3, "mountain_car", "bcq_p"): 5, (1, "mountain_car", "pooled_mlp"): 3}
    counted = standing.counts(found(), absent)
    assert counted == [
        Count(1, "mountain_car", True, better=1, same=0, worse=2),
        Count(2, "mountain_car", True, better=0, same=1, worse=1),
        Count(3, "mountain_car", True, better=0, same=1, worse=0, absent=5),
        Count(1, "mountain_car", False, better=0, same=0, worse=0, absent=3),
        Count(2, "mountain_car", False, better=1, same=0, worse=0),
    ]
    assert standing.headline(counted) == (
        "Of 6 errors and returns of PerSim, alone or behind an offline learner, 1 are better than "
        "the paper's, 2 the same, 3 worse. 5 more are not measured yet."
    )
    assert standing.headline([]) == ""


def test_bars_say_in_words_what_they_show() -> None:
    page = to_bars(
        [Count(1, "mountain_car", True, 4, 2, 0, 1), Count(2, "cart_pole", False, 0, 0, 3)]
    )
    assert (
        'aria-label="Table 1, MountainCar: 4 better, 2 the same, 0 worse, 1 without rows"' in page
    )
    # Widths in proportion, nothing where there is nothing, a mark beside each colour.
    assert re.findall(r'class="bar (\w+)" style="flex-grow:(\d+)">([^<]*)<', page) == [
        ("better", "4", "▲ 4"),
        ("same", "2", "= 2"),
        ("absent", "1", "1"),
        ("worse", "3", "▼ 3"),
    ]
    assert page.index("PerSim against") < page.index("Other methods")
    assert to_bars([]) == ""
