"""Newcomers of a small run: rows by the name of what they showed, and agents nobody trained on."""

import jax
import numpy as np
import pytest
from rich.console import Console

from configs import mountain_car
from envs.covariates import make_agents
from experiments import unseen as module
from experiments.stages import make_world


@pytest.fixture(scope="module")
def config():
    """A run that is small, and good enough for an order to show."""
    config = mountain_car.get_config("smoke")
    config.agents.num_agents = 30
    config.train.update({"num_epochs": 30, "polish_rounds": 1, "polish_steps": 100})
    config.prediction.num_steps = 20
    return config.to_dict()


def test_newcomers_are_nobody_that_training_knows(config):
    world = make_world(config)
    crowd = module.newcomer_world(config, world, 40)
    assert crowd.agents.num_agents == 40
    known = np.concatenate([world.agents.covariates, make_agents("mountain_car").covariates])
    assert not np.isin(crowd.agents.covariates, known).any()
    assert jax.tree.leaves(crowd.env_params)[0].shape[0] == 40
    assert crowd.env is world.env


@pytest.mark.slow
@pytest.mark.optimizes
def test_what_newcomers_show_is_worth_something(config, tmp_path):
    rows = module.measure(config, tmp_path, 6, (0, 30), 50, Console(quiet=True))
    values = {row["metric"]: row["value"] for row in rows}
    kinds = [f"newcomers_{policy}" for policy in module.POLICIES]
    expected = {
        f"{score}_known_agents_{policy}" for score in ("rmse", "r2") for policy in module.POLICIES
    }
    expected |= {
        f"{score}_{kind}_{count}_transitions{source}"
        for score in ("rmse", "r2") for kind in kinds for count in (0, 30)
        for source in ("", "_and_covariates")
    }  # fmt: skip
    assert set(values) == expected | {"personalize_seconds"}
    nothing, shown, told = (
        values[f"rmse_newcomers_behavior_{name}"]
        for name in ("0_transitions", "30_transitions", "0_transitions_and_covariates")
    )
    assert shown < 0.7 * nothing
    assert told < 0.7 * nothing
    (row,) = [r for r in rows if r["metric"] == "rmse_newcomers_behavior_30_transitions"]
    assert row["transitions_shown"] == 30
    assert len(row["agent_values"]) == row["num_agents"] == 6
    np.testing.assert_allclose(np.median(row["agent_values"]), row["value"])
    (speed,) = [r for r in rows if r["metric"] == "personalize_seconds"]
    assert speed["num_newcomers"] == 50
    assert 0 < speed["value"] < speed["first_call_seconds"]


def test_numbers_of_transitions_are_told_before_anything_is_measured():
    assert module.counts_of(["0", "5", "20"]) == [0, 5, 20]
    for wrong in (["five"], ["5", "-1"], ["5", "5"], []):
        with pytest.raises(ValueError, match=r"--num_transitions=.*: give whole numbers"):
            module.counts_of(wrong)
