"""What diverged is null in its row, and yet no run without a number: it counts as the worst."""

import csv
import io
import math

import pytest

from experiments.records import Row
from experiments.reporting import build, model, render, standing, summary
from experiments.reporting.ablations import ablation_tables, against
from experiments.reporting.augmentation import gain_sentences
from experiments.reporting.catalogue import render_tables
from experiments.reporting.measures import diverged, episode_values, measure, with_divergence
from experiments.reporting.newcomers import newcomers_curves, newcomers_tables
from experiments.reporting.overview import overview_table
from experiments.reporting.studies import knob_curves, study_tables
from persim_jax.evaluation.paper import PaperCell
from tests.experiments.synthetic import returns, row

PAPER = PaperCell(0.2, None, 2, "0.20")
INF = math.inf


def errors(*values: float | None, agent: int = 0, method: str = "persim") -> list[Row]:
    """A row of each trial: infinite where it diverged, None where no episode has a score."""
    return [
        row("rmse_mean", value, agent, method, trial=trial, episodes_diverged=int(value == INF))
        for trial, value in enumerate(values)
    ]


def test_one_trial_that_diverged_makes_the_mean_infinite_and_worse() -> None:
    made = measure(errors(0.1, 0.1, 0.1, 0.1, INF), PAPER)
    assert (made.value, made.num_trials, made.num_diverged) == (INF, 5, 1)
    assert math.isnan(made.std)
    assert made.verdict == "worse"
    assert model.measure_text(made) == "diverged in 1 of 5 trials"


@pytest.mark.parametrize(
    ("metric", "worst"), [("rmse_mean", INF), ("r2_median", -INF), ("return_mean", -INF)]
)
def test_where_all_trials_diverged_the_number_is_the_worst(metric: str, worst: float) -> None:
    # As rows were before they said how many episodes diverged.
    made = measure([row(metric, None, trial=trial) for trial in (0, 1)], PAPER)
    assert (made.value, made.verdict, made.num_diverged) == (worst, "worse", 2)
    assert model.measure_text(made) == "diverged"
    # Even where the paper prints 0.0, and without a number of the paper nothing is compared.
    assert measure([row(metric, None)], PaperCell(0.0, None, 1, "0.0")).verdict == "worse"
    assert measure([row(metric, None)], None).verdict == ""


def test_a_run_without_a_score_did_not_diverge() -> None:
    made = measure(errors(0.1, None), PAPER)
    assert (made.value, made.num_trials, made.num_diverged) == (0.1, 1, 0)
    assert measure(errors(None), PAPER).verdict == ""
    assert math.isnan(episode_values(errors(None)[0])[0])
    # Spreads and costs have no worst value.
    assert not diverged(row("rmse_std", None))


@pytest.mark.parametrize(("left_out", "expected"), [(3, False), (2, True), (0, True)])
def test_rows_from_before_are_told_apart_by_the_episodes_left_out(
    left_out: int, expected: bool
) -> None:
    null = row("rmse_mean", None, num_episodes=3, episode_values=[None] * 3)
    rows = [null, row("episodes_left_out", left_out, num_episodes=3)]
    # Of another trial, which says nothing of this one.
    rows.append(row("episodes_left_out", 3, num_episodes=3, trial=1))
    assert diverged(with_divergence(rows)[0]) == expected
    cell = build.table_1(rows, "mountain_car").lines[0].cells[0]
    assert cell.pieces[0] == (("diverged", "worse") if expected else ("–", ""))


def test_the_table_says_so_in_every_format() -> None:
    rows = [*errors(0.1, INF), row("r2_median", 0.9), row("r2_median", None, trial=1)]
    table = build.table_1(rows, "mountain_car")
    said = "diverged in 1 of 2 trials"
    assert table.lines[0].cells[0].pieces == ((said, "worse"), (f"({said})", "worse"))
    assert f"| {said} ▼ ({said}) ▼<br>" in render.to_markdown(table)
    assert rf"{said}$\downarrow$ ({said})$\downarrow$" in render.to_latex(table)
    assert f"{said} <span" in render.to_html(table)
    for text in (render.to_markdown(table), render.to_latex(table), render.to_html(table)):
        assert "Diverged: predictions left the finite numbers" in text
    lines = list(csv.DictReader(io.StringIO(render_tables([table], ".csv"))))
    names = ("metric", "value", "std", "num_trials", "num_diverged", "verdict")
    assert [tuple(line[name] for name in names) for line in lines] == [
        ("rmse_mean", "inf", "", "2", "1", "worse"),
        ("r2_median", "-inf", "", "2", "1", "worse"),
    ]
    assert "Diverged" not in render.to_markdown(build.table_1(errors(0.1), "mountain_car"))


