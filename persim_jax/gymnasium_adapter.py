"""One agent as a `gymnasium.Env`: of a true environment or of a learned simulator.

Libraries that train policies by stepping an environment can then use either, unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.envs.registration import EnvSpec

from persim_jax.models.base import DynamicsModel
from persim_jax.models.inputs import Scheduled
from persim_jax.models.true_env import true_dynamics
from persim_jax.types import Environment, PyTree, RewardFn, Task, TerminatedFn

ResetFn = Callable[[jax.Array], jax.Array]
"""`(key) -> obs [D]`, an initial observation; the key is consumed."""

DRIVERS = ("mean", "random_member")
ROUNDING = np.float32(1e-6)
"""How far an action may be past a bound, as a share of the larger bound: some units in the last
place, which `gymnasium.wrappers.RescaleAction` rounds by."""


class GymnasiumEnv(gymnasium.Env[np.ndarray, Any]):
    """Steps a model that is bound to one agent, for as long as `task.spec.max_steps`.

    Each member goes on from its own state, and what each of them believes is in
    `info["member_obs"]`, `[M, D]`. A true environment is a model of one member (see
    `from_environment`).

    Args:
      model: Dynamics.
      bound: The model bound to one agent.
      task: Spec, reward and termination.
      reset: Draws an initial observation.
      driver: What observation, reward and termination are of: the "mean" over members, or a
        "random_member", another one in each episode (`info["member"]`). A policy that must get
        along with every member cannot live on the errors of one.
      inputs: `[max_steps, I]`, exogenous inputs of each step; the model then is one of
        `persim_jax.models.inputs.with_schedule`. None where there are none.

    Raises:
      ValueError: The driver is unknown, or there are fewer inputs than steps.
    """

    def __init__(
        self,
        model: DynamicsModel,
        bound: PyTree,
        task: Task,
        reset: ResetFn,
        driver: str = "mean",
        inputs: np.ndarray | None = None,
    ) -> None:
        spec = task.spec
        if driver not in DRIVERS:
            raise ValueError(f"driver {driver!r} is unknown: use one of {DRIVERS}")
        if inputs is not None and len(inputs) < spec.max_steps:
            raise ValueError(
                f"there are inputs for {len(inputs)} steps and episodes of up to {spec.max_steps}: "
                "give as many, or a lower max_steps"
            )
        self._model, self._bound, self._task, self._reset = model, bound, task, reset
        self._driver, self._inputs = driver, inputs
        # Any finite number: bounds that are infinite draw warnings from gymnasium's checker, and
        # no others are known to hold for a learned model.
        limit = np.finfo(np.float32).max
        self.observation_space = gymnasium.spaces.Box(-limit, limit, (spec.obs_size,), np.float32)
        if spec.discrete:
            self.action_space = gymnasium.spaces.Discrete(spec.num_actions)
        else:
            low, high = np.float32(spec.action_low), np.float32(spec.action_high)
            self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        # With a spec, gymnasium's own tools can make this environment again.
        kwargs = {
            "model": model, "bound": bound, "task": task, "reset": reset, "driver": driver,
            "inputs": inputs,
        }  # fmt: skip
        maker: Any = type(self)
        self.spec = EnvSpec("persim_jax/Agent-v0", entry_point=maker, kwargs=kwargs)
        self._key = jax.random.key(0)
        self._model_state: PyTree = None
        self._obs: jax.Array | None = None
        self._num_steps = 0
        # -1 is the mean of all members.
        self._member = -1

    @classmethod
    def from_environment(cls, env: Environment, covariates: np.ndarray) -> GymnasiumEnv:
        """Returns the agent of a true environment that has these covariates `[C]`."""
        params = env.params(jnp.asarray(covariates))
        reset = functools.partial(_reset_environment, env, params)
        return cls(true_dynamics(env), params, env, reset)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode.

        Args:
          seed: Seed of this and of all later episodes; without one they go on from the last seed.
          options: Ignored.

        Returns:
          The observation `[D]` and `{"member_obs": [M, D]}`, with a random member its number too.
        """
        super().reset(seed=seed, options=options)
        # All of an episode's randomness comes from one key, and that from gymnasium's generator.
        self._key = jax.random.key(int(self.np_random.integers(2**31)))
        self._num_steps = 0
        obs = self._reset(jax.random.fold_in(self._key, 0))
        if self._driver == "random_member":
            self._member = int(self.np_random.integers(self._model.num_paths))
        state, self._obs, members = _start(self._model, self._bound_at(0), obs, self._member)
        self._model_state = state
        return _to_numpy(self._obs), self._info(members)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes one action.

        Args:
          action: An integer when actions are discrete, `[A]` within the bounds when continuous.

        Returns:
          Observation `[D]`, reward, terminated, truncated, and as `reset`.

        Raises:
          gymnasium.error.ResetNeeded: No episode has begun, or this one is over.
          gymnasium.error.InvalidAction: The action is not in `action_space`.
          FloatingPointError: The reward or the state is not finite: a policy would learn to go
            where a reward for each step is paid for nothing.
        """
        if self._obs is None:
            raise gymnasium.error.ResetNeeded("No episode is running: call reset() before step().")
        action = self._checked(action)
        self._num_steps += 1
        self._model_state, obs, members, reward, terminated = _advance(
            self._model,
            self._task.reward,
            self._task.terminated,
            jax.random.fold_in(self._key, self._num_steps),
            self._bound_at(self._num_steps - 1),
            self._model_state,
            self._obs,
            action,
            self._member,
        )
        seen = _to_numpy(obs)
        if not np.isfinite(seen).all():
            raise FloatingPointError(
                f"the observation is {seen.tolist()} in step {self._num_steps}: the simulator "
                "leaves the finite numbers; end episodes before (terminated), or narrow the bounds "
                "of actions"
            )
        if not np.isfinite(reward):
            raise FloatingPointError(
                f"the reward is {float(reward)} in step {self._num_steps} at obs "
                f"{seen.tolist()}: make the reward function finite wherever the agent "
                "goes, or end the episode before"
            )
        ended = bool(terminated)
        truncated = not ended and self._num_steps >= self._task.spec.max_steps
        self._obs = None if ended or truncated else obs
        return seen, float(reward), ended, truncated, self._info(members)

    def _bound_at(self, step: int) -> PyTree:
        """The bound model as it is in a step, 0 being the first."""
        if self._inputs is None:
            return self._bound
        return Scheduled(self._bound, jnp.asarray(self._inputs[step]))

    def _info(self, members: jax.Array) -> dict[str, Any]:
        info: dict[str, Any] = {"member_obs": _to_numpy(members)}
        return info if self._member < 0 else info | {"member": self._member}

    def _checked(self, action: Any) -> jax.Array:
        """Returns an action as the model takes it."""
        if not self._task.spec.discrete:
            # Policies in float64 are common and harmless; actions out of bounds are neither.
            action = _rounded(self.action_space, np.asarray(action, np.float32))
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(
                f"The action {action!r} is not in {self.action_space}; clip or map it first."
            )
        return jnp.asarray(action, jnp.int32 if self._task.spec.discrete else jnp.float32)


def _rounded(space: Any, action: np.ndarray) -> np.ndarray:
    """The bound where an action is past it by no more than rounding, as a rescaled end may be."""
    slack = ROUNDING * np.maximum(np.abs(space.low), np.abs(space.high))
    if action.shape != slack.shape:
        return action
    near = (action >= space.low - slack) & (action <= space.high + slack)
    return np.where(near, np.clip(action, space.low, space.high), action)


def make_reset(reset: Any, size: int) -> ResetFn:
    """A function that draws initial observations.

    Args:
      reset: Rows `[R, D]` to draw from, one `[D]`, or a function `(key) -> obs [D]`.
      size: D.

    Raises:
      ValueError: The states have another shape or are not finite.
    """
    if callable(reset):
        return functools.partial(_called, reset, size)
    rows = np.atleast_2d(np.asarray(reset, np.float32))
    if rows.ndim != 2 or rows.shape[1] != size or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(
            f"reset has shape {np.shape(reset)}: finite states are due, ({size},) or (R, {size})"
        )
    return functools.partial(_draw, jnp.asarray(rows))


def _called(reset: Callable[[jax.Array], Any], size: int, key: jax.Array) -> jax.Array:
    """A user's initial observation `[D]`, as floats: whole numbers would stay whole for ever."""
    obs = jnp.asarray(reset(key), jnp.float32)
    if obs.shape != (size,):
        raise ValueError(
            f"the reset function returns an observation of shape {obs.shape}: ({size},) is due"
        )
    return obs


