"""MountainCar: an underpowered car in a valley, with gravity as the covariate.

The dynamics are those of gymnasium's MountainCar-v0, with one step as the unit of time:

    velocity' = clip(velocity + (action - 1) * force - gravity * cos(3 * position), +-0.07)
    position' = clip(position + velocity', -1.2, 0.6)

and a car that hits the left wall stops there.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from envs import base

FORCE = 0.001
MIN_POSITION = -1.2
MAX_POSITION = 0.6
MAX_SPEED = 0.07
GOAL_POSITION = 0.5
RESET_LOW = -0.6
RESET_HIGH = -0.4

SPEC = base.EnvSpec(
    name="mountain_car",
    obs_names=("position", "velocity"),
    covariate_names=("gravity",),
    num_actions=3,
    action_low=(),
    action_high=(),
    max_steps=500,
    dt=1.0,
)


@chex.dataclass(frozen=True)
class MountainCarParams:
    """Physics of one agent.

    Attributes:
      gravity: `[]`, pull of the slope per step squared.
      force: `[]`, push of the engine per step squared.
    """

    gravity: jax.Array
    force: jax.Array


@chex.dataclass(frozen=True)
class MountainCarState:
    """State of the car.

    Attributes:
      position: `[]`, in [-1.2, 0.6].
      velocity: `[]`, per step, in [-0.07, 0.07].
    """

    position: jax.Array
    velocity: jax.Array


def make_params(covariates: jax.Array) -> MountainCarParams:
    """Returns the physics of the agent with `covariates [1]`: its gravity.

    Raises:
      ValueError: The array is not of shape `(1,)`.
    """
    covariates = base.as_covariates(covariates)
    if covariates.shape != (1,):
        raise ValueError(
            f"MountainCar takes covariates (gravity,) of shape (1,), not {covariates.shape}; "
            "for several agents use jax.vmap(env.params)."
        )
    gravity = covariates[0]
    return MountainCarParams(gravity=gravity, force=jnp.asarray(FORCE, gravity.dtype))


def reset(key: jax.Array, params: MountainCarParams) -> MountainCarState:
    """Draws a car at rest with position ~ U(-0.6, -0.4); consumes `key`."""
    dtype = params.gravity.dtype
    position = jax.random.uniform(key, (), dtype, RESET_LOW, RESET_HIGH)
    return MountainCarState(position=position, velocity=jnp.zeros((), dtype))


def step(
    key: jax.Array, env_state: MountainCarState, action: jax.Array, params: MountainCarParams
) -> MountainCarState:
    """Moves the car by one step; `action []` 0 pushes left, 1 not at all, 2 right.

    The dynamics are deterministic: `key` is there for the interface only.
    """
    del key
    push = (action.astype(params.force.dtype) - 1.0) * params.force
    slope = params.gravity * jnp.cos(3.0 * env_state.position)
    velocity = jnp.clip(env_state.velocity + push - slope, -MAX_SPEED, MAX_SPEED)
    position = jnp.clip(env_state.position + velocity, MIN_POSITION, MAX_POSITION)
    into_the_wall = (position <= MIN_POSITION) & (velocity < 0.0)
    velocity = jnp.where(into_the_wall, jnp.zeros_like(velocity), velocity)
    return MountainCarState(position=position, velocity=velocity)


def observe(env_state: MountainCarState, params: MountainCarParams) -> jax.Array:
    """Returns the observation `[2]`: position and velocity."""
    del params
    return jnp.stack([env_state.position, env_state.velocity])


def state_from_obs(obs: jax.Array, params: MountainCarParams) -> MountainCarState:
    """Returns the state whose observation is `obs [2]`."""
    del params
    return MountainCarState(position=obs[0], velocity=obs[1])


def terminated(obs: jax.Array) -> jax.Array:
    """Whether the car of `obs [2]` is at the goal: position >= 0.5 and velocity >= 0."""
    return (obs[0] >= GOAL_POSITION) & (obs[1] >= 0.0)


def reward(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """Returns -1 for a step, 0 for the step that reaches the goal."""
    del obs, action
    return terminated(next_obs).astype(next_obs.dtype) - 1.0


def planning_bonus(obs: jax.Array) -> jax.Array:
    """Returns the highest position in `obs [H, 2]`: the reward alone is flat until the goal."""
    return jnp.max(obs[:, 0])


def make() -> base.Env:
    """Returns MountainCar as a record of functions."""
    return base.Env(
        spec=SPEC,
        params=make_params,
        reset=reset,
        step=step,
        observe=observe,
        state_from_obs=state_from_obs,
        reward=reward,
        terminated=terminated,
        planning_bonus=planning_bonus,
    )
