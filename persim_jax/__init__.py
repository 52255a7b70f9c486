"""Personalized simulators of many agents from one trajectory of each (PerSim, NeurIPS 2021)."""

from persim_jax.data.dataset import DatasetInfo as DatasetInfo
from persim_jax.data.dataset import OfflineDataset as OfflineDataset
from persim_jax.data.lags import Recent as Recent
from persim_jax.data.lags import with_lags as with_lags
from persim_jax.data.storage import load_dataset as load_dataset
from persim_jax.data.storage import save_dataset as save_dataset
from persim_jax.methods.persim import PersimConfig as PersimConfig
from persim_jax.methods.persim import fit as fit
from persim_jax.personalization.newcomers import Newcomer as Newcomer
from persim_jax.personalization.newcomers import Newcomers as Newcomers
from persim_jax.planning.mpc import PlannerConfig as PlannerConfig
from persim_jax.simulators import PersonalizedSimulator as PersonalizedSimulator
from persim_jax.simulators import PersonalizedSimulators as PersonalizedSimulators
from persim_jax.training import TrainConfig as TrainConfig

__all__ = [
    "DatasetInfo",
    "Newcomer",
    "Newcomers",
    "OfflineDataset",
    "PersimConfig",
    "PersonalizedSimulator",
    "PersonalizedSimulators",
    "PlannerConfig",
    "Recent",
    "TrainConfig",
    "fit",
    "load_dataset",
    "save_dataset",
    "with_lags",
]

__version__ = "0.1.0"
