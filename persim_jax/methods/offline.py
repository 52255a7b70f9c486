"""BCQ and CQL as methods: one policy for all agents, or for each, or with synthetic data for each.

`bcq_p`, `cql_p` learn one policy from the trajectories of all agents, who are not told apart.
`bcq_a`, `cql_a` learn one policy for each agent from its single trajectory. `persim_bcq_5` and the
like add to that the given number of trajectories from the agent's personalized simulator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import normalizer as normalizer_lib
from persim_jax.collect import memoryless
from persim_jax.data.dataset import OfflineDataset, refuse_inputs, validate
from persim_jax.learners.base import Learner, LearnerState
from persim_jax.learners.bcq_continuous import ContinuousBCQConfig, make_continuous_bcq
from persim_jax.learners.bcq_discrete import DiscreteBCQConfig, make_discrete_bcq
from persim_jax.learners.cql_continuous import ContinuousCQLConfig, make_continuous_cql
from persim_jax.learners.cql_discrete import DiscreteCQLConfig, make_discrete_cql
from persim_jax.learners.offline import Lanes, OfflineConfig, train_offline
from persim_jax.methods.base import Method, Monitor, check_agents, check_task, lane_of
from persim_jax.normalizer import Normalizer
from persim_jax.rollout import Policy
from persim_jax.types import Environment, PyTree, Spec, Trajectory, Transitions

LearnerConfig = DiscreteBCQConfig | ContinuousBCQConfig | DiscreteCQLConfig | ContinuousCQLConfig
CONFIGS: dict[tuple[str, bool], type[LearnerConfig]] = {
    ("bcq", True): DiscreteBCQConfig,
    ("bcq", False): ContinuousBCQConfig,
    ("cql", True): DiscreteCQLConfig,
    ("cql", False): ContinuousCQLConfig,
}
"""Settings of a learner by its name and by whether actions are discrete."""
_MAKE: dict[type, Callable[[Spec, Any], Learner]] = {
    DiscreteBCQConfig: make_discrete_bcq,
    ContinuousBCQConfig: make_continuous_bcq,
    DiscreteCQLConfig: make_discrete_cql,
    ContinuousCQLConfig: make_continuous_cql,
}
POOLED, OWN, AUGMENTED = "p", "a", "k"
_NAME = re.compile(r"(bcq|cql)_([pa])|persim_(bcq|cql)_([1-9]\d*)")


class OfflineName(NamedTuple):
    """What a method's name says.

    Attributes:
      learner: "bcq" or "cql".
      view: `POOLED`, `OWN` or `AUGMENTED`.
      num_synthetic: Synthetic trajectories of each agent; 0 unless augmented.
    """

    learner: str
    view: str
    num_synthetic: int


def parse_name(name: str) -> OfflineName | None:
    """Returns what a name such as `bcq_a` or `persim_cql_20` says; None for other methods."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    plain, view, augmented, count = found.groups()
    return (
        OfflineName(augmented, AUGMENTED, int(count)) if augmented else OfflineName(plain, view, 0)
    )


class OfflineSettings(NamedTuple):
    """What fitting needs beside the dataset.

    Attributes:
      learner: Settings of the learner.
      train: Settings of the loop.
      agents: Rows of the agents that get a policy of their own, `[L]`; not read by `-P`.
      normalize: Whether a learner sees observations scaled to mean 0 and deviation 1 in its data.
      synthetic: Synthetic trajectories of those agents, leaves `[L, S, ...]`, if there are any.
    """

    learner: LearnerConfig
    train: OfflineConfig
    agents: tuple[int, ...] = ()
    normalize: bool = True
    synthetic: Trajectory | None = None


