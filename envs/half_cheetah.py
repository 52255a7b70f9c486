"""HalfCheetah: a planar runner with six motors, with masses and joint damping as covariates.

The physics are those of gymnasium's HalfCheetah-v5, a MuJoCo model, stepped five times 0.01 s by
one of several backends. The 18 coordinates of an observation are the mean x velocity of the last
control step, (x - x_prev) / dt, the positions without x and the velocities, so that the reward,

    r = obs'[0] - 0.1 * sum(a^2),

can be computed from observations. Nothing depends on x, so every control step starts at x = 0: in
float32 a cheetah that has run far would lose digits of its velocity.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from types import ModuleType

import chex
import jax
import jax.numpy as jnp
import numpy as np

from envs import base

RESET_STD = 0.001
CONTROL_COST = 0.1
NUM_POSITIONS = 9
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
BACKENDS = ("auto", "mjx", "mujoco", "generalized")
REFUSED = ("spring", "positional")

_COORDINATES = ("z", "pitch", *JOINTS)
SPEC = base.EnvSpec(
    name="half_cheetah",
    obs_names=("x_velocity", *_COORDINATES, *(f"{name}_dot" for name in ("x", *_COORDINATES))),
    covariate_names=("mass_scale", "damping_scale"),
    num_actions=0,
    action_low=(-1.0,) * 6,
    action_high=(1.0,) * 6,
    max_steps=1000,
    dt=0.05,
)


@chex.dataclass(frozen=True)
class HalfCheetahParams:
    """Physics of one agent.

    Attributes:
      mass_scale: `[]`, multiplies the mass of every body; inertia tensors stay.
      damping_scale: `[]`, multiplies the damping of every joint.
    """

    mass_scale: jax.Array
    damping_scale: jax.Array


@chex.dataclass(frozen=True)
class HalfCheetahState:
    """State of the cheetah, x left out.

    Attributes:
      x_velocity: `[]`, mean velocity along x in the last control step in m/s.
      position: `[8]`, height in m, pitch and six joint angles in rad.
      velocity: `[9]`, of x, height, pitch and joints, in m/s and rad/s.
    """

    x_velocity: jax.Array
    position: jax.Array
    velocity: jax.Array


def make_params(covariates: jax.Array) -> HalfCheetahParams:
    """Returns the physics of the agent with `covariates [2]`: scales of mass and damping.

    Raises:
      ValueError: The array is not of shape `(2,)`, or its values, where they are known, are not
        positive. Where they are not, under `jit` and `vmap`, steps with such values give NaN.
    """
    covariates = base.as_covariates(covariates)
    if covariates.shape != (2,):
        raise ValueError(
            f"HalfCheetah takes covariates (mass_scale, damping_scale) of shape (2,), not "
            f"{covariates.shape}; for several agents use jax.vmap(env.params)."
        )
    if not isinstance(covariates, jax.core.Tracer):
        for name, value in zip(SPEC.covariate_names, np.asarray(covariates), strict=True):
            if not _usable(value):
                raise ValueError(f"HalfCheetah's {name} is {value}: it must be a positive number.")
    return HalfCheetahParams(mass_scale=covariates[0], damping_scale=covariates[1])


def _usable(scale: jax.Array) -> jax.Array:
    return (scale > 0.0) & (scale < jnp.inf)


def reset(key: jax.Array, params: HalfCheetahParams) -> HalfCheetahState:
    """Draws positions and velocities from N(0, 0.001^2); consumes `key`."""
    dtype = params.mass_scale.dtype
    noise = RESET_STD * jax.random.normal(key, (2 * NUM_POSITIONS,), dtype)
    return HalfCheetahState(
        x_velocity=jnp.zeros((), dtype),
        position=noise[1:NUM_POSITIONS],
        velocity=noise[NUM_POSITIONS:],
    )


def observe(env_state: HalfCheetahState, params: HalfCheetahParams) -> jax.Array:
    """Returns the observation `[18]`."""
    del params
    return jnp.concatenate([env_state.x_velocity[None], env_state.position, env_state.velocity])


def state_from_obs(obs: jax.Array, params: HalfCheetahParams) -> HalfCheetahState:
    """Returns the state whose observation is `obs [18]`."""
    del params
    return HalfCheetahState(
        x_velocity=obs[0], position=obs[1:NUM_POSITIONS], velocity=obs[NUM_POSITIONS:]
    )


def reward(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """Returns the mean x velocity of the step less the cost of `action [6]`."""
    del obs
    return next_obs[0] - CONTROL_COST * jnp.sum(jnp.square(action))


def terminated(obs: jax.Array) -> jax.Array:
    """Never."""
    del obs
    return jnp.asarray(False)


def planning_bonus(obs: jax.Array) -> jax.Array:
    """Returns 0 for `obs [H, 18]`: the reward needs no help."""
    return jnp.zeros((), obs.dtype)


def step(
    physics: ModuleType,
    key: jax.Array,
    env_state: HalfCheetahState,
    action: jax.Array,
    params: HalfCheetahParams,
) -> HalfCheetahState:
    """Moves the cheetah by 0.05 s under `action [6]`, clipped to [-1, 1].

    The dynamics are deterministic: `key` is there for the interface only. A simulation that
    diverges, goes on from what is not finite, or has scales that are not positive, gives NaN.
    """
    del key
    action = jnp.clip(action, -1.0, 1.0)
    usable = _usable(params.mass_scale) & _usable(params.damping_scale)
    for values in (env_state.position, env_state.velocity, action):
        usable &= jnp.isfinite(values).all()

    def known(values: jax.Array, instead: float) -> jax.Array:
        return jnp.where(usable, values, jnp.full_like(values, instead))

    # MJX iterates until its forces converge, which those of a diverged agent never do, and under
    # `vmap` all the others wait for it. So such an agent is stepped from rest, and is NaN.
    position, velocity = physics.step(
        jnp.concatenate([jnp.zeros((1,), env_state.position.dtype), known(env_state.position, 0)]),
        known(env_state.velocity, 0),
        known(action, 0),
        known(params.mass_scale, 1),
        known(params.damping_scale, 1),
    )
    position, velocity = known(position, jnp.nan), known(velocity, jnp.nan)
    return HalfCheetahState(
        x_velocity=position[0] / SPEC.dt, position=position[1:], velocity=velocity
    )


def resolve_backend(backend: str) -> str:
    """Returns the backend that `auto` stands for on this machine; others as they are.

    Raises:
      ValueError: The backend is unknown, or ignores one of the covariates.
    """
    if backend in REFUSED:
        raise ValueError(
            f"Brax's {backend} pipeline ignores joint damping, one of the two covariates: use one "
            f"of {', '.join(BACKENDS)}."
        )
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown: use one of {', '.join(BACKENDS)}.")
    if backend == "auto":
        return "mujoco" if jax.default_backend() == "cpu" else "mjx"
    return backend


def make(backend: str = "auto") -> base.Env:
    """Returns HalfCheetah as a record of functions.

    Args:
      backend: One of `BACKENDS`; `auto` is `mjx` with an accelerator and `mujoco` without.

    Raises:
      ValueError: See `resolve_backend`.
      ModuleNotFoundError: The extra `[half-cheetah]` is not installed.
    """
    return _make(resolve_backend(backend))


@functools.cache
def _make(backend: str) -> base.Env:
    physics = importlib.import_module(f"envs.physics.cheetah_{backend}")
    physics.load()  # what is not installed should be missed now, and not in a compiled step
    return base.Env(
        spec=dataclasses.replace(SPEC, backend=backend),
        params=make_params,
        reset=reset,
        step=functools.partial(step, physics),
        observe=observe,
        state_from_obs=state_from_obs,
        reward=reward,
        terminated=terminated,
        planning_bonus=planning_bonus,
    )
