"""PerSim, the paper's Section 4: learn a simulator for every agent, then plan in it.

Step 1. Fit an ensemble of M factor models, delta_d(n, s, a) = sum_l u_l(n) v_l(s, d) w_l(a), to the
one trajectory of each of N agents.
Step 2. For agent n take the first action of the sequence with the best return, averaged over the
members' simulators of n.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from persim_jax import flops, ranges
from persim_jax import mesh as mesh_lib
from persim_jax.data.dataset import OfflineDataset, validate
from persim_jax.data.support import support_of
from persim_jax.mesh import MeshConfig
from persim_jax.methods.base import Method, Monitor
from persim_jax.methods.model_based import fit_members
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.optimization import batch_sizes
from persim_jax.personalization.prior import residual_noise
from persim_jax.planning.mpc import PlannerConfig
from persim_jax.rollout import Policy
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.training import TrainConfig
from persim_jax.types import Environment, PyTree, Task, Transitions

UNSCALED = (1e-3, 30.0)
"""Sizes of actions and inputs, as root mean squares, between which the action encoder learns from
them as they are."""


@dataclasses.dataclass(frozen=True)
class PersimConfig:
    """Settings of PerSim that do not follow from the data; hashable.

    Attributes:
      rank: r.
      train: How the ensemble is trained.
      spare_members: Members trained beside the M that are kept, those with the lowest training
        loss. A factorisation has poor local optima, and one member in one spoils a mean over five.
      mesh: Devices that training is spread over.
      state_features: See `FactorConfig`, as for all that follow. `normalize_actions` is off, as in
        the paper, whose actions are of the order of 1: turn it on for actions or inputs in units
        of your own.
    """

    rank: int = 5
    train: TrainConfig = TrainConfig(
        num_epochs=100, batch_size=256, learning_rate=2e-2, polish_rounds=2, polish_steps=1000
    )
    spare_members: int = 2
    mesh: MeshConfig = MeshConfig()
    state_features: tuple[int, ...] = (32,)
    action_features: tuple[int, ...] = ()
    activation: str = "tanh"
    layer_norm: bool = False
    angles: tuple[int, ...] = ()
    skip: bool = True
    ensemble_size: int = 5
    normalize_obs: bool = True
    normalize_delta: bool = True
    target: str = "delta"
    agent_start: float | None = 1.0
    agent_penalty: float = 0.0
    huber: float = 0.0
    normalize_actions: bool = False

    def __post_init__(self) -> None:
        """Refuses a number of members that there cannot be; `FactorConfig` refuses the rest."""
        ranges.counts(self, 0, "spare_members")

    def factor(self, dataset: OfflineDataset) -> FactorConfig:
        """The model's config for these data."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("train", "spare_members", "mesh"):
            del own[name]
        info = dataset.info
        width = len(info.target_names)
        # An angle is one in each of its past values, too.
        own["angles"] = tuple(a + lag * width for lag in range(info.lags) for a in self.angles)
        return FactorConfig(
            num_agents=dataset.num_agents,
            obs_size=info.obs_size,
            action_size=info.action_size,
            discrete=info.discrete,
            num_inputs=info.num_inputs,
            lags=info.lags,
            **own,
        )

    def make_mesh(self, num_transitions: int) -> Mesh:
        """The mesh that training runs on.

        Raises:
          ValueError: There are fewer devices than asked for, or something does not divide.
        """
        members = self.ensemble_size + self.spare_members
        return mesh_lib.make_mesh(self.mesh, members, batch_sizes(self.train, num_transitions))


