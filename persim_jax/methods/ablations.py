"""Ablations of PerSim: the same data, steps and parameters, without the factorisation.

`concat_mlp` is one network of state, action and a learned vector of the agent, `pooled_mlp` one
that is not told the agent, `per_agent_mlp` a network for each agent that sees its own trajectory.
Whatever of PerSim's settings is not about factors, they share.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from persim_jax import ranges
from persim_jax.data.dataset import OfflineDataset
from persim_jax.methods.model_based import ModelSettings, Recipe, parameter_count
from persim_jax.methods.persim import PersimConfig
from persim_jax.models.base import DynamicsModel
from persim_jax.models.factor import factor_model
from persim_jax.models.mlp import MLPConfig, mlp_model, per_agent_transitions
from persim_jax.optimization import steps_per_epoch
from persim_jax.training import TrainConfig
from persim_jax.types import Transitions

CONCAT, POOLED, PER_AGENT = "concat_mlp", "pooled_mlp", "per_agent_mlp"
AGENTS = {CONCAT: "embedding", POOLED: "none", PER_AGENT: "separate"}


@dataclasses.dataclass(frozen=True)
class AblationSettings:
    """What an ablation takes from PerSim, and its own choices; hashable.

    Attributes:
      persim: PerSim's settings, from which sizes and training follow.
      networks: Rows of the agents that get a network of their own, empty for all; only of
        `per_agent_mlp`. Networks of other agents would change nothing, for they share no weights
        and no data, and of polishing the length of a step only.
      own_batch_size: Transitions in a minibatch of such a network.
    """

    persim: PersimConfig = PersimConfig()
    networks: tuple[int, ...] = ()
    own_batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuses what could only fail later."""
        ranges.counts(self, 1, "own_batch_size")
        if self.persim.angles:
            raise ValueError(
                f"angles are {self.persim.angles}: the ablations take coordinates as they are"
            )


def ablation_settings(settings: AblationSettings) -> ModelSettings:
    """Settings of the fit, those of PerSim."""
    persim = settings.persim
    return ModelSettings(
        network=settings,
        train=persim.train,
        ensemble_size=persim.ensemble_size,
        spare_members=persim.spare_members,
        mesh=persim.mesh,
    )


def parameter_budget(dataset: OfflineDataset, persim: PersimConfig, name: str) -> int:
    """Parameters that an ablation may have, in one network.

    All of PerSim's parameters; for `per_agent_mlp` those that predict for one agent, which are all
    but the factors of the other agents. PerSim's total dealt out over the agents would leave each
    network fewer parameters than a linear map has.
    """
    factor = persim.factor(dataset)
    total = parameter_count(factor_model(factor))
    others = (factor.num_agents - 1) * factor.rank
    return total - others if name == PER_AGENT else total


def hidden_within(config: MLPConfig, shape: tuple[int, ...], budget: int) -> tuple[int, ...]:
    """Widths in the proportions of `shape` with which a network's parameters come nearest a budget.

    Args:
      config: The model; its own widths are not read.
      shape: Widths of PerSim's state encoder.
      budget: Parameters of one network.
    """

    def widths(first: int) -> tuple[int, ...]:
        return tuple(max(1, round(first * width / shape[0])) for width in shape)

    def count(first: int) -> int:
        return dataclasses.replace(config, hidden=widths(first)).num_parameters

    low, high = 1, 2
    while count(high) < budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < budget else (low, middle)
    return widths(min((low, high), key=lambda first: abs(count(first) - budget)))


def mlp_config(
    name: str, dataset: OfflineDataset, settings: AblationSettings, num_members: int
) -> MLPConfig:
    """The network of an ablation for these data."""
    persim, info = settings.persim, dataset.info
    config = MLPConfig(
        num_agents=dataset.num_agents,
        obs_size=info.obs_size,
        action_size=info.action_size,
        discrete=info.discrete,
        agents=AGENTS[name],
        networks=settings.networks if name == PER_AGENT else (),
        embedding_size=persim.rank if name == CONCAT else 0,
        activation=persim.activation,
        layer_norm=persim.layer_norm,
        skip=persim.skip,
        ensemble_size=num_members,
        normalize_obs=persim.normalize_obs,
        normalize_delta=persim.normalize_delta,
        target=persim.target,
        huber=persim.huber,
    )
    budget = parameter_budget(dataset, persim, name)
    return dataclasses.replace(config, hidden=hidden_within(config, persim.state_features, budget))


def own_training(dataset: OfflineDataset, settings: ModelSettings) -> TrainConfig:
    """PerSim's training as each agent's network sees it: as many gradient steps, on its own data.

    An epoch is shorter, so there are more of them, in which the learning rate falls as far.
    """
    train, own = settings.train, settings.network
    steps = train.num_epochs * steps_per_epoch(train, int(np.asarray(dataset.mask).sum()))
    rows = own.networks or tuple(range(dataset.num_agents))
    length = int(np.asarray(dataset.mask).sum(axis=1)[list(rows)].max())
    per_epoch = steps_per_epoch(dataclasses.replace(train, batch_size=own.own_batch_size), length)
    epochs = max(1, round(steps / per_epoch))
    return dataclasses.replace(
        train,
        batch_size=own.own_batch_size,
        num_epochs=epochs,
        halve_every=max(1, round(train.halve_every * epochs / train.num_epochs)),
    )


def _own_transitions(dataset: OfflineDataset, settings: ModelSettings) -> Transitions:
    rows = settings.network.networks or tuple(range(dataset.num_agents))
    return per_agent_transitions(dataset.transitions(), rows)


def _recipe(name: str) -> Recipe:
    def model(dataset: OfflineDataset, settings: ModelSettings, num_members: int) -> DynamicsModel:
        return mlp_model(mlp_config(name, dataset, settings.network, num_members))

    if name == PER_AGENT:
        return Recipe(name, model, _own_transitions, own_training)
    return Recipe(name, model)


RECIPES: dict[str, Recipe] = {name: _recipe(name) for name in AGENTS}
