"""HalfCheetah's job from covariates to a report: continuous actions, a planner that resumes."""

import io
import itertools
import json

import pytest
from rich.console import Console

from experiments.records import read_rows
from experiments.run import run
from tests.experiments.jobs import tiny

pytestmark = [pytest.mark.slow, pytest.mark.optimizes]

PRINTED = ("0.3/1.7", "1.7/0.3", "0.3/0.3")
"""Agents of the paper's Table 2."""
CONFIG = tiny(
    "half_cheetah",
    agents__num_agents=6,
    prediction__num_steps=5,
    planner__num_candidates=4,
    planner__num_elites=2,
    planner__chunk_size=-1,
    planner__horizon=2,
    planner__num_rounds=1,
    evaluation__planning_episodes=1,
)


def test_the_job_ends_in_rows_of_full_episodes_and_a_drawn_report(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    report = run(CONFIG, tmp_path / "run", console=console)
    rows = read_rows(tmp_path / "run" / "rows.jsonl")

    returns = [row for row in rows if row["metric"] == "return_mean"]
    assert {(row["method"], row["paper_label"]) for row in returns} == set(
        itertools.product(("persim", "true_env"), PRINTED)
    )
    for row in returns:
        assert row["num_decisions"] == 1000
        # On a CPU it is MuJoCo that steps the cheetahs, and rows say so.
        assert row["backend"] == "mujoco"
        # A step costs at most 0.6 for its actions, and nobody who hardly plans runs at 3 m/s.
        assert -600.0 - 3000.0 < row["value"] < 3000.0
    errors = [row for row in rows if row["metric"] == "rmse_mean"]
    assert len({row["agent_id"] for row in errors}) == 5
    assert all(0 < row["value"] < 100 for row in errors)

    lines = (tmp_path / "run" / "episodes.jsonl").read_text("utf8").splitlines()
    episodes = [json.loads(line) for line in lines if line]
    assert [e["method"] for e in episodes] == ["persim"] * 3 + ["true_env"] * 3
    assert {e["value"] for e in episodes} == {row["value"] for row in returns}
    text = report.read_text("utf8")
    assert "data:image/png" in text
    assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} >= {
        "predictions.png", "predictions.gif", "agent_factors.png",
    }  # fmt: skip
