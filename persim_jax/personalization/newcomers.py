"""Simulators of agents that were not in the training data, from a handful of transitions of each.

A newcomer's simulator is an ensemble as any other: each trained member appears P times, with P
guesses of the newcomer's factors. So the members' spread and what is not known of the factors both
go through rollouts and planners, which see nothing new.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax import ranges
from persim_jax.data.dataset import OfflineDataset, validate
from persim_jax.data.info import AgentId, DatasetInfo, row_of
from persim_jax.data.support import DataSupport, of_strangers
from persim_jax.models.base import History, ModelParams
from persim_jax.models.factor import FactorConfig, agent_factors
from persim_jax.models.factor_basis import factor_basis, scaled_target, with_factors
from persim_jax.personalization import posterior as posterior_lib
from persim_jax.personalization.covariates import covariate_prior, fit_covariates
from persim_jax.personalization.evidence import (
    as_trained,
    check_evidence,
    evidence_of,
    first_few,
)
from persim_jax.personalization.posterior import FactorPosterior, FactorPrior
from persim_jax.personalization.prior import population_prior
from persim_jax.types import Transitions

CHUNK = 64
"""Newcomers whose transitions are computed side by side."""
NUM_PARTICLES = 4


class Trained(Protocol):
    """What is needed of trained simulators; `PersonalizedSimulators` are."""

    params: ModelParams
    config: FactorConfig
    covariates: Any
    noise: Any
    info: DatasetInfo | None
    support: DataSupport | None

    def replace(self, **fields: Any) -> Any: ...


class Newcomers(flax.struct.PyTreeNode):
    """What is believed of the factors of N agents that were not in the training data.

    Attributes:
      trained: The simulators that were fitted.
      posterior: Leaves `[N, M, ...]`.
      agent_ids: `[N]`.
      covariates: `[N, C]`; zeros where they were not given.
      forgetting: `[]`, see `persim_jax.personalization.posterior.condition`.
      agent_names: Where they have names; in the same order.
    """

    trained: Any
    posterior: FactorPosterior
    agent_ids: Any
    covariates: Any
    forgetting: jax.Array
    agent_names: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @property
    def num_agents(self) -> int:
        """Number of newcomers, N."""
        return len(self.agent_ids)

    def mean(self) -> jax.Array:
        """Expected factors of every member and newcomer, `[M, N, r]`."""
        return jax.vmap(jax.vmap(posterior_lib.mean))(self.posterior).swapaxes(0, 1)

    def covariance(self) -> jax.Array:
        """Covariance of the factors of every member and newcomer, `[M, N, r, r]`."""
        return jax.vmap(jax.vmap(posterior_lib.covariance))(self.posterior).swapaxes(0, 1)

    def update(self, data: OfflineDataset) -> Newcomers:
        """Takes one more trajectory of each newcomer into account.

        Args:
          data: Its agents are these newcomers, in the same order.

        Raises:
          ValueError: The agents are others, or their data do not fit.
        """
        if not np.array_equal(np.asarray(data.agent_ids), np.asarray(self.agent_ids)):
            raise ValueError(
                f"the dataset's agents are {first_few(data.agent_ids)}, the newcomers are "
                f"{first_few(self.agent_ids)}: give one trajectory of each newcomer, in their order"
            )
        return self.observe(evidence_of(as_trained(data, self.trained.info)))

    def observe(self, evidence: History) -> Newcomers:
        """Takes transitions into account, leaves `[N, T, ...]`, oldest first."""
        trained: Trained = self.trained
        check_evidence(trained.config, evidence)
        arguments = (trained.params, required_noise(trained), self.posterior, evidence)
        return self.replace(posterior=_condition(trained.config, *arguments, self.forgetting))

    def simulators(self, num_particles: int = NUM_PARTICLES, key: jax.Array | None = None) -> Any:
        """The newcomers' simulators, as `PersonalizedSimulators` of M * P members.

        Args:
          num_particles: P, guesses of the factors for each member, static. 1 is the mean alone,
            which leaves out what is not known of the factors.
          key: Of the guesses; the same ones without it.

        Raises:
          ValueError: P is no whole number from 1 on.
        """
        ranges.count("num_particles", num_particles)
        trained: Trained = self.trained
        guesses = _sample(
            key if key is not None else jax.random.key(0), self.posterior, num_particles
        )
        config, params = with_factors(trained.config, trained.params, guesses)
        noise = trained.noise
        info = trained.info and dataclasses.replace(trained.info, agent_names=self.agent_names)
        return trained.replace(
            params=params, config=config, agent_ids=self.agent_ids, covariates=self.covariates,
            noise=None if noise is None else jnp.repeat(jnp.asarray(noise), num_particles, axis=0),
            info=info, support=of_strangers(trained.support, self.num_agents),
        )  # fmt: skip

    def for_agent(self, agent_id: AgentId, num_particles: int = NUM_PARTICLES) -> Newcomer:
        """One newcomer.

        Raises:
          KeyError: No newcomer has this id.
        """
        row = row_of(self.agent_ids, agent_id, self.agent_names)
        one = jax.tree.map(lambda leaf: leaf[row : row + 1], (self.posterior, self.covariates))
        ids = np.asarray(self.agent_ids)[row : row + 1]
        only = self.replace(
            posterior=one[0], covariates=one[1], agent_ids=ids,
            agent_names=self.agent_names[row : row + 1],
        )  # fmt: skip
        return Newcomer(newcomers=only, num_particles=num_particles)


class Newcomer(flax.struct.PyTreeNode):
    """One agent that was not in the training data, and its simulator.

    Attributes:
      newcomers: Of this agent alone, N = 1.
      num_particles: P, see `Newcomers.simulators`.
    """

    newcomers: Newcomers
    num_particles: int = flax.struct.field(pytree_node=False, default=NUM_PARTICLES)

    @property
    def agent_id(self) -> AgentId:
        """Its name, or its id where it has none."""
        names = self.newcomers.agent_names
        return names[0] if names else int(self.newcomers.agent_ids[0])

    @property
    def mean(self) -> jax.Array:
        """Expected factors of every member, `[M, r]`."""
        return self.newcomers.mean()[:, 0]

    @property
    def covariance(self) -> jax.Array:
        """Covariance of the factors of every member, `[M, r, r]`."""
        return self.newcomers.covariance()[:, 0]

    def update(self, transitions: Transitions) -> Newcomer:
        """Takes more of the agent's transitions into account, oldest first; the old record stays.

        Raises:
          ValueError: A shape does not fit the model, or a value is not finite.
        """
        return self.replace(newcomers=self.newcomers.observe(evidence_of(transitions)))

    @functools.cached_property
    def simulator(self) -> Any:
        """The simulator as a `PersonalizedSimulator` with M * P members."""
        simulators = self.newcomers.simulators(self.num_particles)
        # Simulators without facts of their data know no names.
        named = simulators.info is not None
        return simulators.for_agent(self.agent_id if named else int(self.newcomers.agent_ids[0]))

    def step(self, obs: jax.Array, action: jax.Array, inputs: Any = None) -> Any:
        """As `PersonalizedSimulators.step`; the members are M * P particles."""
        return self.simulator.step(obs, action, inputs)

    def rollout(self, obs: jax.Array, actions: jax.Array, inputs: Any = None) -> Any:
        """As `PersonalizedSimulators.rollout`; the members are M * P particles."""
        return self.simulator.rollout(obs, actions, inputs)

    def policy(self, planner: Any, inputs: jax.Array | None = None) -> Any:
        """MPC in this agent's simulator, as a policy; see `PersonalizedSimulators.policy`."""
        return self.simulator.simulators.policy(jnp.asarray(0), planner, inputs)

    def plan(self, key: jax.Array, obs: jax.Array, planner: Any, inputs: Any = None) -> jax.Array:
        """As `PersonalizedSimulators.plan`; the key is consumed."""
        action: jax.Array = self.simulator.plan(key, obs, planner, inputs)
        return action


