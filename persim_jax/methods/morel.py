"""MOReL (Kidambi et al., 2020): a policy that is good where an ensemble's members agree.

An ensemble is fitted to the data; where its members disagree more than the data account for, its
pessimistic MDP comes to a halt that nobody wants (`pessimism`); natural policy gradient improves a
policy inside it, and that policy then acts, without any planning.

`morel_p` learns one policy from the trajectories of all agents, who are not told apart. `morel_a`
learns an ensemble and a policy for each agent from its single trajectory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import normalizer as normalizer_lib
from persim_jax.collect import memoryless
from persim_jax.data.dataset import OfflineDataset, refuse_inputs, validate
from persim_jax.learners.natural_gradient import NaturalGradient, make_natural_gradient
from persim_jax.learners.policies import StochasticPolicy
from persim_jax.methods import morel_lanes
from persim_jax.methods.base import Method, Monitor, check_agents, check_task, lane_of
from persim_jax.methods.morel_records import GOOD, Knowledge, Lane, MorelState
from persim_jax.methods.morel_records import MorelConfig as MorelConfig
from persim_jax.models.base import DynamicsModel
from persim_jax.models.mlp import MLPConfig, mlp_model
from persim_jax.normalizer import Normalizer
from persim_jax.rollout import Policy
from persim_jax.tasks import check_rewards
from persim_jax.types import Environment, Metrics, Params, PyTree, Task, Transitions

POOLED, OWN = "morel_p", "morel_a"
NAMES = (POOLED, OWN)
ALL_UNKNOWN = 0.95
"""Share of unknown data from which on there is nothing to learn from."""


class MorelSettings(NamedTuple):
    """What fitting needs beside the dataset.

    Attributes:
      config: Of ensemble, pessimism and policy.
      agents: Rows of the agents that get a policy of their own, `[L]`; not read by `morel_p`.
    """

    config: MorelConfig
    agents: tuple[int, ...] = ()


# flax's record because the policy is static.
class MorelPolicies(flax.struct.PyTreeNode):
    """What MOReL has learned.

    Attributes:
      params: Of the policies, leaves `[L, ...]`.
      normalizers: Of the observations, leaves `[L, D]`.
      agents: `[L]` int32, rows of the agents; -1 is any agent.
      diverged_at: `[L]` int32, the step at which a lane diverged, -1 if it did not. The first epoch
        is step 1, and the updates of the policy go on from the last.
      diverged_member: `[L]` int32, the member of the ensemble that did, -1 if none.
      thresholds: `[L]`, disagreement above which the ensemble knows nothing.
      unknown: `[L]`, share of the data that it marks unknown.
      metrics: Of the last updates, `[L]` each, see `MorelState`.
      policy: Static.
    """

    params: Params
    normalizers: Normalizer
    agents: jax.Array
    diverged_at: jax.Array
    diverged_member: jax.Array
    thresholds: jax.Array
    unknown: jax.Array
    metrics: Metrics
    policy: StochasticPolicy = flax.struct.field(pytree_node=False)

    def lane_of(self, agent: int) -> int:
        """Returns the lane whose policy is the agent's.

        Raises:
          KeyError: The agent has no policy.
        """
        return int(lane_of(self.agents, agent))

    def diverged(self, agent: int) -> int | None:
        """Returns the step, from 1, at which the lane of an agent diverged; None if it did not.

        Raises:
          KeyError: The agent has no policy.
        """
        step = int(self.diverged_at[self.lane_of(agent)])
        return None if step == GOOD else step

    def warning(self, agent: int) -> str | None:
        """Says of an agent's policy that its ensemble knows next to nothing; None if it does not.

        Raises:
          KeyError: The agent has no policy.
        """
        share = float(self.unknown[self.lane_of(agent)])
        if share < ALL_UNKNOWN:
            return None
        return (
            f"the threshold marks {100 * share:.1f} % of the data unknown, so that the policy can "
            "learn nothing but what the data do: lower pessimism_coef"
        )


def fit(
    key: jax.Array,
    dataset: OfflineDataset,
    task: Task,
    name: str,
    settings: MorelSettings,
    monitor: Monitor | None = None,
    model: DynamicsModel | None = None,
) -> MorelPolicies:
    """Learns the policies of one method.

    Args:
      key: Consumed.
      dataset: One trajectory of each agent; rewards are not read, the task's are.
      task: Reward and termination.
      name: `morel_p` or `morel_a`.
      settings: Of ensemble, pessimism and policy, and for whom.
      monitor: Watches and restores training: `on_epoch` gets its state, and after each epoch the
        ensembles' mean loss `[L]`, after each chunk of updates the value networks'.
      model: Another ensemble of as many members than the multilayer perceptrons of the settings; a
        state must be what it makes of an observation.

    Returns:
      The policies; `diverged_at` says which of them are not to be used.

    Raises:
      ValueError: The name is none of these, the dataset is not valid or of another task, the
        agents are not among its rows, or a reward is not finite.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is no form of MOReL: use one of {', '.join(NAMES)}")
    validate(dataset)
    refuse_inputs(dataset, name)
    config, monitor = settings.config, monitor or Monitor()
    agents = (-1,) if name == POOLED else settings.agents
    if name == OWN:
        check_agents(agents, dataset.num_agents, name)
    check_task(task.spec, dataset.info)
    lanes = make_lanes(key, dataset, task, agents)
    model = model or ensemble(dataset, config)
    if model.num_members != config.ensemble_size:
        raise ValueError(
            f"the model has {model.num_members} members and the settings ensemble_size "
            f"{config.ensemble_size}: each member's episodes are its own, so give as many"
        )
    learner = make_natural_gradient(task.spec, config.learner)
    state = morel_lanes.start(model, learner, config.train, config.width, lanes)
    state = monitor.restore(state)
    state, known = train(model, task, learner, config, state, lanes, monitor)
    return MorelPolicies(
        params=state.learner.params,
        normalizers=lanes.normalizer,
        agents=jnp.asarray(agents, jnp.int32),
        diverged_at=state.diverged_at,
        diverged_member=state.diverged_member,
        thresholds=known.threshold,
        unknown=known.unknown,
        metrics=state.metrics,
        policy=learner.policy,
    )


