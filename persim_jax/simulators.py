"""What a user holds after `fit`: a simulator for every agent."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple, overload

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax import arguments, bounds, simulator_files
from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.info import AgentId, DatasetInfo, row_of
from persim_jax.data.support import DataSupport
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.models.factor import FactorConfig, agent_factors, factor_model
from persim_jax.models.factor_network import newest
from persim_jax.models.inputs import Scheduled, join_inputs, with_schedule
from persim_jax.personalization import newcomers
from persim_jax.personalization.newcomers import Newcomer, Newcomers
from persim_jax.personalization.prior import residual_noise
from persim_jax.planning.episodes import plan_action
from persim_jax.planning.mpc import PlannerConfig, mpc_policy
from persim_jax.rollout import Policy
from persim_jax.types import Task, Transitions
from persim_jax.uses import AgentUses, SimulatorUses


class Prediction(NamedTuple):
    """Predicted observations.

    Attributes:
      mean: `[..., D]`, the mean over members.
      members: `[M, ..., D]`, what each member predicts; their spread says how far to trust it.
    """

    mean: jax.Array
    members: jax.Array


# flax's record because config and task are static: a jitted function takes the whole object.
class PersonalizedSimulators(SimulatorUses, flax.struct.PyTreeNode):
    """Simulators of N agents learned from one trajectory of each.

    Attributes:
      params: The ensemble.
      agent_ids: `[N]` ids, in the order of the model's agent rows.
      covariates: `[N, C]`, known constants of the agents; the model never sees them.
      config: Static sizes of the model.
      task: Reward, termination and spec, static; None if unknown, then there is no planning.
      info: Static facts of the data: names of agents, coordinates, actions and inputs; None in
        files of older versions.
      support: Where the data lie and agents were last seen; None likewise.
      noise: `[M, D]`, how far each member is from its training data, in scaled units; None in
        files of older versions, then there are no newcomers.
    """

    params: ModelParams
    agent_ids: Any
    covariates: Any
    config: FactorConfig = flax.struct.field(pytree_node=False)
    task: Task | None = flax.struct.field(pytree_node=False, default=None)
    info: DatasetInfo | None = flax.struct.field(pytree_node=False, default=None)
    support: DataSupport | None = None
    noise: Any = None

    @property
    def agent_names(self) -> tuple[str, ...]:
        """Name of each agent in the order of the rows, or nothing where ids are integers."""
        return self.info.agent_names if self.info else ()

    @property
    def model(self) -> DynamicsModel:
        """The dynamics as the record that rollouts and planners take."""
        return factor_model(self.config)

    @property
    def num_agents(self) -> int:
        """Number of agents, N."""
        return self.config.num_agents

    def row_of(self, agent_id: AgentId) -> int:
        """Returns the model's row of the agent with this id or name.

        Raises:
          KeyError: No agent has this id; names those that look alike.
          TypeError: It is traced.
        """
        arguments.refuse_traced(agent_id, self.agent_ids)
        return row_of(self.agent_ids, agent_id, self.agent_names)

    def for_agent(self, agent_id: AgentId) -> PersonalizedSimulator:
        """The simulator of one agent.

        Raises:
          KeyError: No agent has this id.
        """
        return PersonalizedSimulator(self, agent_id, self.row_of(agent_id))

    def agent_factors(self) -> jax.Array:
        """u(n) of every member and agent, `[M, N, r]`."""
        return agent_factors(self.config, self.params)

    def step(
        self, agent_id: AgentId, obs: jax.Array, action: jax.Array, inputs: Any = None
    ) -> Prediction:
        """Predicts the observation after one action.

        Args:
          agent_id: Whose simulator.
          obs: As in `rollout`.
          action: `[]` int or `[A]`.
          inputs: `[I]`, where the model has exogenous inputs.

        Returns:
          Mean `[D]` and members `[M, D]`.
        """
        path = self.rollout(agent_id, obs, [action], inputs)
        return Prediction(path.mean[0], path.members[:, 0])

    def rollout(
        self, agent_id: AgentId, obs: jax.Array, actions: Any, inputs: Any = None
    ) -> Prediction:
        """Predicts the path under given actions; each member goes on from its own predictions.

        Args:
          agent_id: Whose simulator, by id or by name. An integer may be traced, as `vmap` over
            agents does; then the answer to an id that there is not is NaN.
          obs: Where it starts, `[D]`. A model with L lags takes the agent's last moments, L or
            more, as `Recent`, or a window as `lags.with_lags` makes it.
          actions: `[T]` int or `[T, A]`. Where there is a task, continuous ones outside its bounds
            are clipped, with a warning that says how many.
          inputs: `[T, I]` exogenous inputs of each step, where the model has any; `[I]` where they
            stay the same.

        Returns:
          Observations after each action, mean `[T, D]` and members `[M, T, D]`.

        Raises:
          KeyError: No agent has this id.
          ValueError: A shape does not fit the model, or an action does not exist.
        """
        obs, actions = self.as_obs(obs), arguments.as_actions(self.config, self.params, actions)
        arguments.check_obs(self.config, obs)
        if self.task is not None:
            actions = bounds.clip(self.task.spec, actions)
        joined = join_inputs(self.config, actions, self.as_inputs(inputs, len(actions)))
        agent, known = arguments.find_row(self.agent_ids, agent_id, self.agent_names)
        members = _rollout(self.config, self.params, agent, obs, joined)
        members = members if known is None else jnp.where(known, members, jnp.nan)
        return Prediction(members.mean(axis=0), members)

    def policy(
        self, agent: jax.Array, planner: PlannerConfig, inputs: jax.Array | None = None
    ) -> Policy:
        """MPC in the simulator of the agent in row `agent []`, as a policy.

        Args:
          agent: `[]` row.
          planner: How.
          inputs: `[H, I]` over the horizon of each decision, or `[I]`, where the model has any.

        Raises:
          ValueError: There is no task, so that nothing says what is good.
        """
        task = self.required_task()
        model, bound = self.model, self.model.bind(self.params, agent, None)
        if inputs is not None:
            model, bound = with_schedule(model, self.config), Scheduled(bound, inputs)
        return mpc_policy(model, bound, task, planner)

    def required_task(self) -> Task:
        """The task; a ValueError where there is none, so that nothing says what is good."""
        if self.task is None:
            raise ValueError(
                "planning needs a reward: give fit or PersonalizedSimulators.load a task"
            )
        return self.task

    def plan(
        self,
        key: jax.Array,
        agent_id: AgentId,
        obs: jax.Array,
        planner: PlannerConfig,
        inputs: Any = None,
    ) -> jax.Array:
        """The next action for an agent, planned from scratch.

        Args:
          key: Consumed.
          agent_id: Whose simulator.
          obs: As in `rollout`; the task sees all of the window, newest values first.
          planner: How.
          inputs: `[H, I]` over the planner's horizon, or `[I]`, where the model has any.

        Returns:
          The action, `[]` int32 or `[A]`. To keep the plan between decisions use `policy`.

        Raises:
          KeyError: No agent has this id.
          ValueError: There is no task, a shape does not fit the model, or values are not finite:
            all plans are worth nothing, and one of them would be taken.
        """
        start, schedule = self.as_obs(obs), self.as_inputs(inputs, planner.horizon)
        arguments.check_obs(self.config, start)
        arguments.check_finite("obs", start)
        agent, task = jnp.asarray(self.row_of(agent_id)), self.required_task()
        sizes = (self.config, self.params, agent, start, schedule)
        action, score = plan_action(key, *sizes, task, planner)
        arguments.check_score(score)
        return action

    @overload
    def personalize(
        self, data: OfflineDataset, covariates: Any = ..., *, forgetting: float = ...
    ) -> Newcomers: ...
    @overload
    def personalize(
        self,
        data: Transitions | None = ...,
        covariates: Any = ...,
        *,
        agent_id: AgentId = ...,
        forgetting: float = ...,
    ) -> Newcomer: ...
    def personalize(
        self,
        data: OfflineDataset | Transitions | None = None,
        covariates: Any = None,
        *,
        agent_id: AgentId = 0,
        forgetting: float = 1.0,
    ) -> Newcomers | Newcomer:
        """Simulators of agents that were not in the training data, in closed form.

        The model is linear in an agent's factors, so that these have a Gaussian posterior, whose
        prior is how the training agents' factors are distributed.

        Args:
          data: Of each newcomer one trajectory; or flat transitions of one newcomer, oldest first,
            as `OfflineDataset.transitions` gives them; or None, which is the prior alone.
          covariates: `[N, C]`, or `[C]` of one: the prior is then what a regression of the training
            agents' factors on their covariates says (the paper's Appendix F.5).
          agent_id: Id or name of one newcomer; those of a dataset are in it.
          forgetting: In (0, 1]; below 1 old transitions count for less, for agents that drift.

        Returns:
          `Newcomers` for a dataset, otherwise one `Newcomer`.

        Raises:
          ValueError: A shape or a value does not fit, or there are too few training agents.
        """
        return newcomers.personalize(self, data, covariates, agent_id, forgetting)

    def with_noise(self, dataset: OfflineDataset) -> PersonalizedSimulators:
        """The same simulators, told how far they are from their training data."""
        data = jax.tree.map(jnp.asarray, dataset.transitions())
        return self.replace(noise=residual_noise(self.config, self.params, data))

    def as_obs(self, obs: Any) -> jax.Array:
        """An observation in the model's form and precision, see `arguments.as_obs`."""
        return arguments.as_obs(self.config, self.params, obs)

    def as_inputs(self, inputs: Any, steps: int) -> jax.Array | None:
        """Inputs of so many steps, see `arguments.as_inputs`."""
        names = self.info.input_names if self.info else ()
        return arguments.as_inputs(self.config, self.params, names, inputs, steps)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes arrays and a sidecar with config, ids and checksum; the task is not stored."""
        ids, covariates = np.asarray(self.agent_ids), np.asarray(self.covariates)
        noise = None if self.noise is None else np.asarray(self.noise)
        stored = simulator_files.Stored(
            self.params, ids, covariates, self.config, self.info, self.support, noise
        )
        simulator_files.write(Path(directory), stored, self.task.spec.name if self.task else None)

    @staticmethod
    def load(directory: str | os.PathLike[str], task: Task | None = None) -> PersonalizedSimulators:
        """Reads what `save` wrote.

        Args:
          directory: As in `save`.
          task: Reward and termination, for planning.

        Raises:
          FileNotFoundError: There are no simulators.
          CorruptFileError: A file was cut short or altered; says which.
        """
        return PersonalizedSimulators(**simulator_files.read(Path(directory))._asdict(), task=task)


@dataclasses.dataclass(frozen=True)
class PersonalizedSimulator(AgentUses):
    """The simulator of one agent.

    Attributes:
      simulators: All of them.
      agent_id: Whose.
      row: Its row in the model.
    """

    simulators: PersonalizedSimulators
    agent_id: AgentId
    row: int

    def step(self, obs: jax.Array, action: jax.Array, inputs: Any = None) -> Prediction:
        """As `PersonalizedSimulators.step`."""
        return self.simulators.step(self.agent_id, obs, action, inputs)

    def rollout(self, obs: jax.Array, actions: jax.Array, inputs: Any = None) -> Prediction:
        """As `PersonalizedSimulators.rollout`."""
        return self.simulators.rollout(self.agent_id, obs, actions, inputs)

    def plan(
        self, key: jax.Array, obs: jax.Array, planner: PlannerConfig, inputs: Any = None
    ) -> jax.Array:
        """As `PersonalizedSimulators.plan`."""
        return self.simulators.plan(key, self.agent_id, obs, planner, inputs)


# The config is static rather than all of the simulators: names of agents change no program.
@functools.partial(jax.jit, static_argnames=("config",))
def _rollout(
    config: FactorConfig, params: ModelParams, agent: jax.Array, obs: jax.Array, actions: jax.Array
) -> jax.Array:
    model = factor_model(config)
    bound = model.bind(params, agent, None)
    encoded = model.encode_actions(bound, actions)

    def step(state: Any, xs: Any) -> tuple[Any, jax.Array]:
        t, action = xs
        state = model.step(jax.random.fold_in(jax.random.key(0), t), bound, state, action)
        return state, newest(config, model.observe(state))

    times = jnp.arange(actions.shape[0])
    _, members = lax.scan(step, model.start(bound, obs), (times, encoded))
    return members.swapaxes(0, 1)