def test_it_is_counted_and_is_the_first_of_what_is_behind() -> None:
    # The paper's: 0.04 and 0.01.
    rows = [*errors(0.001, INF), *errors(0.9, agent=3)]
    found = standing.placings([build.table_1(rows, "mountain_car")])
    assert standing.headline(standing.counts(found)).endswith(
        "0 are better than the paper's, 0 the same, 2 worse."
    )
    table = standing.behind_table(found, "behind", "Behind")
    assert [line.labels[0] for line in table.lines] == ["∞", "8900 %"]
    assert table.lines[0].cells[0].pieces == (("diverged in 1 of 2 trials", "worse"),)
    assert r"$\infty$" in render.to_latex(table)
    assert "in 0 of 2 cells" in summary.prediction_sentence(rows, "mountain_car")


def test_the_overview_ranks_it_last() -> None:
    rows = errors(0.1, 0.2, 0.3, INF) + errors(0.15, 0.4, INF, INF, method="cadm_pets")
    # Without a score in one of the methods: the cell is in neither's mean.
    rows += errors(None, agent=1) + errors(0.9, agent=1, method="cadm_pets")
    better, ours, theirs, cells, runs, _ = overview_table(rows, "rmse_mean").lines[0].cells
    # Of 16 pairs 0.1 wins 4, 0.2 and 0.3 win 3 each, and two that diverged are level: 11 in all.
    assert better.measures[0].value == 11 / 16
    # One of four is left out at each end: 0.2 and 0.3 stay; 0.4 and an infinite one.
    assert ours.measures[0].value == pytest.approx(0.25)
    assert ours.extra == "diverged in 1 of 4 runs"
    assert (theirs.measures[0].value, theirs.pieces) == (INF, (("diverged in 2 of 4 runs", ""),))
    assert (cells.pieces[0][0], runs.pieces[0][0]) == ("1", "4")


def test_returns_that_diverged_rank_below_all_others() -> None:
    rows = [returns([-400.0, -500.0]), row("return_mean", None, method="bcq_p")]
    better, ours, theirs = overview_table(rows, "return_mean").lines[0].cells[:3]
    # The single run of each side never changes sides, however its episodes are drawn.
    found = better.measures[0]
    assert (found.value, found.low, found.high, found.verdict) == (1.0, 1.0, 1.0, "better")
    assert ours.measures[0].value == -450.0
    assert theirs.pieces == (("diverged", ""),)


def test_without_an_interval_the_overview_has_no_verdict() -> None:
    rows = [returns([-1.0]), returns([-2.0], method="bcq_p")]
    found = overview_table(rows, "return_mean").lines[0].cells[0].measures[0]
    assert (found.value, found.verdict) == (1.0, "")
    assert math.isnan(found.low)


def test_an_ablation_that_diverged_is_worse_than_the_method() -> None:
    ours, other = errors(0.1, 0.1), errors(0.1, INF, method="pooled_mlp")
    assert (against(other, ours), against(ours, other)) == ("worse", "better")
    assert against(other, errors(INF, 0.1)) == "same"
    assert against(other, []) == ""
    (table,) = ablation_tables([*ours, *other], "mountain_car")
    assert table.lines[1].cells[0].pieces[0] == ("diverged in 1 of 2 trials", "worse")


def test_a_study_says_where_runs_diverged() -> None:
    varied = [made | {"overrides": {"model.rank": 1}} for made in errors(0.5, INF)]
    rows = [*varied, *errors(0.1, 0.3)]
    (curve,) = knob_curves(rows, "model.rank")
    assert [point.value for point in curve.points] == [INF, pytest.approx(0.2)]
    cells = study_tables(rows)["model.rank"].lines[0].cells
    assert cells[0].pieces == (("diverged in 1 of 2 runs", ""),)
    assert cells[1].pieces[0] == ("0.200", "")


def test_newcomers_of_whom_half_diverged_have_no_median() -> None:
    name = "rmse_newcomers_behavior_{}_transitions"
    rows = [
        row(name.format(0), None, agent_values=[0.1, INF, INF]),
        row(name.format(5), 0.2, agent_values=[0.1, 0.2, INF]),
        row(name.format(10), None, agent_values=[]),
    ]
    rows = [made | {"covariates": {}, "agent_id": None} for made in rows]
    cells = newcomers_tables(rows)[0].lines[0].cells
    texts = [cell.pieces[0][0] for cell in cells]
    assert texts[:3] == ["diverged in 2 of 3 agents", "0.200", "–"]
    assert [point.value for point in newcomers_curves(rows)[0].points] == [INF, 0.2]


def test_a_learner_that_diverged_is_not_above_the_others() -> None:
    ours = [returns([-1.0]), row("return_mean", None, trial=1)]
    ours = [made | {"method": "persim_bcq_5"} for made in ours]
    rows = [*ours, returns([-9.0], method="bcq_p"), returns([-8.0], method="bcq_a")]
    assert "in 0 of 1 cells, above both in 0" in gain_sentences(rows, "mountain_car")[0]
