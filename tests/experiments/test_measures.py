import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.reporting import model
from experiments.reporting.measures import Measure, measure, reached, sign_verdict, verdict
from persim_jax.evaluation import aggregate
from persim_jax.evaluation.paper import PaperCell
from tests.experiments.synthetic import returns, row

PAPER = PaperCell(-200.0, 5.0, 1, "-200.0 ± 5.0")


def test_trials_weigh_the_same_whatever_their_episodes() -> None:
    rows = [returns([-100.0] * 10), returns([-200.0] * 2, trial=1)]
    made = measure(rows, None)
    assert made.value == -150.0
    assert made.std == pytest.approx(np.std([-100.0, -200.0], ddof=1))
    assert made.num_trials == 2
    assert made.verdict == ""


def test_a_trial_without_a_value_is_not_counted() -> None:
    empty = row("return_mean", math.nan, trial=1, episodes_diverged=0)
    made = measure([returns([-100.0, -110.0]), empty], PAPER)
    assert (made.value, made.num_trials) == (-105.0, 1)
    assert math.isnan(made.std)
    # One trial lacks its episodes, so the interval would be that of the other alone.
    assert math.isnan(made.low)
    assert made.verdict == "better"


def test_all_values_missing_is_no_verdict() -> None:
    made = measure([row("return_mean", None, episodes_diverged=0)], PAPER)
    assert math.isnan(made.value)
    assert (made.num_trials, made.verdict) == (0, "")


def test_interval_is_of_the_mean_over_trials() -> None:
    rng = np.random.default_rng(0)
    episodes = [list(rng.normal(-200.0, 10.0, 50)) for _ in range(4)]
    made = measure([returns(e, trial=t) for t, e in enumerate(episodes)], PAPER)
    # Variance of a mean of four trial means of fifty episodes each.
    spread = math.sqrt(sum(np.var(e) / 50 for e in episodes)) / 4
    assert made.high - made.low == pytest.approx(2 * 1.96 * spread, rel=0.06)


def test_a_median_has_the_interval_of_a_median() -> None:
    values = [0.8, *[0.9] * 40, 1.0]
    made = measure([row("r2_median", 0.9, episode_values=values)], None)
    # Whatever is drawn, its median is 0.9: the interval of a mean would have a width.
    assert (made.low, made.high) == (0.9, 0.9)
    made = measure([row("rmse_mean", 0.2, episode_values=[0.1, None, 0.3])], None)
    assert made.low == pytest.approx(0.1)
    assert math.isnan(measure([row("rmse_std", 0.2, episode_values=[0.1, 0.3])], None).low)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # Printed as 0.10: 0.05 to 0.15 in all. Both intervals reach it, from either side.
        (Measure("rmse_mean", 0.12, low=0.103, high=0.13), "same"),
        (Measure("rmse_mean", 0.12, low=0.106, high=0.13), "worse"),
        (Measure("rmse_mean", 0.08, low=0.07, high=0.097), "same"),
        (Measure("rmse_mean", 0.08, low=0.07, high=0.094), "better"),
        # No interval: equal as printed, or not.
        (Measure("rmse_mean", 0.104), "same"),
        (Measure("rmse_mean", 0.106), "worse"),
        (Measure("r2_median", 0.106), "better"),
    ],
)
def test_intervals_decide_about_errors(error: Measure, expected: str) -> None:
    cell = PaperCell(0.1, None, 2, "0.10")
    assert verdict(dataclasses.replace(error, paper=cell)) == expected


def test_a_difference_of_a_single_episode_decides_nothing() -> None:
    assert sign_verdict(aggregate.paired_difference([9.0], [1.0])) == ""
    assert sign_verdict(aggregate.paired_difference([9.0, 9.0], [1.0, 1.0])) == "better"
    assert sign_verdict(aggregate.paired_difference([1.0, 1.0], [9.0, 9.0])) == "worse"
    assert sign_verdict(aggregate.paired_difference([1.0, 9.0], [9.0, 1.0])) == "same"


def test_the_spread_over_trials_decides_where_it_is_wider() -> None:
    narrow = Measure("return_mean", -190.0, 8.0, -191.0, -189.0, num_trials=2, paper=PAPER)
    # 1.96 * 8 / sqrt(2) = 11.1, with the paper's 1.96 * 5 / sqrt(5) = 4.4 together 11.9.
    assert verdict(narrow) == "same"
    assert verdict(dataclasses.replace(narrow, num_trials=1)) == "better"
    assert verdict(dataclasses.replace(narrow, value=-188.0, low=-189.0, high=-187.0)) == "better"


@given(st.floats(0.0, 2.0), st.sampled_from([0.01, 0.014, 0.152, 0.5]))
def test_errors_and_scores_are_judged_in_opposite_directions(value: float, other: float) -> None:
    decimals = len(str(other)) - 2
    cell = PaperCell(other, None, decimals, "")
    error = verdict(Measure("rmse_mean", value, paper=cell))
    score = verdict(Measure("r2_median", value, paper=cell))
    assert {error, score} in ({"same"}, {"better", "worse"})
    assert (error == "better") == (value < other and error != "same")


@given(st.floats(-400.0, 0.0), st.floats(0.0, 50.0), st.floats(0.0, 50.0))
def test_a_wider_interval_never_makes_a_difference(value: float, half: float, more: float) -> None:
    def judged(width: float) -> str:
        ends = (value - width, value + width)
        return verdict(Measure("return_mean", value, math.nan, *ends, paper=PAPER))

    if judged(half) == "same":
        assert judged(half + more) == "same"


@given(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.01, 0.04, 0.152]))
def test_half_of_the_paper_is_also_at_the_paper(value: float, other: float) -> None:
    decimals = len(str(other)) - 2
    made = Measure("rmse_mean", value, paper=PaperCell(other, None, decimals, ""))
    made = Measure("rmse_mean", value, paper=made.paper, verdict=verdict(made))
    if reached(made, 0.5):
        assert reached(made)
    assert reached(made) == (made.verdict in ("better", "same"))


@given(st.floats(1e-4, 1e3, exclude_max=True))
def test_written_errors_are_right_to_two_digits(value: float) -> None:
    assert float(model.error_text(value)) == pytest.approx(value, rel=0.051)


@given(st.floats(-1e5, 1e5))
def test_written_returns_have_a_real_minus_and_no_negative_zero(value: float) -> None:
    text = model.return_text(value)
    assert "-" not in text
    assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.51)
    assert text.lstrip("−").strip("0.") or not text.startswith("−")


def test_intervals_as_written() -> None:
    assert model.interval_text(-1.25, 2.0) == "[−1.2, 2.0]"
    assert model.interval_text(0.012, 0.1, 1, 100.0) == "[1.2, 10.0]"
    assert model.interval_text(math.nan, 1.0) == ""
    assert model.return_text(-105.0, 12.3) == "−105.0 ± 12.3"
    assert model.return_text(-105.0, 123.4) == "−105.0 ± 123"


def test_names_as_written() -> None:
    assert model.agent_name({"force": 10.0, "length": 0.85}) == "force 10, length 0.85"
    assert model.agent_name({"gravity": float(np.float32(0.0025))}) == "gravity 0.0025"
    assert model.agent_name({"mass_scale": 0.3, "own": 2.0}) == "mass × 0.3, own 2"
    assert model.method_name("persim_bcq_20") == "PerSim-BCQ-20"
    assert model.method_name("true_env") == "True env + MPC"
    assert model.behavior_name("pure_eps40") == "Pure-ε-40"
    assert model.behavior_name("any") == "–"
    assert model.environment_name("reacher") == "reacher"