@jax.jit
def _draw(rows: jax.Array, key: jax.Array) -> jax.Array:
    return rows[jax.random.randint(key, (), 0, rows.shape[0])]


def _to_numpy(array: jax.Array) -> np.ndarray:
    """Returns a copy that the user may change, in the dtype of the observation space."""
    return np.array(array, np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _reset_environment(env: Environment, params: PyTree, key: jax.Array) -> jax.Array:
    return env.observe(env.reset(key, params), params)


@functools.partial(jax.jit, static_argnums=0)
def _start(
    model: DynamicsModel, bound: PyTree, obs: jax.Array, member: jax.Array
) -> tuple[PyTree, jax.Array, jax.Array]:
    """Returns the model's state at `obs [D]`, what is shown `[D]` and all members `[M, D]`."""
    model_state = model.start(bound, obs)
    members = model.observe(model_state)
    return model_state, _shown(members, member), members


def _shown(members: jax.Array, member: jax.Array) -> jax.Array:
    """One of the members `[M, D]`, or their mean where `member []` is negative."""
    return jnp.where(member < 0, members.mean(axis=0), members[jnp.maximum(member, 0)])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(
    model: DynamicsModel,
    reward_fn: RewardFn,
    terminated_fn: TerminatedFn,
    key: jax.Array,
    bound: PyTree,
    model_state: PyTree,
    obs: jax.Array,
    action: jax.Array,
    member: jax.Array,
) -> tuple[PyTree, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns state, shown observation `[D]`, members `[M, D]`, reward and terminated after a step.

    The records are static and hashable, so all agents of a model share one compilation.
    """
    encoded = model.encode_actions(bound, action)
    model_state = model.step(key, bound, model_state, encoded)
    members = model.observe(model_state)
    next_obs = _shown(members, member)
    reward = reward_fn(obs, action, next_obs)
    return model_state, next_obs, members, reward, terminated_fn(next_obs)
