"""HalfCheetah around its physics: what is seen and paid, who may step it, what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import half_cheetah
from tests.envs.cheetahs import gymnasium_unroll, random_cases, unroll

ENV = envs.make("half_cheetah", "mujoco")
ROOT = Path(__file__).parents[2]
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")


def test_spec_is_that_of_the_protocol():
    positions = ("z", "pitch", *JOINTS)
    assert ENV.spec.obs_names[:9] == ("x_velocity", *positions)
    assert ENV.spec.obs_names[9:] == tuple(f"{name}_dot" for name in ("x", *positions))
    assert (ENV.spec.obs_size, ENV.spec.action_size, ENV.spec.discrete) == (18, 6, False)
    assert ENV.spec.action_low == (-1.0,) * 6
    assert ENV.spec.action_high == (1.0,) * 6
    assert (ENV.spec.max_steps, ENV.spec.dt) == (1000, 0.05)


def test_reset_is_normal_with_a_thousandth_as_deviation():
    params = ENV.params(jnp.ones(2))
    keys = jax.random.split(jax.random.key(7), 2000)
    state = jax.jit(jax.vmap(ENV.reset, in_axes=(0, None)))(keys, params)
    obs = np.asarray(jax.vmap(ENV.observe, in_axes=(0, None))(state, params))
    np.testing.assert_array_equal(obs[:, 0], 0.0)
    noise = obs[:, 1:] / 0.001
    # Five standard errors of the mean and of the standard deviation.
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=5 / np.sqrt(2000))
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(17), atol=0.12)


def test_actions_outside_the_bounds_move_as_the_nearest_inside_and_cost_what_they_are():
    cases = random_cases(4, 6, seed=3)
    outside = cases._replace(actions=3.0 * cases.actions)
    obs, rewards = unroll("mujoco", outside)
    expected_obs, expected_rewards = gymnasium_unroll(outside)
    np.testing.assert_allclose(obs[:, :3], expected_obs[:, :3], atol=1e-3)
    np.testing.assert_allclose(rewards[:, :3], expected_rewards[:, :3], atol=1e-3)
    clipped, _ = unroll("mujoco", outside._replace(actions=np.clip(outside.actions, -1, 1)))
    np.testing.assert_array_equal(obs, clipped)


def test_where_the_cheetah_is_does_not_matter():
    cases = random_cases(4, 10, seed=4)
    here, rewards = gymnasium_unroll(cases)
    there, same_rewards = gymnasium_unroll(cases, x=300.0)
    np.testing.assert_allclose(here, there, atol=1e-6)
    np.testing.assert_allclose(rewards, same_rewards, atol=1e-6)


def test_reward_by_hand():
    obs, next_obs = jnp.zeros(18), jnp.zeros(18).at[0].set(2.5).at[9].set(7.0)
    action = jnp.asarray([1.0, -1.0, 0.5, 0.0, 0.0, -0.5])
    np.testing.assert_allclose(ENV.reward(obs, action, next_obs), 2.5 - 0.1 * 2.5, rtol=1e-6)


def test_it_never_ends_and_planning_needs_no_bonus():
    for value in (0.0, 1e6, jnp.nan):
        assert not ENV.terminated(jnp.full(18, value))
    assert ENV.planning_bonus(jnp.ones((30, 18))) == 0.0


@pytest.mark.parametrize(
    ("covariates", "name"),
    [((0.0, 1.0), "mass_scale is 0.0"), ((1.0, -0.5), "damping_scale is -0.5"),
     ((np.nan, 1.0), "mass_scale is nan"), ((1.0, np.inf), "damping_scale is inf")],
)  # fmt: skip
def test_scales_that_no_body_can_have_are_refused(covariates, name):
    with pytest.raises(ValueError, match=rf"{name}: it must be a positive number"):
        ENV.params(np.float32(covariates))


def test_auto_is_what_suits_the_machine(monkeypatch):
    for platform, backend in [("cpu", "mujoco"), ("gpu", "mjx"), ("tpu", "mjx")]:
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        assert half_cheetah.resolve_backend("auto") == backend
    for backend in ("mjx", "mujoco", "generalized"):
        assert half_cheetah.resolve_backend(backend) == backend


def test_one_record_for_one_backend(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert ENV.spec.backend == "mujoco"
    assert envs.make("half_cheetah") is ENV
    assert envs.make("half_cheetah", "auto") is ENV
    assert envs.make("half_cheetah", "mujoco") is ENV
    brax = envs.make("half_cheetah", "generalized")
    assert brax is envs.make("half_cheetah", "generalized")
    assert brax is not ENV
    assert brax.spec.backend == "generalized"


@pytest.mark.parametrize("backend", ["spring", "positional"])
def test_pipelines_that_ignore_a_covariate_are_refused_with_the_reason(backend):
    with pytest.raises(ValueError, match=rf"{backend} pipeline ignores joint damping.*mjx, mujoco"):
        envs.make("half_cheetah", backend)


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match=r"'physx' is unknown: use one of auto, mjx, mujoco"):
        envs.make("half_cheetah", "physx")


BASE_INSTALL = """
import sys
sys.modules.update({"mujoco": None, "brax": None, "imageio": None})
import envs, envs.half_cheetah
for name in ("mountain_car", "cart_pole"):
    envs.make(name)
for backend in ("mujoco", "mjx", "generalized"):
    try:
        envs.make("half_cheetah", backend)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_the_extra_it_says_what_to_install_and_the_others_work():
    done = subprocess.run(
        [sys.executable, "-c", BASE_INSTALL],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    for line in done.stdout.splitlines():
        assert "pip install '.[half-cheetah]'" in line