# flax's record because the learner is static.
class OfflinePolicies(flax.struct.PyTreeNode):
    """What offline learners have learned.

    Attributes:
      states: Of the learners, leaves `[L, ...]`.
      normalizers: Of the observations, leaves `[L, D]`.
      agents: `[L]` int32, rows of the agents; -1 is any agent.
      diverged_at: `[L]` int32, the gradient step, the first being 1, at which a learner diverged,
        -1 if it did not.
      learner: The learner, static.
      is_spoiled: `[L]` bool, whether synthetic trajectories of a lane are not finite, so that it
        could not but diverge; None is none.
    """

    states: LearnerState
    normalizers: Normalizer
    agents: jax.Array
    diverged_at: jax.Array
    learner: Learner = flax.struct.field(pytree_node=False)
    is_spoiled: jax.Array | None = None

    def diverged(self, agent: int) -> int | None:
        """Returns the step, from 1, at which the learner of an agent diverged; None if it did not.

        Raises:
          KeyError: The agent has no policy.
        """
        step = int(self.diverged_at[lane_of(self.agents, agent)])
        return None if step < 0 else step

    def spoiled(self, agent: int) -> bool:
        """Whether an agent's simulator left the finite numbers, and its learner for that reason.

        Raises:
          KeyError: The agent has no policy.
        """
        lane = lane_of(self.agents, agent)
        return self.is_spoiled is not None and bool(self.is_spoiled[lane])


def make_learner(spec: Spec, config: LearnerConfig) -> Learner:
    """Builds the learner that a config is of.

    Raises:
      ValueError: Its kind of action is not the task's.
    """
    return _MAKE[type(config)](spec, config)


def fit(
    key: jax.Array,
    dataset: OfflineDataset,
    spec: Spec,
    name: str,
    settings: OfflineSettings,
    monitor: Monitor | None = None,
) -> OfflinePolicies:
    """Learns the policies of one method.

    Args:
      key: Consumed.
      dataset: One trajectory of each agent.
      spec: Of the task.
      name: Such as `bcq_a`.
      settings: Of learner and loop, and for whom.
      monitor: Watches and restores training: `on_epoch` gets its state and the loss of each lane
        after each chunk.

    Returns:
      The policies; `diverged_at` says which of them are not to be used. A lane whose synthetic
      trajectories are not finite is one of them, and the others go on.

    Raises:
      ValueError: The name is none of these methods', the dataset has no rewards, has exogenous
        inputs, is of another task or is not valid, the learner's kind of action is not the task's,
        the agents are not among its rows, or synthetic trajectories are missing.
    """
    about, monitor = parse_name(name), monitor or Monitor()
    if about is None:
        raise ValueError(f"{name!r} is no offline learner: use bcq_p, cql_a, persim_bcq_5, ...")
    learner = make_learner(spec, settings.learner)
    check_task(spec, dataset.info)
    parts = lane_transitions(dataset, about, settings)
    fits = [_normalizer(part, settings.normalize) for part in parts]
    normalized = [_normalized(part, fit) for part, fit in zip(parts, fits, strict=True)]
    data = jax.tree.map(lambda *leaves: _padded(jnp.concatenate(leaves)), *normalized)
    counts = np.array([len(part.rewards) for part in parts], np.int32)
    lanes = Lanes(jnp.asarray(np.cumsum(counts) - counts, jnp.int32), jnp.asarray(counts))
    agents = (-1,) if about.view == POOLED else settings.agents
    keys = jnp.stack([jax.random.fold_in(key, agent + 1) for agent in agents])
    state = train_offline(
        learner, settings.train, keys, data, lanes, monitor.restore,
        lambda state, metrics: monitor.on_epoch(state, metrics["loss"]),
    )  # fmt: skip
    return OfflinePolicies(
        states=state.learner,
        normalizers=jax.tree.map(lambda *leaves: jnp.stack(leaves), *fits),
        agents=jnp.asarray(agents, jnp.int32),
        diverged_at=state.diverged_at,
        learner=learner,
        is_spoiled=jnp.asarray([not _is_finite(part) for part in parts]),
    )


