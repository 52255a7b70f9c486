"""The comparison with d3rlpy is fair: its physics are ours and its table says what rows say."""

import importlib
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from benchmarks import d3rlpy_comparison, d3rlpy_side
from benchmarks.d3rlpy_comparison import markdown

COVARIATES = {"mountain_car": [[0.0001], [0.0035]], "cart_pole": [[2.0, 0.5], [18.0, 0.15]]}


@pytest.mark.parametrize("name", COVARIATES)
def test_the_other_sides_physics_are_ours(name):
    env = envs.make(name)
    rng = np.random.default_rng(0)
    count = 200
    covariates = np.repeat(np.float32(COVARIATES[name]), count // 2, axis=0)
    low, high = {"mountain_car": ([-1.2, -0.07], [0.6, 0.07]), "cart_pole": (-2.0, 2.0)}[name]
    obs = rng.uniform(low, high, (count, env.spec.obs_size)).astype(np.float32)
    actions = rng.integers(env.spec.num_actions, size=count)

    @jax.vmap
    def ours(obs, action, covariates):
        params = env.params(covariates)
        state = env.step(jax.random.key(0), env.state_from_obs(obs, params), action, params)
        next_obs = env.observe(state, params)
        return next_obs, env.reward(obs, action, next_obs), env.terminated(next_obs)

    expected = ours(obs, jnp.asarray(actions, jnp.int32), covariates)
    step, limit = d3rlpy_side.STEPS[name]
    found = step(obs.astype(np.float64), actions, covariates)
    assert limit == env.spec.max_steps
    for mine, theirs in zip(expected[:2], found[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    # At the very edge rounding decides.
    assert np.mean(np.asarray(expected[2]) == found[2]) > 0.99


class Always:
    """A policy of one action."""

    def __init__(self, action):
        self.action = action

    def predict(self, obs):
        return np.full(len(obs), self.action)


def test_returns_of_the_other_side_end_with_the_episode():
    # Gravity 0.0001 hardly holds a car that always pushes right; pushing left never gets there.
    begin = np.array([[-0.5, 0.0], [-0.4, 0.0]])
    covariates = np.array([[0.0001], [0.0001]])
    right = d3rlpy_side.play(Always(2), "mountain_car", begin, covariates)
    assert np.all((right > -60) & (right < -30))
    left = d3rlpy_side.play(Always(0), "mountain_car", begin, covariates)
    np.testing.assert_array_equal(left, -500.0)


def row(library, metric, value, **fields):
    named = {"environment": "cart_pole", "method": "bcq_p", "metric": f"{library}_{metric}"}
    return named | {"value": value} | fields


def test_the_table_by_hand():
    rows = [
        row("persim_jax", "return_mean", 100.0, seed_values=[90.0, 110.0]),
        row("d3rlpy", "return_mean", 95.0, seed_values=[95.0, 95.0]),
        row("persim_jax", "gradient_steps_per_second", 3000.0),
        row("d3rlpy", "gradient_steps_per_second", 200.0),
    ]
    last = markdown(json.loads(json.dumps(rows))).splitlines()[-1]
    assert last == "| cart_pole | bcq_p | 100.0 ± 14.1 | 95.0 ± 0.0 | 3000 | 200 | 15.0 |"


def test_it_is_imported_where_no_process_can_choose_its_cores(monkeypatch):
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    module = importlib.reload(d3rlpy_comparison)
    assert len(module.CORES) == os.cpu_count()
    module.run_on({0})
