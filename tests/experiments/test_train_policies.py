"""The launcher on a few steps, and what it says about the policies."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import covariates
from experiments import policy_returns, train_policies
from experiments.policies import SHIPPED, greedy_act, load_policies
from experiments.policy_recipes import RECIPES, Recipe, make_lanes
from experiments.policy_returns import returns_by_agent, returns_of_everyone
from experiments.records import IDENTITY, read_rows
from experiments.train_policies import run

ROOT = SHIPPED.parents[1]


def test_lanes_are_the_protocols_agents_with_two_seeds():
    lanes = make_lanes("cart_pole", RECIPES["cart_pole"].targets, seed=3)
    np.testing.assert_allclose(
        lanes.covariates, [(6, 0.5), (14, 0.5), (10, 0.5), (10, 0.675), (10, 0.325), (10, 0.5)]
    )
    assert lanes.behaviors == ["pure"] * 5 + ["test"]
    np.testing.assert_array_equal(lanes.targets, [120] * 5 + [150])
    assert len(set(lanes.seeds[:-1])) == 1
    assert lanes.seeds[-1] not in lanes.seeds[:-1]


def test_cheetahs_lanes_say_what_steps_them():
    lanes = make_lanes("half_cheetah", RECIPES["half_cheetah"].targets, seed=0, backend="mujoco")
    np.testing.assert_allclose(
        lanes.covariates, [(1.4, 0.6), (1.4, 1.4), (0.6, 0.6), (0.6, 1.4), (1, 1)]
    )
    np.testing.assert_array_equal(lanes.targets, [3000] * 4 + [4000])
    assert lanes.backend == "mujoco"
    assert make_lanes("cart_pole", (1.0, 2.0), seed=0).backend == ""


@pytest.mark.parametrize("backend", ["spring", "isaac"])
def test_backends_that_cannot_step_the_cheetah_are_refused(backend):
    with pytest.raises(ValueError, match=backend):
        make_lanes("half_cheetah", (1.0, 2.0), seed=0, backend=backend)


def test_one_target_is_not_enough():
    with pytest.raises(ValueError, match="give two"):
        make_lanes("cart_pole", [120.0], seed=0)


def test_everyone_uses_the_policy_of_the_nearest_training_agent(key, monkeypatch):
    lanes = make_lanes("mountain_car", RECIPES["mountain_car"].targets, seed=0)
    env = envs.make("mountain_car")
    learned = load_policies("mountain_car")
    lane_values = jnp.arange(6.0)
    seen = {}

    def record(key, environment, act, params, env_params, episodes, chunk):
        assert environment is env
        assert chunk == 7
        seen[len(seen)] = np.asarray(params)
        return jnp.zeros((params.shape[0], episodes))

    monkeypatch.setattr(policy_returns, "returns_by_agent", record)
    returns = returns_of_everyone(key, lanes, lane_values, episodes=2, chunk=7)
    assert {name: values.shape for name, values in returns.items()} == {
        "pure": (500, 2),
        "test": (500, 2),
    }
    gravities = covariates.make_agents("mountain_car").covariates[:, 0]
    trained_on = np.asarray(learned.pure_covariates)[:, 0]
    chosen = trained_on[seen[0].astype(int)]
    best = np.abs(gravities[:, None] - trained_on[None]).min(axis=1)
    np.testing.assert_allclose(np.abs(gravities - chosen), best, atol=1e-8)
    np.testing.assert_array_equal(seen[1], 5.0)


def test_agents_play_with_their_own_policies(key):
    env = envs.make("cart_pole")
    shipped = load_policies("cart_pole")
    params = jax.tree.map(lambda leaf: leaf[:2], shipped.pure)
    physics = jax.vmap(env.params)(shipped.pure_covariates[:2])
    returns = np.asarray(returns_by_agent(key, env, greedy_act("cart_pole"), params, physics, 40))
    for own, told in zip(returns, shipped.sidecar["policies"], strict=False):
        error = told["return_std"] * np.sqrt(1.0 / 40 + 1.0 / told["num_episodes"])
        assert abs(own.mean() - told["return_mean"]) < 4.0 * error


@pytest.mark.parametrize("chunk", [2, 9])
def test_agents_side_by_side_play_what_they_play_one_after_the_other(key, chunk):
    env, shipped = envs.make("cart_pole"), load_policies("cart_pole")
    physics = jax.vmap(env.params)(shipped.pure_covariates)
    play = functools.partial(
        returns_by_agent, key, env, greedy_act("cart_pole"), shipped.pure, physics, 3
    )
    np.testing.assert_array_equal(play(), play(chunk))


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_short_training_writes_policies_sidecar_and_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_policies, "EPISODES", 4)
    online = dataclasses.replace(
        RECIPES["cart_pole"].online, evaluate_every=800, budget=1600, capacity=1600, episodes=3
    )
    lanes = make_lanes("cart_pole", (5.0, 1000.0), seed=0)
    rows_path = tmp_path / "rows" / "cart_pole.jsonl"
    recipe = Recipe((5.0, 1000.0), online, episodes=2)
    sidecar_path = run(lanes, recipe, tmp_path / "out", rows_path)
    sidecar = json.loads(sidecar_path.read_text(encoding="utf8"))
    assert [policy["reached"] for policy in sidecar["policies"]] == [True] * 5 + [False]
    assert "never reached 1000" in capsys.readouterr().out
    assert sidecar["all_agents"]["pure"]["num_agents"] == 500
    assert sidecar["all_agents"]["pure"]["num_episodes"] == 2
    assert sidecar["policies"][0]["num_episodes"] == 4
    assert sidecar["train_seconds"] > 0.0
    trained = load_policies("cart_pole", tmp_path / "out")
    assert trained.sidecar == sidecar
    rows = read_rows(rows_path)
    assert len(rows) == 14
    assert len({tuple(row[name] for name in IDENTITY) for row in rows}) == 14
    assert [row["num_episodes"] for row in rows] == [4] * 12 + [1000] * 2
    assert {row["method"] for row in rows} == {"dqn"}
    for row, policy in zip(rows[:12:2], sidecar["policies"], strict=True):
        assert row["metric"] == "return_mean"
        assert row["covariates"] == policy["covariates"]
        np.testing.assert_allclose(row["value"], policy["return_mean"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_short_training_of_the_cheetah_writes_td3_policies(tmp_path, monkeypatch):
    monkeypatch.setattr(train_policies, "EPISODES", 2)
    few = functools.partial(covariates.make_agents, num_agents=6)
    monkeypatch.setattr(policy_returns.covariates, "make_agents", few)
    online = dataclasses.replace(
        RECIPES["half_cheetah"].online,
        evaluate_every=64,
        budget=64,
        capacity=64,
        warm_up=32,
        batch_size=8,
        episodes=1,
    )
    lanes = make_lanes("half_cheetah", (-1e4, -1e4), seed=0, backend="mujoco")
    recipe = Recipe((-1e4, -1e4), online, episodes=1, chunk=4)
    run(lanes, recipe, tmp_path, tmp_path / "rows.jsonl")
    trained = load_policies("half_cheetah", tmp_path, "mjx")
    assert (trained.sidecar["method"], trained.sidecar["backend"]) == ("td3", "mujoco")
    assert trained.sidecar["td3"]["policy_delay"] == 2
    assert [policy["steps"] for policy in trained.sidecar["policies"]] == [64] * 5
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {(row["method"], row["backend"]) for row in rows} == {("td3", "mujoco")}
    assert [row["num_episodes"] for row in rows] == [2] * 10 + [6] * 2
    # All reached their targets: nothing is left to go on with.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "half_cheetah.json",
        "half_cheetah.npz",
        "rows.jsonl",
    ]


@pytest.mark.parametrize("environment", sorted(path.stem for path in SHIPPED.glob("*.npz")))
def test_published_rows_say_what_the_sidecar_says(environment):
    rows = read_rows(ROOT / "results" / "policies" / f"{environment}.jsonl")
    sidecar = load_policies(environment).sidecar
    published = {row["value"] for row in rows if row["metric"] == "return_mean"}
    told = [policy["return_mean"] for policy in sidecar["policies"]]
    told += [everyone["mean"] for everyone in sidecar["all_agents"].values()]
    for value in told:
        assert min(abs(value - other) for other in published) < 1e-3
