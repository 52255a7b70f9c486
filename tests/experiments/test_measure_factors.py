"""Rows of factor correlations against factors whose first component is known."""

import numpy as np
import pytest

from experiments.measure import measure_factors
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
