"""Tuning measures the whole grid, on validation agents only, and chooses by the mean."""

import pytest

from configs.baselines import GRID, get_baselines
from experiments import tune_baselines
from experiments.baseline_settings import method_digest, offline_settings
from experiments.stages import make_dataset, make_world
from experiments.tune_baselines import METRIC, Setting, changed, choose, grid_settings, tune
from experiments.workdir import opened
from tests.experiments.jobs import quiet_display, tiny

CONFIG = tiny()


def test_the_grid_is_all_of_it_for_the_learners_and_views_asked_for():
    found = list(grid_settings(True, ["bcq", "cql"], ["p", "k"]))
    values = [value for fields in GRID.values() for own in fields.values() for value in own]
    assert len(found) == len(set(found)) == 2 * len(values)
    assert {setting.method for setting in found} == {
        "bcq_p", "persim_bcq_5", "cql_p", "persim_cql_5"
    }  # fmt: skip
    assert {s.value for s in found if s.method == "bcq_p"} == set(GRID["bcq"]["threshold"])


@pytest.mark.parametrize("environment", ["mountain_car", "cart_pole"])
def test_what_was_chosen_is_in_the_grid(environment):
    section = get_baselines(environment, "").to_dict()
    for learner, fields in GRID.items():
        for view in "pak":
            chosen = section[learner][view]
            assert chosen.pop("num_steps") in tune_baselines.STEPS
            assert chosen.keys() == fields.keys()
            assert all(chosen[name] in values for name, values in fields.items())


def test_a_setting_changes_its_own_learner_and_view_alone():
    setting = Setting("persim_bcq_5", "threshold", 0.6)
    new = changed(CONFIG, setting, 40)
    settings = offline_settings(new, "persim_bcq_5")
    assert (settings.learner.threshold, settings.train.num_steps) == (0.6, 40)
    for other in ("bcq_a", "bcq_p", "persim_cql_5", "persim"):
        assert method_digest(new, other) == method_digest(CONFIG, other)
    assert changed(CONFIG, setting, 40) != CONFIG


def row(method, value, steps, field_value, metric=METRIC):
    return {
        "environment": "cart_pole", "method": method, "metric": metric, "value": value,
        "field": "weight", "field_value": field_value, "num_steps": steps,
    }  # fmt: skip


def test_the_best_mean_over_agents_and_behaviors_comes_first():
    rows = [
        row("cql_a", 10.0, 10, 1.0), row("cql_a", 30.0, 10, 1.0),
        row("cql_a", 25.0, 20, 1.0), row("cql_a", 5.0, 20, 1.0),
        row("cql_a", 19.0, 10, 4.0), row("cql_a", 99.0, 10, 4.0, "return_mean"),
        row("bcq_p", 7.0, 10, 0.3),
    ]  # fmt: skip
    assert [line.split(": mean return ")[1].split()[0] for line in choose(rows)] == [
        "7.0", "20.0", "19.0", "15.0"
    ]  # fmt: skip
    assert choose(rows)[1].startswith("cart_pole cql_a: weight 1, 10 steps")


def test_a_setting_under_which_an_agent_diverged_comes_last():
    rows = [row("cql_a", 5.0, 10, 1.0), row("cql_a", 99.0, 10, 4.0), row("cql_a", None, 10, 4.0)]
    assert [line.split(": ")[1].split(",")[0] for line in choose(rows)] == ["weight 1", "weight 4"]
    assert "mean return -inf over 2 agents" in choose(rows)[1]


@pytest.mark.slow
@pytest.mark.optimizes
def test_tuning_looks_at_validation_agents_only_and_at_no_setting_twice(tmp_path, monkeypatch):
    world, found = make_world(CONFIG), [Setting("bcq_a", "threshold", 0.3)]
    with opened(tmp_path, CONFIG) as where:
        dataset = make_dataset(where, world, quiet_display())
        tune(where, world, dataset, found, (10, 20), quiet_display(), 2)
        rows = [r for r in where.rows() if r["metric"] == METRIC]
        assert {r["agent_id"] for r in rows} == set(world.agents.validation_ids)
        assert not set(world.agents.test_ids) & {r["agent_id"] for r in rows}
        assert sorted({r["num_steps"] for r in rows}) == [10, 20]
        assert len({r["config_digest"] for r in rows}) == 2
        monkeypatch.setattr(tune_baselines, "_states_at", None)  # whoever trains again fails
        tune(where, world, dataset, found, (10, 20), quiet_display())
        assert len(where.rows()) == len(rows) + 1  # and the row of the data's cost
