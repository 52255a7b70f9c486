"""Episodes in the true environment: kept one by one, the same for all methods."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import control, measure
from experiments.control import EPISODES_FILE, control_ids, measure_returns, read_episodes
from experiments.measure import open_loop_paths
from experiments.settings import stage_key
from experiments.workdir import Workdir
from persim_jax.methods import TRUE_ENV, Monitor
from tests.experiments.jobs import dataset_of, quiet_display, untimed
from tests.experiments.worlds import Killed, setup_of, wrong_physics


def test_all_methods_and_both_tests_meet_the_same_episodes(tmp_path, monkeypatch):
    where, world = setup_of(tmp_path, evaluation__policy_episodes=4)
    starts = []

    def spying(lanes):
        def compiled(key, env_params, fitted, agents, obs, numbers):
            starts.append((lanes, int(agents[0]), np.asarray(obs)))
            return jnp.zeros(len(obs)), jnp.ones(len(obs), jnp.int32)

        return compiled

    class Spy:
        @staticmethod
        def lower(key, env, env_params, policy, fitted, planner, agents, obs, numbers, width):
            compiled = spying(policy)
            return type("L", (), {"compile": lambda self: compiled})()

    monkeypatch.setattr(control, "evaluate_returns", Spy)
    wrong, params = wrong_physics(world)
    for method, fitted in ((wrong, params), (TRUE_ENV, None)):
        measure_returns(where, world, method, fitted, quiet_display())
    assert len(starts) == 10
    for (_, row, obs), (_, other, fewer) in zip(starts[:5], starts[5:], strict=True):
        assert row == other
        np.testing.assert_array_equal(obs[:2], fewer)  # 4 policy episodes, 2 planning episodes
    assert [row for _, row, _ in starts[:5]] == world.test_rows()
    # The prediction test follows the true episodes from the same starts.
    paths = {}
    monkeypatch.setattr(
        measure.prediction, "true_episodes", lambda *args: paths.setdefault("obs", args[5])
    )
    monkeypatch.setattr(measure.prediction, "open_loop", lambda *args: None)
    open_loop_paths(where, world, wrong, params, world.agents.test_ids[0])
    np.testing.assert_array_equal(paths["obs"][:2], starts[0][2][:2])


@pytest.fixture(scope="module")
def returned(tmp_path_factory):
    """MountainCar's True env + MPC with a tiny planner, measured in one go."""
    where, world = setup_of(tmp_path_factory.mktemp("returned"))
    fitted = TRUE_ENV.fit(
        stage_key(where.config, "fit"), dataset_of(world), world.env, world.env_params, None,
        Monitor(),
    )  # fmt: skip
    measure_returns(where, world, TRUE_ENV, fitted, quiet_display())
    return where, world, fitted


def test_rows_of_returns_hold_the_episodes_that_they_are_of(returned):
    where, world, _ = returned
    for agent_id in world.agents.test_ids:
        (mean,) = (r for r in where.rows_of("true_env", "return_mean") if r["agent_id"] == agent_id)
        (std,) = (r for r in where.rows_of("true_env", "return_std") if r["agent_id"] == agent_id)
        values = np.array(mean["episode_values"])
        assert len(values) == mean["num_episodes"] == 2
        assert mean["value"] == values.mean()
        assert std["value"] == values.std()
        assert mean["behavior"] == "any"
        # MountainCar costs 1 a step but for the one into the goal: steps and returns agree.
        assert mean["num_decisions"] == sum(min(500, 1 - value) for value in values)


def test_the_speed_of_planning_is_that_of_all_episodes(returned):
    where, _, _ = returned
    (rate,) = where.rows_of("true_env", "plan_decisions_per_second")
    rows = where.rows_of("true_env", "return_mean")
    seconds = sum(row["wall_s"] for row in rows)
    assert rate["value"] == pytest.approx(sum(r["num_decisions"] for r in rows) / seconds)
    (compiled,) = where.rows_of("true_env", "compile_seconds")
    assert compiled["value"] > 0


@pytest.mark.parametrize("adds", [1, 3, 6, 7])
def test_planning_that_was_killed_ends_as_an_unbroken_one(tmp_path, monkeypatch, returned, adds):
    where, world = setup_of(tmp_path)
    fitted, add, count = returned[2], Workdir.add, iter(range(adds))

    def killed_add(self, rows):
        if next(count, None) is None:
            raise Killed
        add(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Workdir, "add", killed_add)
        try:
            measure_returns(where, world, TRUE_ENV, fitted, quiet_display())
        except Killed:
            assert adds < 7
    # Compilation, five agents, the rate.
    assert len(where.rows()) == [0, 1, 3, 5, 7, 9, 11, 12][adds]
    measure_returns(where, world, TRUE_ENV, fitted, quiet_display())
    assert untimed(where.rows()) == untimed(returned[0].rows())


