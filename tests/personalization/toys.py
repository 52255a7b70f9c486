"""Simulators with random factors, and what newcomers of known factors show of themselves."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.models.factor import FactorConfig
from persim_jax.models.factor_basis import factor_basis
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import Transitions
from tests.toys import factor_params

DISCRETE = FactorConfig(
    num_agents=12, obs_size=2, action_size=3, discrete=True, rank=2, state_features=(6,),
    activation="tanh", skip=True, ensemble_size=2, normalize_obs=True,
)  # fmt: skip
CONTINUOUS = dataclasses.replace(DISCRETE, action_size=2, discrete=False, action_features=(4,))
STEPS = 15
OBS = np.float32([0.3, -0.2])
NOISE = 1e-3


def make(config=DISCRETE, task=None, noise=NOISE, num_members=2):
    """Untrained simulators of twelve agents with random factors."""
    config = dataclasses.replace(config, ensemble_size=num_members)
    return PersonalizedSimulators(
        params=factor_params(config),
        agent_ids=np.arange(100, 112),
        covariates=np.linspace(0, 1, 12, dtype=np.float32)[:, None],
        config=config,
        task=task,
        noise=None if noise is None else jnp.full((num_members, 2), noise),
    )


def of_factors(simulators, factors, seed=0, noise=0.0, steps=STEPS):
    """Transitions of an agent that follows member 0 with these factors, and scaled noise."""
    rng, config, norm = np.random.default_rng(seed), simulators.config, simulators.params.normalizer
    obs = np.float32(rng.normal(size=(steps, 2)))
    actions = (
        np.int32(rng.integers(3, size=steps))
        if config.discrete
        else np.float32(rng.uniform(-1, 1, (steps, 2)))
    )
    basis = factor_basis(config, simulators.params, obs, actions)[0]
    scaled = basis @ jnp.asarray(factors) + noise * rng.normal(size=(steps, 2)).astype(np.float32)
    next_obs = obs + scaled * norm.delta.std[None] + norm.delta.mean[None]
    return Transitions(
        agent=np.zeros(steps, np.int32), obs=obs, actions=actions, rewards=np.zeros(steps),
        next_obs=np.asarray(next_obs), terminated=np.zeros(steps, bool),
    )  # fmt: skip


def dataset_of(transitions, ids, info_actions=3):
    """One padded trajectory of each newcomer; `transitions` are joined as if they were one."""
    lengths = [len(t.obs) for t in transitions]
    pad = lambda x: np.concatenate([x, np.zeros((STEPS - len(x), *x.shape[1:]), x.dtype)])  # noqa: E731
    mask = np.arange(STEPS) < np.asarray(lengths)[:, None]
    info = DatasetInfo("line", "random", ("a", "b"), ("c",), info_actions, 3)
    obs = np.stack([pad(t.obs) for t in transitions])
    dataset = OfflineDataset(
        obs=np.concatenate([obs, obs[:, -1:]], axis=1),
        actions=np.stack([pad(t.actions) for t in transitions]),
        rewards=np.zeros(mask.shape, np.float32), terminated=np.zeros(mask.shape, bool), mask=mask,
        agent_ids=np.asarray(ids), covariates=np.zeros((len(ids), 1), np.float32), info=info,
    )  # fmt: skip
    return dataset