def personalize(
    trained: Any,
    data: OfflineDataset | Transitions | None = None,
    covariates: Any = None,
    agent_id: AgentId = 0,
    forgetting: float = 1.0,
) -> Newcomers | Newcomer:
    """See `PersonalizedSimulators.personalize`."""
    if isinstance(data, OfflineDataset):
        validate(data)
        ids, names = np.asarray(data.agent_ids), data.info.agent_names
        newcomers = of_prior(trained, ids, covariates, forgetting, names)
        return newcomers.update(data)
    names = (agent_id,) if isinstance(agent_id, str) else ()
    ids = np.asarray([0 if names else agent_id])
    covariates = None if covariates is None else jnp.atleast_2d(jnp.asarray(covariates))
    newcomers = of_prior(trained, ids, covariates, forgetting, names)
    if data is not None:
        newcomers = newcomers.observe(evidence_of(data))
    return Newcomer(newcomers)


def of_prior(
    trained: Any,
    agent_ids: Any,
    covariates: Any = None,
    forgetting: float = 1.0,
    agent_names: tuple[str, ...] = (),
) -> Newcomers:
    """Newcomers of whom no transition has been seen.

    Args:
      trained: `PersonalizedSimulators`.
      agent_ids: `[N]`.
      covariates: `[N, C]`, or None for the population.
      forgetting: For what comes later.
      agent_names: In the same order, or nothing.

    Raises:
      ValueError: The forgetting factor is not in (0, 1], the covariates do not fit, or there are
        too few training agents.
    """
    if not 0.0 < forgetting <= 1.0:
        raise ValueError(f"forgetting is {forgetting}: it must be above 0 and at most 1")
    prior, covariates = _priors(trained, len(agent_ids), covariates)
    start = jax.vmap(jax.vmap(posterior_lib.start))(prior)
    return Newcomers(
        trained,
        start,
        agent_ids,
        covariates,
        jnp.asarray(forgetting, prior.mean.dtype),
        agent_names,
    )