def train(
    model: DynamicsModel,
    task: Task,
    learner: NaturalGradient,
    config: MorelConfig,
    state: MorelState,
    lanes: Lane,
    monitor: Monitor,
) -> tuple[MorelState, Knowledge]:
    """Trains ensembles, then policies, from wherever `state` stands."""

    def goes_on(total: int) -> bool:
        return int(state.step) < total and bool((state.diverged_at == GOOD).any())

    while goes_on(config.train.num_epochs):
        state, losses = morel_lanes.run_epoch(model, config.train, config.width, state, lanes)
        monitor.on_epoch(state, losses)
    known = morel_lanes.knowledge(model, config, state.models, lanes)
    share = jnp.asarray(config.buffer_share, jnp.float32)
    while goes_on(config.num_steps):
        first = state.step - config.train.num_epochs
        state = morel_lanes.run_updates(
            model, task, learner, config.paths, state, known, lanes, first, share
        )
        monitor.on_epoch(state, state.metrics["value_loss"])
    return state, known


def ensemble(dataset: OfflineDataset, config: MorelConfig) -> DynamicsModel:
    """The multilayer perceptrons that the settings describe, which do not know agents apart."""
    info = dataset.info
    return mlp_model(
        MLPConfig(
            num_agents=1,
            obs_size=info.obs_size,
            action_size=info.action_size,
            discrete=info.discrete,
            hidden=config.hidden,
            activation=config.activation,
            ensemble_size=config.ensemble_size,
        )
    )


def make_lanes(
    key: jax.Array, dataset: OfflineDataset, task: Task, agents: tuple[int, ...]
) -> Lane:
    """What each policy is learned from, leaves `[L, ...]`.

    A lane of one agent has as many rows as the dataset has steps, its transitions repeated in turn:
    it is the same whichever lanes there are beside it, and however short its trajectory. Where its
    length does not divide theirs, the ensemble sees the first transitions once more than the last.

    Args:
      key: Each lane gets a fold of it.
      dataset: One trajectory of each agent.
      task: Its reward function.
      agents: Rows, or -1 for all agents together.
    """
    found = [_lane(key, dataset, task, agent) for agent in agents]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def _lane(key: jax.Array, dataset: OfflineDataset, task: Task, agent: int) -> Lane:
    mine = dataset if agent < 0 else dataset.take([agent])
    own = mine.transitions()
    count = len(own.agent)
    rows = np.arange(count if agent < 0 else max(count, dataset.mask.shape[1])) % count
    data: Transitions = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[rows]), own)
    data = data.replace(agent=jnp.zeros_like(data.agent))  # type: ignore[attr-defined]
    rewards = jax.vmap(task.reward)(data.obs, data.actions, data.next_obs)
    if not bool(jnp.isfinite(rewards).all()):
        check_rewards(task, data.obs, data.actions, data.next_obs)
    # Not row 0: where a record begins with a gap, or with less than a window, that is no state.
    first = np.asarray(mine.mask).argmax(axis=1)
    return Lane(
        key=jax.random.fold_in(key, agent + 1),
        data=data,
        size=jnp.asarray(count, jnp.int32),
        starts=jnp.asarray(np.asarray(mine.obs)[np.arange(mine.num_agents), first]),
        normalizer=normalizer_lib.fit(data.obs[:count]),
        lowest=rewards.min(),
        highest=rewards.max(),
    )


def _policy(fitted: MorelPolicies, agent: jax.Array, planner: Any) -> Policy:
    del planner  # nothing is planned
    lane = lane_of(fitted.agents, agent)
    own = jax.tree.map(lambda leaf: leaf[lane], (fitted.params, fitted.normalizers))

    def act(key: jax.Array, params: PyTree, obs: jax.Array) -> jax.Array:
        del key  # the likeliest action
        params, scale = params
        found = fitted.policy.distribution(params, normalizer_lib.apply(scale, obs))
        return fitted.policy.mode(found)

    return memoryless(act, own)


def morel_method(name: str) -> Method:
    """Makes the record of `morel_p` or `morel_a`.

    Raises:
      ValueError: The name is neither.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is no form of MOReL: use one of {', '.join(NAMES)}")

    def fit_method(
        key: jax.Array,
        dataset: OfflineDataset,
        env: Environment,
        env_params: PyTree,
        settings: MorelSettings,
        monitor: Monitor,
    ) -> MorelPolicies:
        del env_params  # the truth is not for them
        return fit(key, dataset, env, name, settings, monitor)

    return Method(name=name, plans=False, fit=fit_method, policy=_policy, model=None)