def fit(
    key: jax.Array,
    dataset: OfflineDataset,
    task: Task | None = None,
    config: PersimConfig | None = None,
    monitor: Monitor | None = None,
) -> PersonalizedSimulators:
    """Step 1: learns a simulator for every agent of a dataset.

    Args:
      key: Consumed.
      dataset: One trajectory of each agent; `lags.with_lags` of one where states are partly hidden.
      task: Reward and termination, needed for planning only.
      config: Defaults to `PersimConfig()`, which suits small, nearly noise-free data.
      monitor: Watches training and restores it.

    Returns:
      The simulators. Actions and inputs far from the order of 1 that `config` does not scale are
      warned about.

    Raises:
      ValueError: The dataset is not valid, says which agent and step; or the mesh cannot be made,
        says which numbers do not divide.
      DivergedError: A member's loss is no longer finite.
    """
    validate(dataset)
    config = config or PersimConfig()
    _warn_of_units(dataset, config)
    kept, data = config.factor(dataset), jax.tree.map(jnp.asarray, dataset.transitions())
    params, noise = fit_model(key, kept, data, config, monitor)
    return PersonalizedSimulators(
        params=params,
        agent_ids=dataset.agent_ids,
        covariates=dataset.covariates,
        config=kept,
        task=task,
        info=dataset.info,
        support=support_of(dataset),
        noise=noise,
    )


def _warn_of_units(dataset: OfflineDataset, config: PersimConfig) -> None:
    """Warns of actions and inputs that would enter the model in a unit which it cannot learn from.

    With unscaled actions of the order of 1e6 or 1e-6 training ends, and predictions are useless.
    """
    info, taken = dataset.info, np.asarray(dataset.mask)
    numbers = {} if info.discrete else {"actions": dataset.actions}
    if dataset.inputs is not None:
        numbers["inputs"] = dataset.inputs
    for name, values in numbers.items():
        sizes = np.sqrt(np.square(np.asarray(values, np.float64)[taken]).mean(axis=0))
        least, most = UNSCALED
        strange = (sizes > 0) & ((sizes < least) | (sizes > most))
        if strange.any() and not config.normalize_actions:
            first = int(strange.argmax())
            warnings.warn(
                f"{name} of the dataset are of the size of {sizes[first]:.2g} in coordinate "
                f"{first}, and the model takes them as they are: it hardly learns from numbers far "
                "from 1. Use PersimConfig(normalize_actions=True)",
                stacklevel=3,
            )


def fit_model(
    key: jax.Array,
    kept: FactorConfig,
    data: Transitions,
    config: PersimConfig,
    monitor: Monitor | None = None,
) -> tuple[ModelParams, jax.Array]:
    """Trains an ensemble and keeps its best members.

    Args:
      key: Consumed.
      kept: Sizes of the model that is kept.
      data: Transitions of its agents.
      config: How.
      monitor: Watches training and restores it.

    Returns:
      The ensemble, and the residual noise of its members `[M, D]`.
    """
    model, mesh = _trained_model(kept, config), config.make_mesh(data.num_items)
    params = fit_members(key, model, data, config.train, mesh, kept.ensemble_size, monitor)
    return params, residual_noise(kept, params, data)


def epoch_flops(dataset: OfflineDataset, config: PersimConfig) -> int:
    """Operations in the matrix products of one epoch of all members, spare ones included."""
    model = _trained_model(config.factor(dataset), config)
    return flops.epoch_flops(model, config.train, dataset.transitions())


def _trained_model(kept: FactorConfig, config: PersimConfig) -> DynamicsModel:
    size = kept.ensemble_size + config.spare_members
    return factor_model(dataclasses.replace(kept, ensemble_size=size))


def _fit(
    key: jax.Array,
    dataset: OfflineDataset,
    env: Environment,
    env_params: PyTree,
    config: PersimConfig,
    monitor: Monitor,
) -> PersonalizedSimulators:
    del env_params  # the truth is not for PerSim
    return fit(key, dataset, env, config, monitor)


def _policy(fitted: PersonalizedSimulators, agent: jax.Array, planner: PlannerConfig) -> Policy:
    return fitted.policy(agent, planner)


def _model(fitted: PersonalizedSimulators) -> tuple[DynamicsModel, Any]:
    return fitted.model, fitted.params


PERSIM = Method(name="persim", plans=True, fit=_fit, policy=_policy, model=_model)
