"""Methods that fit dynamics and plan in them as PerSim does: a model is all that they differ by.

An ensemble is trained by `persim_jax.training.train`, the best members are kept, and the planner of
PerSim's Step 2 (the paper's Section 4) acts in it. What makes a method is a `Recipe`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from persim_jax import mesh as mesh_lib
from persim_jax import ranges, training
from persim_jax.data.dataset import OfflineDataset, refuse_inputs, validate
from persim_jax.mesh import MeshConfig
from persim_jax.methods.base import Method, Monitor
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.optimization import batch_sizes
from persim_jax.planning.config import PlannerConfig
from persim_jax.planning.history import agent_policy
from persim_jax.rollout import Policy
from persim_jax.training import TrainConfig
from persim_jax.types import Environment, Items, PyTree, Task


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Settings of a model-based method; hashable.

    Attributes:
      network: Settings of the model, of the recipe's own kind.
      train: How the ensemble is trained.
      ensemble_size: M, members that are kept.
      spare_members: Members trained beside them; those with the lowest training loss are kept.
      mesh: Devices that training is spread over.
    """

    network: Any
    train: TrainConfig
    ensemble_size: int = 5
    spare_members: int = 0
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        """Refuses numbers of members that there cannot be."""
        ranges.counts(self, 1, "ensemble_size")
        ranges.counts(self, 0, "spare_members")


def all_transitions(dataset: OfflineDataset, settings: ModelSettings) -> Items:
    """The transitions of all agents, leaves `[B, ...]`."""
    del settings
    return dataset.transitions()


def as_configured(dataset: OfflineDataset, settings: ModelSettings) -> TrainConfig:
    """The settings' own training."""
    del dataset
    return settings.train


class Recipe(NamedTuple):
    """What makes a method of a model.

    Attributes:
      name: As in rows.
      model: `(dataset, settings, num_members) -> DynamicsModel`, the same record for the same
        arguments. The model of fewer members must take a part of the weights of that of more.
      data: `(dataset, settings) -> data`, the items that minibatches are drawn from, on the host.
      train: `(dataset, settings) -> TrainConfig`.
      predictor: `(dataset, settings) -> DynamicsModel`, the same dynamics as the prediction test
        takes them, such as with more particles; None for what plans.
    """

    name: str
    model: Callable[[OfflineDataset, ModelSettings, int], DynamicsModel]
    data: Callable[[OfflineDataset, ModelSettings], Items] = all_transitions
    train: Callable[[OfflineDataset, ModelSettings], TrainConfig] = as_configured
    predictor: Callable[[OfflineDataset, ModelSettings], DynamicsModel] | None = None


# flax's record because model and task are static.
class FittedModel(flax.struct.PyTreeNode):
    """What a model-based method has learned.

    Attributes:
      params: The ensemble.
      model: Its dynamics, static.
      task: Reward and termination, static.
      predictor: The dynamics as the prediction test takes them, static.
    """

    params: ModelParams
    model: DynamicsModel = flax.struct.field(pytree_node=False)
    task: Task = flax.struct.field(pytree_node=False)
    predictor: DynamicsModel = flax.struct.field(pytree_node=False)

    def policy(self, agent: jax.Array, planner: PlannerConfig) -> Policy:
        """MPC in the model of the agent in that row `[]`."""
        return agent_policy(self.model, self.params, agent, self.task, planner)


def parameter_count(model: DynamicsModel) -> int:
    """Trained numbers of one member, of all its networks together."""
    shapes = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    return sum(math.prod(leaf.shape[1:]) for leaf in shapes)


def untrained(
    dataset: OfflineDataset, task: Task, recipe: Recipe, settings: ModelSettings
) -> FittedModel:
    """Shapes and static parts of what `fit` returns, to read a stored one into."""
    model = recipe.model(dataset, settings, settings.ensemble_size)
    data = recipe.data(dataset, settings)

    def shapes(key: jax.Array, data: PyTree) -> ModelParams:
        return ModelParams(model.init(key), model.fit_normalizer(data))

    params = jax.eval_shape(shapes, jax.random.key(0), data)
    return _fitted(params, dataset, task, recipe, settings)


def _fitted(
    params: ModelParams,
    dataset: OfflineDataset,
    task: Task,
    recipe: Recipe,
    settings: ModelSettings,
) -> FittedModel:
    model = recipe.model(dataset, settings, settings.ensemble_size)
    predictor = recipe.predictor(dataset, settings) if recipe.predictor else model
    return FittedModel(params=params, model=model, task=task, predictor=predictor)


def fit(
    key: jax.Array,
    dataset: OfflineDataset,
    task: Task,
    recipe: Recipe,
    settings: ModelSettings,
    monitor: Monitor | None = None,
) -> FittedModel:
    """Trains the model of a recipe.

    Args:
      key: Consumed.
      dataset: One trajectory of each agent.
      task: Reward and termination, for planning.
      recipe: What the method is.
      settings: How.
      monitor: Watches training and restores it.

    Raises:
      ValueError: The dataset is not valid, says which agent and step; or the mesh cannot be made.
      DivergedError: A member's loss is no longer finite; says which.
    """
    validate(dataset)
    refuse_inputs(dataset, recipe.name)
    trained = recipe.model(dataset, settings, settings.ensemble_size + settings.spare_members)
    data = jax.tree.map(jnp.asarray, recipe.data(dataset, settings))
    train = recipe.train(dataset, settings)
    sizes = batch_sizes(train, data.num_items)
    mesh = mesh_lib.make_mesh(settings.mesh, trained.num_members, sizes)
    params = fit_members(key, trained, data, train, mesh, settings.ensemble_size, monitor)
    return _fitted(params, dataset, task, recipe, settings)


def fit_members(
    key: jax.Array,
    model: DynamicsModel,
    data: Items,
    train: TrainConfig,
    mesh: Mesh,
    num_kept: int,
    monitor: Monitor | None = None,
) -> ModelParams:
    """Trains an ensemble and keeps the members with the lowest training loss.

    Args:
      key: Consumed.
      model: Of all members that are trained.
      data: What minibatches are drawn from.
      train: How.
      mesh: Devices.
      num_kept: Members that are kept.
      monitor: Watches training and restores it.

    Returns:
      The ensemble, on the default device.
    """
    monitor = monitor or Monitor()
    state = training.place(training.init(key, model, data, train), mesh)
    data = mesh_lib.everywhere(mesh, data)
    state = monitor.restore(state)
    params = training.train(model, train, state, data, monitor.on_epoch, mesh).params
    if num_kept < model.num_members:
        losses = training.member_losses(model, train, params, data, mesh)
        params, losses = mesh_lib.gathered(mesh, (params, losses))
        params = training.keep_best(params, losses, num_kept)
    return mesh_lib.gathered(mesh, params)


def model_method(recipe: Recipe) -> Method:
    """Makes the record of a method that plans in the model of a recipe."""

    def fit_method(
        key: jax.Array,
        dataset: OfflineDataset,
        env: Environment,
        env_params: PyTree,
        settings: ModelSettings,
        monitor: Monitor,
    ) -> FittedModel:
        del env_params  # the truth is not for them
        return fit(key, dataset, env, recipe, settings, monitor)

    return Method(name=recipe.name, plans=True, fit=fit_method, policy=_policy, model=_model)


def _policy(fitted: FittedModel, agent: jax.Array, planner: PlannerConfig) -> Policy:
    return fitted.policy(agent, planner)


def _model(fitted: FittedModel) -> tuple[DynamicsModel, ModelParams]:
    return fitted.predictor, fitted.params