def test_returns_of_a_policy_take_the_policies_episodes_and_no_planner(tmp_path):
    where, world = setup_of(tmp_path, name="cart_pole", evaluation__policy_episodes=3)
    method, params = wrong_physics(world)
    measure_returns(where, world, method, params, quiet_display())
    metrics = {row["metric"] for row in where.rows()}
    assert metrics == {"return_mean", "return_std", "compile_seconds"}
    assert {r["num_episodes"] for r in where.rows_of("wrong", "return_mean")} == {3}
    assert {r["behavior"] for r in where.rows_of("wrong", "return_mean")} == {"random"}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory, returned):
    """The same as `returned`, an episode per call."""
    where, world = setup_of(tmp_path_factory.mktemp("one_by_one"), evaluation__episodes_per_call=1)
    measure_returns(where, world, TRUE_ENV, returned[2], quiet_display())
    return where, world


def episode_values(where):
    return {r["agent_id"]: r["episode_values"] for r in where.rows_of("true_env", "return_mean")}


def test_episodes_do_not_depend_on_how_many_run_together(returned, one_by_one, tmp_path):
    assert episode_values(one_by_one[0]) == episode_values(returned[0])
    where, world = setup_of(tmp_path, evaluation__width=2)
    measure_returns(where, world, TRUE_ENV, returned[2], quiet_display())
    assert episode_values(where) == episode_values(returned[0])


@pytest.mark.parametrize("lines", [1, 2, 5])
def test_a_run_that_was_killed_between_episodes_runs_only_the_others(
    tmp_path, monkeypatch, returned, one_by_one, lines
):
    where, world = setup_of(tmp_path, evaluation__episodes_per_call=1)
    text = (one_by_one[0].path / EPISODES_FILE).read_text("utf8").split("\n")
    kept = [line for line in text if line][:lines]
    # The line after them was being written.
    (where.path / EPISODES_FILE).write_text("\n".join([*kept, '{"method": "tru']), "utf8")
    assert len(read_episodes(where, "true_env")) == lines
    run = []
    obs_of = control.episode_obs
    monkeypatch.setattr(
        control, "episode_obs", lambda *args: (run.append(args[2:]), obs_of(*args))[1]
    )
    measure_returns(where, world, TRUE_ENV, returned[2], quiet_display())
    assert len(run) == 10 - lines
    assert episode_values(where) == episode_values(one_by_one[0])
    assert len(read_episodes(where, "true_env")) == 10


def test_each_kept_episode_says_its_return_and_length(one_by_one):
    where, world = one_by_one
    text = (where.path / EPISODES_FILE).read_text("utf8").split("\n")
    lines = [json.loads(line) for line in text if line]
    assert [(e["agent_id"], e["number"]) for e in lines] == [
        (agent_id, number) for agent_id in world.agents.test_ids for number in (0, 1)
    ]
    assert all(e["steps"] == min(500, 1 - e["value"]) for e in lines)
    assert all(e["seconds"] > 0 for e in lines)


def test_planning_may_be_restricted_to_the_agents_that_the_paper_prints(tmp_path):
    where, world = setup_of(tmp_path, evaluation__planning_agents="printed")
    found = [world.agents.covariates_of(i) for i in control_ids(where, world, TRUE_ENV)]
    assert found == [{"gravity": gravity} for gravity in (0.0001, 0.0025, 0.0035)]
    # Policies cost little: all agents.
    wrong, _ = wrong_physics(world)
    assert len(control_ids(where, world, wrong)) == 5


def test_a_true_environment_that_leaves_the_finite_numbers_stops_the_run(tmp_path):
    where, world = setup_of(tmp_path, name="cart_pole")
    method, params = wrong_physics(world)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, world.env_params)
    agent_id = world.agents.test_ids[0]
    # The broken force moves the velocity first and the position, which is paid, a step later.
    with pytest.raises(FloatingPointError, match=f"agent {agent_id} .*episode.* 0 at step 1"):
        measure_returns(
            where, world._replace(env=_nan_reward(world.env), env_params=broken), method, params,
            quiet_display(),
        )  # fmt: skip


def _nan_reward(env):
    """CartPole pays 1 whatever happens: here the reward shows the state."""
    return env._replace(reward=lambda obs, action, next_obs: next_obs[0])
