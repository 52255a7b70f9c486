"""Vanilla CaDM and PE-TS CaDM: one model of all agents, told apart by their last ten steps.

Both are trained on the same windows of the data. In the prediction test a context stays what it is
after the warm-up; a planner makes it anew before each decision.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from persim_jax import ranges
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.data.windows import Windows, windows_of
from persim_jax.methods.model_based import ModelSettings, Recipe
from persim_jax.models.base import DynamicsModel
from persim_jax.models.cadm import CadmConfig, cadm_model
from persim_jax.models.cadm_network import CadmChoices
from persim_jax.optimization import steps_per_epoch
from persim_jax.training import TrainConfig
from persim_jax.types import Spec

VANILLA, PETS = "cadm_vanilla", "cadm_pets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CadmSettings(CadmChoices):
    """Settings of CaDM that do not follow from the data; hashable.

    Attributes:
      num_steps: Gradient steps of each member; rounded up to whole epochs, see `TrainConfig`.
      test_particles: Particles of each noisy member in the prediction test; planning has one.
    """

    num_steps: int = 10_000
    test_particles: int = 4

    def __post_init__(self) -> None:
        """Refuses what could only fail later."""
        ranges.counts(self, 1, "num_steps", "test_particles")


def cadm_config(info: DatasetInfo | Spec, settings: CadmSettings, **fields: Any) -> CadmConfig:
    """The model's config for data of this kind; `fields` are what neither says.

    Raises:
      ValueError: A field has a value that it must not have.
    """
    own = {field.name: getattr(settings, field.name) for field in dataclasses.fields(CadmChoices)}
    return CadmConfig(
        obs_size=info.obs_size,
        action_size=info.action_size,
        discrete=info.discrete,
        **own,
        **fields,
    )


def training_of(dataset: OfflineDataset, settings: ModelSettings) -> TrainConfig:
    """As many epochs as the number of gradient steps takes, whatever the size of the data."""
    train, wanted = settings.train, settings.network.num_steps
    per_epoch = steps_per_epoch(train, int(dataset.lengths.sum()))
    return dataclasses.replace(train, num_epochs=-(-wanted // per_epoch))


def _windows(dataset: OfflineDataset, settings: ModelSettings) -> Windows:
    own = settings.network
    return windows_of(dataset, own.history_length, own.future_length)


def _recipe(name: str, noisy: bool) -> Recipe:
    def model(dataset: OfflineDataset, settings: ModelSettings, num_members: int) -> DynamicsModel:
        fields = {"ensemble_size": num_members, "noisy": noisy}
        return cadm_model(cadm_config(dataset.info, settings.network, **fields))

    def predictor(dataset: OfflineDataset, settings: ModelSettings) -> DynamicsModel:
        fields = {
            "ensemble_size": settings.ensemble_size,
            "noisy": noisy,
            # Without noise all particles of a member are one.
            "particles": settings.network.test_particles if noisy else 1,
        }
        return cadm_model(cadm_config(dataset.info, settings.network, **fields))

    return Recipe(name, model, _windows, training_of, predictor)


RECIPES: dict[str, Recipe] = {VANILLA: _recipe(VANILLA, False), PETS: _recipe(PETS, True)}
