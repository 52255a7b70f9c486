"""MuJoCo behind a callback: gymnasium's numbers however the step is mapped, NaN where it fails."""

import concurrent.futures
import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import envs
from tests.envs.cheetahs import (
    assert_heeds_each_covariate,
    distances,
    gymnasium_unroll,
    random_cases,
    unroll,
)

ENV = envs.make("half_cheetah", "mujoco")
ROOT = Path(__file__).parents[3]


def step(covariate, obs, action):
    """One control step `[18]` of one agent."""
    params = ENV.params(covariate)
    state = ENV.state_from_obs(obs, params)
    return ENV.observe(ENV.step(jax.random.key(0), state, action, params), params)


alone = jax.jit(step)
together = jax.jit(jax.vmap(step))


@functools.cache
def one_step_cases(num_lanes=24):
    """Random covariates `[n, 2]`, observations `[n, 18]` and actions `[n, 6]`, and what follows."""
    cases = random_cases(num_lanes, 1, seed=1)
    rng = np.random.default_rng(2)
    obs = rng.uniform(-0.3, 0.3, cases.obs.shape).astype(np.float32)
    actions = cases.actions[:, 0]
    lanes = zip(cases.covariates, obs, actions, strict=True)
    expected = [np.asarray(alone(*lane)) for lane in lanes]
    return (cases.covariates, obs, actions), np.stack(expected)


@pytest.mark.usefixtures("x64")
def test_twenty_steps_are_those_of_gymnasium_in_float64():
    cases = random_cases().cast(np.float64)
    obs, rewards = unroll("mujoco", cases)
    expected_obs, expected_rewards = gymnasium_unroll(cases)
    assert distances(obs, expected_obs).max() < 1e-6
    np.testing.assert_allclose(rewards, expected_rewards, atol=1e-6)
    assert_heeds_each_covariate(obs)
    # Feet come down on the ground in the meantime: it is not free flight that is compared.
    assert np.ptp(expected_obs[:, -1, 1:9], axis=0).max() > 0.3


def test_in_float32_only_what_is_handed_over_is_rounded():
    cases = random_cases()
    obs, rewards = unroll("mujoco", cases)
    expected_obs, expected_rewards = gymnasium_unroll(cases)
    near = distances(obs, expected_obs)[:, :5].max(axis=1) < 1e-3
    assert near.mean() >= 0.9
    np.testing.assert_allclose(rewards[near, 0], expected_rewards[near, 0], atol=1e-5)
    assert_heeds_each_covariate(obs)


@pytest.mark.parametrize(
    "mapped",
    [
        together,
        jax.vmap(step),
        jax.jit(lambda *x: jax.lax.map(lambda case: step(*case), x)),
        jax.jit(lambda *x: jax.lax.map(lambda case: step(*case), x, batch_size=5)),
        jax.jit(lambda *x: jax.vmap(jax.vmap(step))(*(a.reshape(4, -1, a.shape[-1]) for a in x))),
    ],
    ids=["vmap", "eager vmap", "map", "map in batches", "vmap of vmap"],
)
def test_many_agents_are_each_what_it_is_alone(mapped):
    cases, expected = one_step_cases()
    np.testing.assert_array_equal(mapped(*cases).reshape(expected.shape), expected)


def test_what_is_not_mapped_over_is_shared():
    (covariates, obs, actions), _ = one_step_cases()
    over_obs = jax.vmap(step, in_axes=(None, 0, None))
    found = jax.jit(jax.vmap(over_obs, in_axes=(0, None, 0)))(covariates[:3], obs, actions[:3])
    for agent, start in [(0, 0), (2, 5), (1, 23)]:
        expected = alone(covariates[agent], obs[start], actions[agent])
        np.testing.assert_array_equal(found[agent, start], expected)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_of_any_size_is_stepped_as_one(dtype):
    (covariates, obs, actions), _ = one_step_cases()
    cases = [array.astype(dtype) for array in (covariates, obs, actions)]
    expected = np.asarray(together(*cases))
    assert expected.dtype == dtype
    for size in (0, 1, 2503):
        some = [np.resize(array, (size, array.shape[1])) for array in cases]
        found = np.asarray(together(*some))
        np.testing.assert_array_equal(found, np.resize(expected, (size, 18)))


def test_programs_side_by_side_do_not_meet():
    cases, expected = one_step_cases()
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        jobs = [executor.submit(lambda: np.asarray(together(*cases))) for _ in range(24)]
    for job in jobs:
        np.testing.assert_array_equal(job.result(), expected)


# Not a number, beyond what MuJoCo takes, about to burst; actions; scales that no body can have.
BAD = [
    ("obs", 3, np.nan), ("obs", 12, np.inf), ("obs", 3, -1e30), ("obs", 12, 1e11),
    ("obs", slice(9, None), 1e9), ("action", 0, np.nan), ("covariate", 0, 0.0),
    ("covariate", 0, -1.0), ("covariate", 1, np.nan), ("covariate", 0, np.inf),
]  # fmt: skip


@pytest.mark.parametrize(("what", "index", "value"), BAD)
def test_what_cannot_be_simulated_is_not_a_number(what, index, value, tmp_path, monkeypatch, capfd):
    # MuJoCo itself would start again from its first pose, and write a file where it stands.
    monkeypatch.chdir(tmp_path)
    cases, expected = one_step_cases()
    cases = [array.copy() for array in cases]
    cases[("covariate", "obs", "action").index(what)][7, index] = value
    found = np.asarray(together(*cases))
    assert np.isnan(found[7]).all()
    np.testing.assert_array_equal(np.delete(found, 7, 0), np.delete(expected, 7, 0))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp
import envs
env = envs.make("half_cheetah", "mujoco")

@jax.jit
def program(key):
    params = jax.vmap(env.params)(jnp.ones((5000, 2)))
    state = jax.vmap(env.reset)(jax.random.split(key, 5000), params)
    step = jax.vmap(lambda state, params: env.step(key, state, jnp.zeros(6), params))
    return jax.lax.scan(lambda state, _: (step(state, params), 0), state, length=2)[0]

program(jax.random.key(0)).velocity.block_until_ready()
# Behind other work in the queue, it is run by the one thread that would copy its arguments.
others = [jnp.ones((1000, 1000)) @ jnp.ones((1000, 1000)) for _ in range(5)]
ends = [program(jax.random.key(seed)) for seed in range(3)]
print(all(jnp.isfinite(end.velocity).all() for end in ends))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot be held to one core here")
def test_a_large_batch_on_a_single_core_does_not_wait_for_itself():
    done = subprocess.run(
        [sys.executable, "-c", ONE_CORE],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
