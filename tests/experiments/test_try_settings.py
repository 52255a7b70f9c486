"""Settings are tried on the validation agents, with the numbers that a run would give them."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.baseline_settings import method_digest
from experiments.measure import episode_scores, open_loop_paths
from experiments.records import read_rows
from experiments.stages import make_world
from experiments.try_settings import METRICS, summary, try_settings
from experiments.workdir import Workdir
from persim_jax.methods.persim import PERSIM
from persim_jax.simulators import PersonalizedSimulators
from tests.experiments.jobs import tiny

CONFIG = tiny("cart_pole", agents__num_agents=12)


def quiet():
    return Console(file=io.StringIO(), width=100)


@pytest.mark.slow
@pytest.mark.optimizes
def test_an_idea_is_measured_on_the_validation_agents_and_on_no_others(tmp_path):
    rows = try_settings(CONFIG, tmp_path, decisions=6, console=quiet())
    world = make_world(CONFIG)
    chosen = set(world.agents.validation_ids)
    assert not chosen & set(world.agents.test_ids)
    assert {(row["metric"], row["agent_id"]) for row in rows} == {
        (metric, agent_id) for metric in METRICS for agent_id in chosen
    }
    # CartPole pays 1 a step, and six steps are too few to fall in.
    returns = [row for row in rows if row["metric"] == "validation_return_mean"]
    assert {(row["value"], row["num_steps"]) for row in returns} == {(6.0, 6)}

    # The prediction test is the protocol's, with other agents.
    where = Workdir(tmp_path, CONFIG)
    fitted = PersonalizedSimulators.load(tmp_path / "simulators", world.env)
    agent_id = world.agents.validation_ids[0]
    with jax.default_matmul_precision(CONFIG["matmul_precision"]):
        rmse, _ = episode_scores(open_loop_paths(where, world, PERSIM, fitted, agent_id))
    stored = next(
        r for r in rows if (r["metric"], r["agent_id"]) == ("validation_rmse_mean", agent_id)
    )
    np.testing.assert_allclose(stored["value"], np.nanmean(rmse), rtol=1e-5)

    # What is measured is not measured again; other decisions are another measurement.
    again = try_settings(CONFIG, tmp_path, decisions=6, console=quiet())
    assert [row["measured_at"] for row in again] == [row["measured_at"] for row in rows]
    assert len(read_rows(tmp_path / "rows.jsonl")) >= len(rows)


def row(agent_id, metric, value, **extras):
    return {
        "agent_id": agent_id, "metric": metric, "value": value,
        "covariates": {"gravity": 0.001 * agent_id}, **extras,
    }  # fmt: skip


def test_the_summary_has_a_line_for_each_agent():
    rows = [
        row(1, "validation_rmse_mean", 0.5), row(1, "validation_r2_median", 0.75),
        row(2, "validation_rmse_mean", 0.25), row(2, "validation_r2_median", 1.0),
        row(2, "validation_return_mean", -12.5, num_steps=80),
    ]  # fmt: skip
    console = quiet()
    console.print(summary(rows))
    lines = console.file.getvalue().splitlines()
    first = next(line for line in lines if "gravity 0.001" in line)
    second = next(line for line in lines if "gravity 0.002" in line)
    assert all(part in first for part in ("0.5", "0.750", "-"))
    assert all(part in second for part in ("0.25", "1.000", "-12.5 in 80 steps"))


def test_a_value_that_was_not_finite_is_said():
    rows = [row(1, "validation_rmse_mean", None), row(1, "validation_r2_median", 0.75)]
    rows += [row(1, "validation_return_mean", None, num_steps=3)]
    console = quiet()
    console.print(summary(rows))
    line = next(x for x in console.file.getvalue().splitlines() if "gravity" in x)
    assert "not finite in 3 steps" in line
    assert line.count("not finite") == 2
    assert "0.750" in line


def test_fewer_than_no_decisions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="decisions is -1"):
        try_settings(CONFIG, tmp_path / "none", decisions=-1)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.optimizes
def test_another_method_is_tried_as_persim_is(tmp_path):
    rows = try_settings(CONFIG, tmp_path, decisions=0, console=quiet(), method="cadm_vanilla")
    ids = make_world(CONFIG).agents.validation_ids
    assert {(row["metric"], row["agent_id"]) for row in rows} == {
        (metric, agent_id) for metric in METRICS[:2] for agent_id in ids
    }
    assert {row["method"] for row in rows} == {"cadm_vanilla"}
    assert {row["config_digest"] for row in rows} == {method_digest(CONFIG, "cadm_vanilla")}
    assert all(np.isfinite(row["value"]) for row in rows)
    assert not (tmp_path / "simulators").exists()


def test_a_method_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="method 'bcq_a' learns no model: use one of persim, con"):
        try_settings(CONFIG, tmp_path / "none", method="bcq_a")
    assert not (tmp_path / "none").exists()
