"""The launcher on a few steps, and what it says about the policies."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import covariates
from experiments import policy_returns
from experiments.policies import greedy_act, load_policies
from experiments.policy_returns import returns_by_agent, returns_of_everyone
from experiments.records import IDENTITY, read_rows
from experiments.train_policies import ONLINE_CONFIGS, TARGETS, make_lanes, run


def test_lanes_are_the_protocols_agents_with_two_seeds():
    lanes = make_lanes("cart_pole", TARGETS["cart_pole"], seed=3)
    np.testing.assert_allclose(
        lanes.covariates, [(6, 0.5), (14, 0.5), (10, 0.5), (10, 0.675), (10, 0.325), (10, 0.5)]
    )
    assert lanes.behaviors == ["pure"] * 5 + ["test"]
    np.testing.assert_array_equal(lanes.targets, [120] * 5 + [150])
    assert len(set(lanes.seeds[:-1])) == 1
    assert lanes.seeds[-1] not in lanes.seeds[:-1]


def test_one_target_is_not_enough():
    with pytest.raises(ValueError, match="give two"):
        make_lanes("cart_pole", [120.0], seed=0)


def test_everyone_uses_the_policy_of_the_nearest_training_agent(key, monkeypatch):
    # Policies that always push right (odd lanes) or left fail after different times by agent.
    lanes = make_lanes("mountain_car", TARGETS["mountain_car"], seed=0)
    env = envs.make("mountain_car")
    learned = load_policies("mountain_car")
    lane_values = jnp.arange(6.0)
    monkeypatch.setattr(policy_returns, "EPISODES", 2)
    seen = {}

    def record(key, environment, act, params, env_params, episodes):
        assert environment is env
        seen[len(seen)] = np.asarray(params)
        return jnp.zeros((params.shape[0], episodes))

    monkeypatch.setattr(policy_returns, "returns_by_agent", record)
    returns_of_everyone(key, lanes, lane_values)
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


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_short_training_writes_policies_sidecar_and_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(policy_returns, "EPISODES", 2)
    config = dataclasses.replace(
        ONLINE_CONFIGS["cart_pole"], evaluate_every=800, budget=1600, capacity=1600, episodes=3
    )
    lanes = make_lanes("cart_pole", (5.0, 1000.0), seed=0)
    rows_path = tmp_path / "rows" / "cart_pole.jsonl"
    sidecar_path = run(lanes, config, tmp_path / "out", rows_path)
    sidecar = json.loads(sidecar_path.read_text(encoding="utf8"))
    assert [policy["reached"] for policy in sidecar["policies"]] == [True] * 5 + [False]
    assert "never reached 1000" in capsys.readouterr().out
    assert sidecar["all_agents"]["pure"]["num_agents"] == 500
    trained = load_policies("cart_pole", tmp_path / "out")
    assert trained.sidecar == sidecar
    rows = read_rows(rows_path)
    assert len(rows) == 14
    assert len({tuple(row[name] for name in IDENTITY) for row in rows}) == 14
    for row, policy in zip(rows[:12:2], sidecar["policies"], strict=True):
        assert row["metric"] == "return_mean"
        assert row["covariates"] == policy["covariates"]
        np.testing.assert_allclose(row["value"], policy["return_mean"], atol=1e-3)


@pytest.mark.parametrize("environment", sorted(TARGETS))
def test_published_rows_say_what_the_sidecar_says(environment):
    root = policy_returns.__file__.rsplit("/", 2)[0]
    rows = read_rows(f"{root}/results/policies/{environment}.jsonl")
    sidecar = load_policies(environment).sidecar
    published = {row["value"] for row in rows if row["metric"] == "return_mean"}
    told = [policy["return_mean"] for policy in sidecar["policies"]]
    told += [everyone["mean"] for everyone in sidecar["all_agents"].values()]
    for value in told:
        assert min(abs(value - other) for other in published) < 1e-3
