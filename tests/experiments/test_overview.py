import math

import numpy as np
import pytest

from experiments.reporting.ablations import ablation_tables, against
from experiments.reporting.overview import overview_table, overview_tables
from tests.experiments.synthetic import returns, row


def test_probability_and_means_by_hand() -> None:
    # Three cells, one trial: PerSim ahead, level, behind.
    rows = [returns([-100.0, -102.0], agent) for agent in (0, 1, 2)]
    rows += [
        returns([value] * 2, agent, "bcq_p") for agent, value in ((0, -200), (1, -101), (2, -50))
    ]
    # Without a partner, left out.
    rows += [returns([-1.0, -1.0], 3), returns([-9.0, -9.0], 4, "bcq_p")]
    table = overview_table(rows, "return_mean")
    assert len(table.lines) == 1
    better, ours, theirs = (cell.measures[0] for cell in table.lines[0].cells[:3])
    assert better.value == pytest.approx(0.5)
    assert (ours.value, theirs.value) == (-101.0, pytest.approx(-117.0))
    cells, runs, over = (cell.pieces[0][0] for cell in table.lines[0].cells[3:])
    assert (cells, runs, over) == ("3", "3", "episodes")
    assert "too narrow" in table.notes[1]


def test_lower_errors_win() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for trial in (0, 1, 2):
        for agent in range(5):
            for method, level in (("persim", 0.1), ("cadm_pets", 0.5)):
                values = rng.normal(level, 0.01, 20).tolist()
                rows.append(
                    row("rmse_mean", float(np.mean(values)), agent, method, trial=trial,
                        num_episodes=20, episode_values=values)
                )  # fmt: skip
    table = overview_table(rows, "rmse_mean")
    better = table.lines[0].cells[0].measures[0]
    assert (better.value, better.low, better.high) == (1.0, 1.0, 1.0)
    assert better.verdict == "better"
    assert table.lines[0].cells[5].pieces[0][0] == "trials"
    assert len(table.notes) == 1
    assert table.lines[0].cells[1].measures[0].value == pytest.approx(0.1, abs=0.005)


def test_the_true_environment_is_met_by_every_behavior() -> None:
    rows = [returns([-50.0, -60.0], 0, "true_env")]
    rows += [returns([-55.0, -70.0], 0, behavior=behavior) for behavior in ("random", "pure")]
    line = overview_table(rows, "return_mean").lines[0]
    assert line.labels == ("MountainCar", "True env + MPC")
    assert line.cells[3].pieces[0][0] == "2"


def test_nothing_to_compare_makes_no_table() -> None:
    assert overview_tables([returns([-1.0, -2.0])]) == []
    # Ablations have tables of their own.
    assert (
        overview_tables([returns([-1.0, -2.0]), returns([-1.0, -2.0], method="pooled_mlp")]) == []
    )


def errors(values: list[float], method: str, agent: int = 0) -> dict[str, object]:
    mean = float(np.mean(values))
    return row("rmse_mean", mean, agent, method, episode_values=values, num_episodes=len(values))


def test_ablations_stand_against_persim_paired_by_episode() -> None:
    base = [0.1, 0.2, 0.3, 0.4, 0.5]
    rows = [errors(base, "persim")]
    # Each a little worse in every episode, though means lie within each other's spread.
    rows += [errors([value + 0.01 * (1 + i % 2) for i, value in enumerate(base)], "pooled_mlp")]
    rows += [errors([0.5, 0.4, 0.3, 0.2, 0.1], "concat_mlp")]
    tables = ablation_tables(rows, "mountain_car")
    assert [table.name for table in tables] == ["ablations_rmse_mean"]
    verdicts = {line.method: line.cells[0].pieces[0][1] for line in tables[0].lines}
    assert verdicts == {"persim": "", "concat_mlp": "same", "pooled_mlp": "worse"}
    assert [line.method for line in tables[0].lines] == ["persim", "concat_mlp", "pooled_mlp"]


def test_higher_returns_win_and_pairs_are_needed() -> None:
    ours, other = returns([5.0, 6.0, 7.0]), returns([1.0, 2.0, 3.0], method="pooled_mlp")
    assert against([other], [ours]) == "worse"
    assert against([ours], [other]) == "better"
    assert against([other | {"trial": 1}], [ours]) == ""
    assert against([other | {"episode_values": None}], [ours]) == ""


def test_no_ablation_makes_no_table() -> None:
    assert ablation_tables([errors([0.1, 0.2], "persim")], "mountain_car") == []


def test_a_lost_model_has_the_worst_score() -> None:
    rows = [row("rmse_mean", math.inf), errors([0.1, 0.2], "cadm_pets")]
    better = overview_table(rows, "rmse_mean").lines[0].cells[0].measures[0]
    assert (better.value, better.verdict) == (0.0, "worse")
