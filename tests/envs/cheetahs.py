"""Half cheetahs for tests: gymnasium's own, ours from the same starts, and random cases."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

import envs
from envs import covariates
from envs.physics.cheetah_model import quiet

TABLE = covariates.get("half_cheetah")


class Cases(NamedTuple):
    """Lanes to unroll: covariates `[n, 2]`, first observations `[n, 18]`, actions `[n, T, 6]`."""

    covariates: np.ndarray
    obs: np.ndarray
    actions: np.ndarray

    def cast(self, dtype):
        return Cases(*(array.astype(dtype) for array in self))


def random_cases(num_lanes=40, num_steps=20, seed=0):
    """Returns random lanes from the reset's states; the first three differ by a covariate alone."""
    rng = np.random.default_rng(seed)
    covariate = rng.uniform(TABLE.low, TABLE.high, (num_lanes, 2))
    covariate[:3] = (1.0, 1.0), (1.4, 1.0), (1.0, 0.6)
    obs = 0.001 * rng.standard_normal((num_lanes, 18))
    obs[:, 0] = 0.0
    actions = rng.uniform(-1, 1, (num_lanes, num_steps, 6))
    obs[1:3], actions[1:3] = obs[0], actions[0]
    # Rounded, so that every precision starts from the same numbers.
    return Cases(covariate, obs, actions).cast(np.float32)


@functools.cache
def _gymnasium():
    with quiet():  # compiling the model warns of gymnasium's own file
        return HalfCheetahEnv()


def gymnasium_unroll(cases, x=0.0):
    """Returns gymnasium's observations `[n, T, 18]` and rewards `[n, T]`, in float64.

    The first coordinate is the velocity that gymnasium reports beside its 17 observations.
    """
    reference = _gymnasium()
    model = reference.model
    unscaled = model.body_mass.copy(), model.dof_damping.copy()
    outputs = []
    try:
        for covariate, obs, actions in zip(*cases.cast(np.float64), strict=True):
            reference.reset()
            model.body_mass[:] = unscaled[0] * covariate[0]
            model.dof_damping[:] = unscaled[1] * covariate[1]
            reference.set_state(np.concatenate([[x], obs[1:9]]), obs[9:])
            for action in actions:
                seen, reward, terminated, _, info = reference.step(action)
                assert not terminated
                outputs.append([info["x_velocity"], *seen, reward])
    finally:
        model.body_mass[:], model.dof_damping[:] = unscaled
    outputs = np.reshape(outputs, (*cases.actions.shape[:2], 19))
    return outputs[..., :18], outputs[..., 18]


@functools.cache
def unroller(backend):
    """The compiled function behind `unroll`, one for each backend in a session."""
    env = envs.make("half_cheetah", backend)

    @jax.jit
    @jax.vmap
    def lanes(covariate, first, actions):
        params = env.params(covariate)

        def transition(obs, action):
            state = env.state_from_obs(obs, params)
            next_obs = env.observe(env.step(jax.random.key(0), state, action, params), params)
            return next_obs, (next_obs, env.reward(obs, action, next_obs))

        return jax.lax.scan(transition, first, actions)[1]

    return lanes


def unroll(backend, cases):
    """Returns our observations `[n, T, 18]` and rewards `[n, T]` in the precision of the cases."""
    obs, rewards = unroller(backend)(*(jnp.asarray(array) for array in cases))
    assert obs.dtype == rewards.dtype == cases.obs.dtype
    return np.asarray(obs), np.asarray(rewards)


def distances(ours, theirs):
    """Returns the largest deviation `[n, T]` of any coordinate in each step."""
    return np.abs(np.subtract(*(np.asarray(x, np.float64) for x in (ours, theirs)))).max(axis=-1)


def assert_heeds_each_covariate(obs):
    """Of the first three lanes, the second has another mass and the third another damping."""
    for lane in (1, 2):
        assert np.abs(obs[lane, 0] - obs[0, 0]).max() > 0.01
        assert np.abs(obs[lane, -1] - obs[0, -1]).max() > 0.1
    assert np.abs(obs[1, 0] - obs[2, 0]).max() > 0.01
