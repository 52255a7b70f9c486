"""The numbers of the tables: same episodes for all, rows that can be computed again by hand."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import measure
from experiments.measure import (
    episode_obs,
    episode_scores,
    measure_prediction,
    open_loop_paths,
)
from experiments.policies import greedy_act
from experiments.settings import stage_key
from persim_jax.evaluation.prediction import OpenLoop
from tests import oracles
from tests.experiments.jobs import quiet_display
from tests.experiments.worlds import setup_of, wrong_physics


@pytest.mark.parametrize("name", ["mountain_car", "cart_pole"])
def test_episodes_start_where_seed_trial_agent_and_episode_say(tmp_path, name):
    where, world = setup_of(tmp_path, name=name, trial=2)
    agent_id = world.agents.test_ids[1]
    found = np.asarray(episode_obs(where, world, agent_id, 3))
    row = list(world.agents.agent_ids).index(agent_id)
    params = jax.tree.map(lambda leaf: leaf[row], world.env_params)
    key = jax.random.fold_in(stage_key(where.config, "episodes"), agent_id)
    for episode in range(3):
        state = world.env.reset(jax.random.fold_in(key, episode), params)
        np.testing.assert_array_equal(found[episode], world.env.observe(state, params))


def test_more_episodes_begin_with_the_fewer_and_all_others_differ(tmp_path):
    where, world = setup_of(tmp_path / "0")
    ids = world.agents.test_ids
    many = np.asarray(episode_obs(where, world, ids[0], 20))
    np.testing.assert_array_equal(episode_obs(where, world, ids[0], 7), many[:7])
    others = [episode_obs(where, world, i, 20) for i in ids[1:]]
    others += [
        episode_obs(*setup_of(tmp_path / name, **change), ids[0], 20)
        for name, change in (("trial", {"trial": 1}), ("seed", {"seed": 1}))
    ]
    positions = np.concatenate([np.asarray(obs)[:, 0] for obs in (many, *others)])
    assert len(np.unique(positions)) == len(positions)
    # What is trained, or how long, moves no episode.
    changed = {"train__num_epochs": 9, "behavior": "pure", "prediction__num_episodes": 9}
    np.testing.assert_array_equal(
        episode_obs(*setup_of(tmp_path / "other", **changed), ids[0], 20), many
    )


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """CartPole with a warm-up of 150 steps: some episodes are over by then."""
    where, world = setup_of(
        tmp_path_factory.mktemp("predicted"), name="cart_pole", prediction__warm_up=150,
        prediction__num_episodes=6, prediction__num_steps=30,
    )  # fmt: skip
    method, params = wrong_physics(world)
    measure_prediction(where, world, method, params, quiet_display())
    return where, world, method, params


def test_rows_of_the_prediction_test_are_those_of_numpy(predicted):
    where, world, method, params = predicted
    rows = {(row["agent_id"], row["metric"]): row for row in where.rows()}
    assert len(rows) == 25
    for number, agent_id in enumerate(world.agents.test_ids):
        paths = open_loop_paths(where, world, method, params, agent_id)
        true, guess = (np.asarray(x, np.float64)[:, 1:] for x in (paths.true, paths.predicted))
        mask = np.asarray(paths.mask)
        kept = [e for e in range(6) if mask[e].sum() >= 2]
        rmse = [oracles.rmse(true[e], guess[e], mask[e]) for e in kept]
        r2 = [oracles.r2(true[e], guess[e], mask[e]) for e in kept]
        assert rows[agent_id, "episodes_left_out"]["value"] == 6 - len(kept)
        expected = {
            "rmse_mean": np.mean(rmse) if kept else None,
            "rmse_std": np.std(rmse) if kept else None,
            "r2_median": np.median(r2) if kept else None,
            "r2_mean": np.mean(r2) if kept else None,
        }
        for metric, value in expected.items():
            row = rows[agent_id, metric]
            assert row["value"] == (None if value is None else pytest.approx(value, rel=2e-4))
            assert row["num_episodes"] == 6
        for metric in ("rmse_mean", "r2_median"):
            assert rows[agent_id, metric]["episodes_diverged"] == 0
        found = rows[agent_id, "rmse_mean"]["episode_values"]
        assert [e for e, value in enumerate(found) if value is not None] == kept
        np.testing.assert_allclose([found[e] for e in kept], rmse, rtol=2e-4)
        # Names and labels of the paper's table, in its order.
        force, length = [(2, 0.5), (10, 0.5), (18, 0.5), (10, 0.85), (10, 0.15)][number]
        assert rows[agent_id, "rmse_mean"]["covariates"] == {"force": force, "length": length}
        assert rows[agent_id, "rmse_mean"]["paper_label"] == f"{force}/{length}"


def test_episodes_that_ended_before_two_scored_steps_are_counted(predicted):
    where, world, _, _ = predicted
    act, env = jax.jit(greedy_act("cart_pole"), static_argnums=()), world.env
    left_out = []
    for agent_id, row in zip(world.agents.test_ids, world.test_rows(), strict=True):
        params = jax.tree.map(operator.itemgetter(row), world.env_params)
        step = jax.jit(env.step)
        short = 0
        for obs in episode_obs(where, world, agent_id, 6):
            taken = 0
            while taken < 152 and not env.terminated(obs):
                action = act(jax.random.key(0), world.policies.test, obs)
                state = step(jax.random.key(0), env.state_from_obs(obs, params), action, params)
                obs, taken = env.observe(state, params), taken + 1
            short += taken < 152
        left_out.append(short)
    found = [row["value"] for row in where.rows() if row["metric"] == "episodes_left_out"]
    assert found == left_out
    assert 0 < sum(found) < 30


def test_a_model_that_leaves_the_finite_numbers_has_no_good_score():
    rng = np.random.default_rng(0)
    true = jnp.asarray(rng.normal(size=(4, 6, 2)), jnp.float32)
    predicted = true.at[1, 4:].set(jnp.nan).at[2, 3:].set(1e30)
    mask = jnp.ones((4, 5), bool).at[3, 1:].set(False)
    rmse, r2 = episode_scores(OpenLoop(true=true, predicted=predicted, mask=mask))
    np.testing.assert_array_equal(rmse, [0.0, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(r2, [1.0, -np.inf, -np.inf, np.nan])


def test_a_diverging_model_is_not_left_out_of_the_mean(tmp_path):
    where, world = setup_of(tmp_path, name="cart_pole", prediction__num_episodes=2)
    method, params = wrong_physics(world)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    measure_prediction(where, world, method, broken, quiet_display())
    for row in where.rows():
        expected = 0.0 if row["metric"] == "episodes_left_out" else None
        assert row["value"] == expected
    # Null for another reason than those of agents without a score.
    found = {row["metric"]: row for row in where.rows()}
    assert [found[name]["episodes_diverged"] for name in ("rmse_mean", "r2_median")] == [2, 2]


def test_an_agent_is_measured_once(predicted, monkeypatch):
    where, world, method, params = predicted
    before = where.rows_path.read_bytes()
    monkeypatch.setattr(measure, "open_loop_paths", None)
    measure_prediction(where, world, method, params, quiet_display())
    assert where.rows_path.read_bytes() == before
