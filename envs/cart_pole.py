"""CartPole: a pole balanced on a cart, with push and half pole length as covariates.

The dynamics are those of gymnasium's CartPole-v1 with its explicit Euler integrator. With the
total mass M = m_cart + m_pole, the half length l and the signed push F,

    temp = (F + m_pole * l * theta_dot^2 * sin(theta)) / M
    theta_acc = (g sin(theta) - cos(theta) temp) / (l (4/3 - m_pole cos(theta)^2 / M))
    x_acc = temp - m_pole * l * theta_acc * cos(theta) / M
"""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp

from envs import base

GRAVITY = 9.8
MASS_CART = 1.0
MASS_POLE = 0.1
MAX_X = 2.4
MAX_THETA = 12.0 * math.pi / 180.0
RESET_BOUND = 0.05

SPEC = base.EnvSpec(
    name="cart_pole",
    obs_names=("x", "x_dot", "theta", "theta_dot"),
    covariate_names=("force", "length"),
    num_actions=2,
    action_low=(),
    action_high=(),
    max_steps=200,
    dt=0.02,
)


@chex.dataclass(frozen=True)
class CartPoleParams:
    """Physics of one agent; what follows from it is computed, never stored.

    Attributes:
      force: `[]`, size of a push in N.
      length: `[]`, half the length of the pole in m.
      gravity: `[]`, in m/s^2.
      mass_cart: `[]`, in kg.
      mass_pole: `[]`, in kg.
    """

    force: jax.Array
    length: jax.Array
    gravity: jax.Array
    mass_cart: jax.Array
    mass_pole: jax.Array

    @property
    def total_mass(self) -> jax.Array:
        """Mass of cart and pole together, in kg."""
        return self.mass_cart + self.mass_pole

    @property
    def pole_mass_length(self) -> jax.Array:
        """Mass of the pole times its half length, in kg m."""
        return self.mass_pole * self.length


@chex.dataclass(frozen=True)
class CartPoleState:
    """State of cart and pole.

    Attributes:
      x: `[]`, position of the cart in m.
      x_dot: `[]`, its velocity in m/s.
      theta: `[]`, angle of the pole from upright in rad.
      theta_dot: `[]`, its angular velocity in rad/s.
    """

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array


def make_params(covariates: jax.Array) -> CartPoleParams:
    """Returns the physics of the agent with `covariates [2]`: force in N, half length in m.

    Raises:
      ValueError: The array is not of shape `(2,)`.
    """
    covariates = base.as_covariates(covariates)
    if covariates.shape != (2,):
        raise ValueError(
            f"CartPole takes covariates (force, length) of shape (2,), not {covariates.shape}; "
            "for several agents use jax.vmap(env.params)."
        )
    return CartPoleParams(
        force=covariates[0],
        length=covariates[1],
        gravity=jnp.asarray(GRAVITY, covariates.dtype),
        mass_cart=jnp.asarray(MASS_CART, covariates.dtype),
        mass_pole=jnp.asarray(MASS_POLE, covariates.dtype),
    )


def reset(key: jax.Array, params: CartPoleParams) -> CartPoleState:
    """Draws every coordinate of the state from U(-0.05, 0.05); consumes `key`."""
    obs = jax.random.uniform(key, (4,), params.force.dtype, -RESET_BOUND, RESET_BOUND)
    return state_from_obs(obs, params)


def accelerations(
    env_state: CartPoleState, push: jax.Array, params: CartPoleParams
) -> tuple[jax.Array, jax.Array]:
    """Returns the accelerations of cart `[]` and pole `[]` under a signed `push []` in N."""
    cos, sin = jnp.cos(env_state.theta), jnp.sin(env_state.theta)
    centrifugal = params.pole_mass_length * env_state.theta_dot**2 * sin
    temp = (push + centrifugal) / params.total_mass
    inertia = params.length * (4.0 / 3.0 - params.mass_pole * cos**2 / params.total_mass)
    theta_acc = (params.gravity * sin - cos * temp) / inertia
    x_acc = temp - params.pole_mass_length * theta_acc * cos / params.total_mass
    return x_acc, theta_acc


def step(
    key: jax.Array, env_state: CartPoleState, action: jax.Array, params: CartPoleParams
) -> CartPoleState:
    """Moves the system by 0.02 s; `action []` 0 pushes left, 1 right.

    The dynamics are deterministic: `key` is there for the interface only. Explicit Euler, so that
    positions move with the velocities from before the step.
    """
    del key
    push = jnp.where(action == 1, params.force, -params.force)
    x_acc, theta_acc = accelerations(env_state, push, params)
    return CartPoleState(
        x=env_state.x + SPEC.dt * env_state.x_dot,
        x_dot=env_state.x_dot + SPEC.dt * x_acc,
        theta=env_state.theta + SPEC.dt * env_state.theta_dot,
        theta_dot=env_state.theta_dot + SPEC.dt * theta_acc,
    )


def observe(env_state: CartPoleState, params: CartPoleParams) -> jax.Array:
    """Returns the observation `[4]`: x, x_dot, theta, theta_dot."""
    del params
    return jnp.stack([env_state.x, env_state.x_dot, env_state.theta, env_state.theta_dot])


def state_from_obs(obs: jax.Array, params: CartPoleParams) -> CartPoleState:
    """Returns the state whose observation is `obs [4]`."""
    del params
    return CartPoleState(x=obs[0], x_dot=obs[1], theta=obs[2], theta_dot=obs[3])


def terminated(obs: jax.Array) -> jax.Array:
    """Whether in `obs [4]` the cart is beyond 2.4 m or the pole beyond 12 degrees."""
    return (jnp.abs(obs[0]) > MAX_X) | (jnp.abs(obs[2]) > MAX_THETA)


def reward(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """Returns 1 for every step, the one that ends the episode included."""
    del obs, action
    return jnp.ones((), next_obs.dtype)


def planning_bonus(obs: jax.Array) -> jax.Array:
    """Returns 0 for `obs [H, 4]`: the reward needs no help."""
    return jnp.zeros((), obs.dtype)


def make() -> base.Env:
    """Returns CartPole as a record of functions."""
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