def required_noise(trained: Trained) -> jax.Array:
    """The simulators' residual noise `[M, D]`.

    Raises:
      ValueError: They have none.
    """
    if trained.noise is None:
        raise ValueError(
            "these simulators do not say how far they are from their data, as they come from an "
            "older version: fit again, or simulators.with_noise(dataset)"
        )
    return jnp.asarray(trained.noise)


def _priors(trained: Trained, count: int, covariates: Any) -> tuple[FactorPrior, jax.Array]:
    """Priors with leaves `[N, M, ...]`, and covariates `[N, C]`."""
    known = np.asarray(trained.covariates).shape[1]
    if covariates is None:
        prior = population_prior(trained.config, trained.params)
        spread = lambda leaf: jnp.broadcast_to(leaf[None], (count, *leaf.shape))  # noqa: E731
        return jax.tree.map(spread, prior), jnp.zeros((count, known), prior.mean.dtype)
    given = jnp.asarray(covariates, trained.params.normalizer.obs.mean.dtype)
    if given.shape != (count, known):
        raise ValueError(
            f"covariates have shape {given.shape}: ({count}, {known}) is due, as the training "
            f"agents have {known}"
        )
    if not bool(jnp.isfinite(given).all()):
        raise ValueError(f"covariates are {first_few(given)}: they must be finite")
    factors = agent_factors(trained.config, trained.params)
    regression = fit_covariates(trained.covariates, factors)
    return jax.vmap(functools.partial(covariate_prior, regression))(given), given


@functools.partial(jax.jit, static_argnames=("config",))
def _condition(
    config: FactorConfig,
    params: ModelParams,
    noise: jax.Array,
    posterior: FactorPosterior,
    evidence: History,
    forgetting: jax.Array,
) -> FactorPosterior:
    """The posteriors `[N, M, ...]` after transitions `[N, T, ...]`."""

    def one(args: tuple[FactorPosterior, History]) -> FactorPosterior:
        posterior, evidence = args
        basis = factor_basis(config, params, evidence.obs, evidence.actions)  # [M, T, D, r]
        target = scaled_target(config, params.normalizer, evidence.obs, evidence.next_obs)
        axes = (0, 0, None, 0, None, None)
        lifted = jax.vmap(posterior_lib.condition, in_axes=axes)
        return lifted(posterior, basis, target, noise, evidence.mask, forgetting)

    found: FactorPosterior = lax.map(one, (posterior, evidence), batch_size=CHUNK)
    return found


@functools.partial(jax.jit, static_argnames=("count",))
def _sample(key: jax.Array, posterior: FactorPosterior, count: int) -> jax.Array:
    """Guesses of the factors `[M, N, P, r]`, from a key of their own for each member and row."""
    agents, members = posterior.shift.shape[:2]
    keys = jax.random.split(key, (agents, members))
    draw = functools.partial(posterior_lib.sample, count=count)
    return jax.vmap(jax.vmap(draw))(keys, posterior).swapaxes(0, 1)
