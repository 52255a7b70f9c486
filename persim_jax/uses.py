"""What can be done with simulators beside predicting: ask, plan, train policies, take away.

`PersonalizedSimulators` inherit these methods; each of them prepares arguments for a function that
is somewhere else.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import arguments, queries, tasks
from persim_jax.calibration import Calibration
from persim_jax.data.info import AgentId, DatasetInfo
from persim_jax.data.support import DataSupport, is_stranger
from persim_jax.export import export_rollout
from persim_jax.gymnasium_adapter import GymnasiumEnv, ResetFn, make_reset
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.models.factor import FactorConfig
from persim_jax.models.inputs import with_schedule
from persim_jax.planning.config import PlannerConfig
from persim_jax.planning.episodes import PlannedEpisode, plan_episode
from persim_jax.types import RewardFn, Task, TerminatedFn


class Fitted(Protocol):
    """What these methods need of simulators."""

    params: ModelParams
    agent_ids: Any
    config: FactorConfig
    task: Task | None
    info: DatasetInfo | None
    support: DataSupport | None
    noise: Any

    @property
    def model(self) -> DynamicsModel: ...
    def row_of(self, agent_id: AgentId) -> int: ...
    def as_obs(self, obs: Any) -> jax.Array: ...
    def as_inputs(self, inputs: Any, steps: int) -> jax.Array | None: ...
    def replace(self, **fields: Any) -> Any: ...
    def last_obs(self, agent_id: AgentId) -> jax.Array: ...


Simulators = TypeVar("Simulators", bound=Fitted)


class SimulatorUses:
    """The methods; see the head of this file."""

    def last_obs(self: Fitted, agent_id: AgentId) -> jax.Array:
        """Where an agent was last seen, as the model takes it.

        Raises:
          KeyError: No agent has this id.
          ValueError: It is not known; give a state where one is asked for.
        """
        row = self.row_of(agent_id)
        if self.support is None or is_stranger(self.support, row):
            raise ValueError(
                f"where agent {agent_id} was last seen is not known: give a state of "
                f"{self.config.obs_size} numbers"
            )
        return self.as_obs(np.asarray(self.support.last_obs)[row])

    def with_reward(
        self: Simulators,
        reward: RewardFn,
        terminated: TerminatedFn | None = None,
        max_steps: int | None = None,
        action_low: Any = None,
        action_high: Any = None,
    ) -> Simulators:
        """The same simulators with a task, so that there is something to plan for.

        Args:
          reward: `(obs [D], action, next_obs [D]) -> []`, in the units of the data and traceable;
            or a `persim_jax.models.reward.LearnedReward`.
          terminated: `(obs [D]) -> bool []`; without it nothing ends an episode.
          max_steps: Length of an episode; that of the longest trajectory in the data by default.
          action_low: Lower bounds of a continuous action, `[A]` or one for all; the least in the
            data by default.
          action_high: Upper bounds.

        Raises:
          ValueError: A function does not return one number, or bounds are missing or wrong.
        """
        sizes = (self.config, self.info, self.support)
        spec = tasks.spec_of(*sizes, max_steps, action_low, action_high)
        simulators: Simulators = self.replace(task=tasks.make_task(spec, reward, terminated))
        return simulators

    def query(
        self: Fitted,
        agent_id: AgentId,
        actions: Any,
        obs: Any = None,
        inputs: Any = None,
        levels: Sequence[float] = queries.LEVELS,
        calibration: Calibration | None = None,
        is_known: bool | None = None,
    ) -> queries.Answer:
        """A counterfactual: what this agent would do under these actions, with intervals.

        Args:
          agent_id: Whose simulator.
          actions: `[T]` int or `[T, A]`; they are taken as they are, also outside the data's range.
          obs: Where it starts, as in `rollout`; by default where the agent was last seen.
          inputs: `[T, I]`, or `[I]` where they stay the same, where the model has any.
          levels: Nominal coverage of the intervals.
          calibration: What validation found; without it intervals assume normal errors.
          is_known: Whether the agent is calibrated as one of the data or, what is wider, as a
            newcomer; by default as what it is.

        Returns:
          The answer. What it says of its own limits is warned about, too.

        Raises:
          KeyError: No agent has this id.
          ValueError: A shape does not fit the model, a value is not finite, or there is no state to
            start from.
        """
        answer = queries.ask(self, agent_id, actions, obs, inputs, levels, calibration, is_known)
        for note in answer.notes:
            warnings.warn(note, stacklevel=2)
        return answer

    def plan_episode(
        self: Fitted,
        key: jax.Array,
        agent_id: AgentId,
        planner: PlannerConfig,
        num_steps: int,
        obs: Any = None,
        inputs: Any = None,
    ) -> PlannedEpisode:
        """An episode of planning and acting inside an agent's own simulator.

        Args:
          key: Consumed.
          agent_id: Whose.
          planner: How each decision is made.
          num_steps: T, decisions.
          obs: Where it starts; by default where the agent was last seen.
          inputs: `[R, I]` with R >= T, or `[I]`. Where a plan looks past them, the last row stays.

        Returns:
          The episode; its `actions` are the plan.

        Raises:
          KeyError: No agent has this id.
          ValueError: There is no task, a shape does not fit, or a state or reward is not finite.
        """
        if self.task is None:
            raise ValueError("planning needs a reward: with_reward(...) makes simulators with one")
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}: an episode has at least 1")
        start = self.last_obs(agent_id) if obs is None else self.as_obs(obs)
        arguments.check_obs(self.config, start)
        arguments.check_finite("obs", start)
        ahead = num_steps + planner.horizon - 1
        schedule = self.as_inputs(_extended(inputs, num_steps, ahead), ahead)
        row = jnp.asarray(self.row_of(agent_id))
        episode = plan_episode(
            key, self.config, self.params, row, start, schedule, self.task, planner, num_steps
        )
        tasks.check_path(self.task, episode.obs, episode.actions, episode.mask)
        return episode

    def to_gymnasium(
        self: Fitted,
        agent_id: AgentId,
        reward: RewardFn | None = None,
        terminated: TerminatedFn | None = None,
        reset: Any = None,
        max_steps: int | None = None,
        driver: str = "mean",
        inputs: Any = None,
        action_low: Any = None,
        action_high: Any = None,
    ) -> GymnasiumEnv:
        """An agent's simulator as a `gymnasium.Env`, in which any library can train a policy.

        Args:
          agent_id: Whose.
          reward: As in `with_reward`; without it the simulators' own task is used as it is, and
            what else makes a task must not be given either.
          terminated: As in `with_reward`.
          reset: Initial observations: rows `[R, D]` to draw from, one `[D]`, or a function
            `(key) -> obs [D]`. By default the first observations of all agents in the data.
          max_steps: As in `with_reward`; with inputs, by default, as many as there are.
          driver: "mean" over members, or a "random_member" in each episode.
          inputs: `[max_steps, I]`, where the model has any; the same in each episode.
          action_low: As in `with_reward`.
          action_high: As in `with_reward`.

        Raises:
          KeyError: No agent has this id.
          ValueError: There is no reward or one that is not finite, no way to reset, a shape does
            not fit, or an option would be without effect.
        """
        row = self.row_of(agent_id)
        if reward is None and self.task is not None:
            tasks.refuse_options(
                terminated=terminated, max_steps=max_steps, action_low=action_low,
                action_high=action_high,
            )  # fmt: skip
        if max_steps is None and np.ndim(inputs) == 2:
            max_steps = len(inputs)
        task = self.task
        if reward is not None:
            spec = tasks.spec_of(
                self.config, self.info, self.support, max_steps, action_low, action_high
            )
            task = tasks.make_task(spec, reward, terminated)
        if task is None:
            raise ValueError("an environment needs a reward: give one, or learn it from the data")
        steps = task.spec.max_steps
        schedule = self.as_inputs(inputs, steps)
        if reset is None and self.support is None:
            raise ValueError("where episodes begin is not known: give reset, one or more states")
        starts = self.support.first_obs if reset is None and self.support else reset
        draw = make_reset(starts, self.config.obs_size)
        _check_start(task, draw)
        model = self.model
        bound = model.bind(self.params, jnp.asarray(row), None)
        if schedule is not None:
            model = with_schedule(model, self.config)
        numbers = None if schedule is None else np.asarray(schedule)
        return GymnasiumEnv(model, bound, task, draw, driver, numbers)

    def export_rollout(
        self: Fitted,
        path: str | os.PathLike[str],
        agent_id: AgentId | None = None,
        num_steps: int | None = None,
    ) -> None:
        """Writes the rollout of one or all agents to a file that runs without this package.

        Args:
          path: The file; see `persim_jax.export.export_rollout` for how to run it.
          agent_id: Whose; None is all agents, with their weights.
          num_steps: Length of a rollout; None leaves it open.

        Raises:
          KeyError: No agent has this id.
        """
        ids = np.asarray(self.agent_ids)
        config, params = self.config, self.params
        if agent_id is not None:
            row = self.row_of(agent_id)
            ids = ids[row : row + 1]
            config, params = _one_agent(config, params, row)
        export_rollout(path, config, params, ids, num_steps)


def _one_agent(
    config: FactorConfig, params: ModelParams, row: int
) -> tuple[FactorConfig, ModelParams]:
    """The model without its other agents."""
    table = params.weights["agent_encoder"]["embedding"][:, row : row + 1]
    weights = {**params.weights, "agent_encoder": {"embedding": table}}
    return dataclasses.replace(config, num_agents=1), params._replace(weights=weights)


def _extended(inputs: Any, least: int, steps: int) -> Any:
    """Inputs `[R, I]` for so many steps: cut, or their last row repeated."""
    if inputs is None or np.ndim(inputs) != 2:
        return inputs
    rows = np.asarray(inputs)
    if len(rows) < least:
        raise ValueError(f"inputs have {len(rows)} rows: {least} steps need as many at the least")
    return np.concatenate([rows, np.repeat(rows[-1:], steps, axis=0)])[:steps]


def _check_start(task: Task, draw: ResetFn) -> None:
    """Tries the reward where an episode begins, before a library is in the middle of training."""
    obs = draw(jax.random.key(0))
    spec = task.spec
    action = (
        jnp.zeros((), jnp.int32)
        if spec.discrete
        else (jnp.asarray(spec.action_low) + jnp.asarray(spec.action_high)) / 2
    )
    tasks.check_rewards(task, *(x[None] for x in (obs, action, obs)))


class AgentUses:
    """The same for the simulator of one agent, which has `simulators` and an `agent_id`."""

    simulators: Any
    agent_id: AgentId

    def query(self, actions: Any, obs: Any = None, inputs: Any = None, **options: Any) -> Any:
        """As `PersonalizedSimulators.query`."""
        return self.simulators.query(self.agent_id, actions, obs, inputs, **options)

    def plan_episode(
        self, key: jax.Array, planner: PlannerConfig, num_steps: int, **start: Any
    ) -> PlannedEpisode:
        """As `PersonalizedSimulators.plan_episode`."""
        episode: PlannedEpisode = self.simulators.plan_episode(
            key, self.agent_id, planner, num_steps, **start
        )
        return episode

    def to_gymnasium(self, reward: RewardFn | None = None, **options: Any) -> GymnasiumEnv:
        """As `PersonalizedSimulators.to_gymnasium`."""
        env: GymnasiumEnv = self.simulators.to_gymnasium(self.agent_id, reward, **options)
        return env

    def export_rollout(self, path: str | os.PathLike[str], num_steps: int | None = None) -> None:
        """As `PersonalizedSimulators.export_rollout`."""
        self.simulators.export_rollout(path, self.agent_id, num_steps)