def lane_transitions(
    dataset: OfflineDataset, about: OfflineName, settings: OfflineSettings
) -> list[Transitions]:
    """Returns the transitions that each learner of a method may see, on the host.

    Raises:
      ValueError: As `fit`.
    """
    _check_rewards(dataset)
    validate(dataset)
    refuse_inputs(dataset, about.learner)
    if about.view == POOLED:
        return [dataset.transitions()]
    check_agents(settings.agents, dataset.num_agents, about.learner)
    ids = np.asarray(dataset.agent_ids)
    own = [dataset.for_agent(int(ids[row])).transitions() for row in settings.agents]
    if about.view == OWN:
        return own
    found = settings.synthetic
    if found is None or found.mask.shape[:2] != (len(own), about.num_synthetic):
        shape = None if found is None else found.mask.shape[:2]
        raise ValueError(
            f"synthetic trajectories are {shape}: give {about.num_synthetic} of each of the "
            f"{len(own)} agents, leaves [{len(own)}, {about.num_synthetic}, ...]"
        )
    return [
        _joined(mine, _flat(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], found)))
        for i, mine in enumerate(own)
    ]


def _check_rewards(dataset: OfflineDataset) -> None:
    if dataset.rewards is None or not np.any(dataset.rewards):
        what = "no rewards" if dataset.rewards is None else "no reward but 0"
        raise ValueError(
            f"the dataset has {what}: offline learners need the reward of each step, such as the "
            "task's reward function gives; PerSim learns without"
        )


def _flat(found: Any) -> Transitions:
    """The steps that were taken of trajectories with leaves `[S, ...]`."""
    rows, steps = np.nonzero(found.mask)
    return Transitions(
        agent=jnp.zeros(len(rows), jnp.int32),
        obs=found.obs[rows, steps],
        actions=found.actions[rows, steps],
        rewards=found.rewards[rows, steps],
        next_obs=found.obs[rows, steps + 1],
        terminated=found.terminated[rows, steps],
    )


def _is_finite(part: Transitions) -> bool:
    """Whether all numbers are; a dataset's own are checked, those of a simulator may not be."""
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(part))


def _joined(*parts: Transitions) -> Transitions:
    joined: Transitions = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return joined


def _padded(leaf: jax.Array) -> jax.Array:
    """Repeats the last row up to a power of two, so that datasets of many sizes share a program.

    The rows that are added belong to no lane.
    """
    rows = leaf.shape[0]
    missing = 2 ** (rows - 1).bit_length() - rows
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)])


def _normalizer(part: Transitions, normalize: bool) -> Normalizer:
    obs = jnp.asarray(part.obs)
    return normalizer_lib.fit(obs) if normalize else normalizer_lib.identity(obs.shape[-1])


def _normalized(part: Transitions, fitted: Normalizer) -> Transitions:
    part = jax.tree.map(jnp.asarray, part)
    return part.replace(  # type: ignore[attr-defined,no-any-return]
        obs=normalizer_lib.apply(fitted, part.obs),
        next_obs=normalizer_lib.apply(fitted, part.next_obs),
    )


def _policy(fitted: OfflinePolicies, agent: jax.Array, planner: Any) -> Policy:
    del planner  # nothing is planned
    lane = lane_of(fitted.agents, agent)
    state, scale = jax.tree.map(lambda leaf: leaf[lane], (fitted.states, fitted.normalizers))

    def act(key: jax.Array, params: PyTree, obs: jax.Array) -> jax.Array:
        state, scale = params
        return fitted.learner.act(key, state, normalizer_lib.apply(scale, obs), jnp.zeros(()))

    return memoryless(act, (state, scale))


def offline_method(name: str) -> Method:
    """Makes the record of the method of this name.

    Raises:
      ValueError: The name is none of these methods'.
    """
    if parse_name(name) is None:
        raise ValueError(f"{name!r} is no offline learner: use bcq_p, cql_a, persim_bcq_5, ...")

    def fit_method(
        key: jax.Array,
        dataset: OfflineDataset,
        env: Environment,
        env_params: PyTree,
        settings: OfflineSettings,
        monitor: Monitor,
    ) -> OfflinePolicies:
        del env_params  # the truth is not for them
        return fit(key, dataset, env.spec, name, settings, monitor)

    return Method(name=name, plans=False, fit=fit_method, policy=_policy, model=None)


def offline_methods(names: Sequence[str]) -> list[Method]:
    """Makes the records of several."""
    return [offline_method(name) for name in names]
