"""Keys of the stages: apart from each other, and the same whatever else there is."""

import itertools

import jax
import numpy as np
import pytest

from experiments import settings
from tests.experiments.jobs import tiny

# What all accepted results were drawn with; a new stage takes a new number.
NUMBERS = {"data": 0, "fit": 1, "prediction": 2, "planning": 3, "episodes": 4}


def bits(config: dict, stage: str) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(settings.stage_key(config, stage))).tolist())


def test_every_stage_seed_and_trial_has_a_key_of_its_own():
    cases = list(itertools.product((0, 1, 7), (0, 1, 2, 4), settings.STAGES))
    keys = [bits(tiny(seed=seed, trial=trial), stage) for seed, trial, stage in cases]
    assert len(set(keys)) == len(cases)


def test_seed_and_trial_are_not_interchangeable():
    assert bits(tiny(seed=1, trial=2), "data") != bits(tiny(seed=2, trial=1), "data")


@pytest.mark.parametrize("stage", NUMBERS)
def test_a_key_is_folded_from_seed_trial_and_the_number_of_its_stage(stage):
    root = jax.random.fold_in(jax.random.key(5), 3)
    expected = jax.random.key_data(jax.random.fold_in(root, NUMBERS[stage]))
    np.testing.assert_array_equal(bits(tiny(seed=5, trial=3), stage), expected)


def test_new_stages_change_no_key(monkeypatch):
    before = {stage: bits(tiny(), stage) for stage in NUMBERS}
    monkeypatch.setattr(settings, "STAGES", {"cadm": 9, "first": 10} | settings.STAGES)
    assert {stage: bits(tiny(), stage) for stage in NUMBERS} == before
    assert len(set(settings.STAGES.values())) == len(settings.STAGES)


def test_keys_depend_on_nothing_else_in_the_config():
    other = tiny(behavior="pure", train__num_epochs=7, model__rank=2, prediction__num_episodes=9)
    assert all(bits(other, stage) == bits(tiny(), stage) for stage in NUMBERS)


def test_methods_share_the_planners_settings():
    config = tiny(planner__horizon=11, planner__bonus_weight=0.25)
    planner = settings.planner_config(config)
    assert (planner.horizon, planner.bonus_weight, planner.num_candidates) == (11, 0.25, 8)


def test_a_negative_agent_start_means_pytorchs_draw():
    assert settings.persim_config(tiny(model__agent_start=-1.0)).agent_start is None
    assert settings.persim_config(tiny(model__agent_start=0.0)).agent_start == 0.0
    assert settings.persim_config(tiny(model__agent_start=1.0)).agent_start == 1.0
