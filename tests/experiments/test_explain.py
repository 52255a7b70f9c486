"""Rows that explain the tables, against factors and errors whose answer is known."""

import json

import numpy as np
import pytest

from experiments.baseline_settings import method_digest
from experiments.explain import growth_of, measure_factors, measure_growth
from experiments.stages import make_world
from experiments.workdir import Workdir
from tests.experiments.jobs import tiny


def rows_of(where):
    return {row["metric"]: row for row in where.rows()}


def test_factors_that_follow_one_covariate_correlate_with_it_as_numpy_says(tmp_path):
    config = tiny(name="cart_pole", agents__num_agents=40)
    where, world = Workdir(tmp_path, config), make_world(config)
    force, length = world.agents.covariates.T.astype(np.float64)
    # Member 0 knows the force alone; member 1 its negative and, a hundred times weaker, the length.
    first = np.stack([force, np.zeros_like(force)], axis=1)
    second = np.stack([-10.0 * force, 0.1 * length], axis=1)
    measure_factors(where, world, "persim", np.stack([first, second]))
    rows = rows_of(where)
    assert set(rows) == {"factor_correlation_force", "factor_correlation_length"}
    assert rows["factor_correlation_force"]["value"] == pytest.approx(1.0, abs=1e-6)
    expected = abs(np.corrcoef(force, length)[0, 1])
    values = rows["factor_correlation_length"]["member_values"]
    np.testing.assert_allclose(values, [expected, expected], atol=1e-3)


def test_what_was_measured_is_not_measured_again(tmp_path):
    config = tiny(agents__num_agents=10)
    where, world = Workdir(tmp_path, config), make_world(config)
    gravity = world.agents.covariates[None]
    measure_factors(where, world, "persim", gravity)
    before = where.rows_path.read_bytes()
    measure_factors(where, world, "persim", np.random.default_rng(0).normal(size=gravity.shape))
    assert where.rows_path.read_bytes() == before


def test_growth_of_an_exponential_error_is_its_rate():
    errors = 1e-4 * 1.15 ** np.arange(50.0)
    found = growth_of(np.where(np.arange(50) < 40, errors, np.nan))
    assert found["error_growth_per_step"] == pytest.approx(1.15)
    assert found["rmse_first_step"] == pytest.approx(1e-4)
    assert found["rmse_last_step"] == pytest.approx(errors[39])


@pytest.mark.parametrize("length", [0, 5])
def test_too_few_steps_have_no_growth(length):
    found = growth_of(np.where(np.arange(50) < length, 1.0, np.nan))
    assert np.isnan(found["error_growth_per_step"])
    assert np.isnan(found["rmse_first_step"]) == (length == 0)


def test_each_test_agent_gets_its_own_growth(tmp_path):
    config = tiny(agents__num_agents=10)
    where, world = Workdir(tmp_path, config), make_world(config)
    ids = np.asarray(world.agents.test_ids)
    errors = np.stack([(1 + 0.1 * i) ** np.arange(20.0) for i in range(len(ids))])
    measure_growth(where, world, "persim", {"agent_ids": ids, "rmse_per_step": errors})
    rows = [row for row in where.rows() if row["metric"] == "error_growth_per_step"]
    found = {row["agent_id"]: row["value"] for row in rows}
    assert found == pytest.approx({int(a): 1 + 0.1 * i for i, a in enumerate(ids)})


def test_rows_hold_the_error_of_each_step_under_the_digest_of_the_method(tmp_path):
    config = tiny(agents__num_agents=10)
    where, world = Workdir(tmp_path, config), make_world(config)
    ids = np.asarray(world.agents.test_ids)[:2]
    errors = np.float64([[1.0, 3.0, np.nan], [2.0, 4.0, 9.0]])
    horizon = {"agent_ids": ids, "rmse_per_step": errors, "rmse_per_step_low": errors / 2}
    measure_growth(where, world, "pooled_mlp", horizon)
    rows = [row for row in where.rows() if row["metric"] == "rmse_over_horizon"]
    assert [row["value"] for row in rows] == [2.0, 5.0]
    assert [row["step_values"] for row in rows] == [[1.0, 3.0, None], [2.0, 4.0, 9.0]]
    assert rows[1]["step_low"] == [1.0, 2.0, 4.5]
    assert {row["config_digest"] for row in where.rows()} == {method_digest(config, "pooled_mlp")}
    # A row that an older version did not measure is added, the others stay.
    before = where.rows()
    where.rows_path.write_text("".join(json.dumps(row) + "\n" for row in before if row not in rows))
    measure_growth(where, world, "pooled_mlp", horizon)
    drop = lambda row: {k: v for k, v in row.items() if k != "measured_at"}  # noqa: E731
    assert sorted(map(str, map(drop, where.rows()))) == sorted(map(str, map(drop, before)))
