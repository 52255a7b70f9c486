"""Simulators of a user's data, untrained: names, two lags or none, one input, a support."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data.lags import Recent, with_lags
from persim_jax.data.support import support_of
from persim_jax.methods.persim import PersimConfig
from persim_jax.models.factor import factor_model
from persim_jax.normalizer import Normalizer
from persim_jax.optimization import TrainConfig
from persim_jax.simulators import PersonalizedSimulators
from tests.data.segmented import make_segmented
from tests.toys import factor_params

SETTINGS = PersimConfig(
    rank=2, ensemble_size=3, spare_members=0, state_features=(4,), normalize_actions=True,
    train=TrainConfig(num_epochs=1, batch_size=8),
)  # fmt: skip


@functools.cache
def untrained(discrete=True, inputs=True, lags=2):
    """Of ann, bob and cy, for whom x falls by about 0.1 and y grows by about 0.2 in a step."""
    dataset = with_lags(make_segmented(discrete, inputs), lags)
    config = SETTINGS.factor(dataset)
    params = factor_params(config)
    scales = factor_model(config).fit_normalizer(jax.tree.map(jnp.asarray, dataset.transitions()))
    delta = Normalizer(mean=jnp.asarray([-0.1, 0.2]), std=jnp.asarray([0.01, 0.02]))
    small = scales._replace(delta=delta)
    return PersonalizedSimulators(
        params=params._replace(normalizer=small), agent_ids=dataset.agent_ids,
        covariates=dataset.covariates, config=config, info=dataset.info,
        support=support_of(dataset),
    )  # fmt: skip


def actions_of(discrete, steps, seed=0):
    """Actions within the range of the data."""
    rng = np.random.default_rng(seed)
    if discrete:
        return rng.integers(3, size=steps).astype(np.int32)
    return rng.uniform([0.2, 1002.0], [0.7, 1005.0], (steps, 2)).astype(np.float32)


def inputs_of(steps, seed=0):
    """One input within the range of the data."""
    return np.random.default_rng(seed).uniform(1, 20, (steps, 1)).astype(np.float32)


def recent(simulators, rows):
    """The last moments: rows `[R, 2]` in order of time, actions 1 or in range, inputs 3."""
    rows, config = np.float32(rows), simulators.config
    steps = len(rows) - 1
    actions = np.ones(steps, np.int32) if config.discrete else np.float32([[0.5, 1003]] * steps)
    inputs = np.full((steps, 1), 3.0, np.float32) if config.num_inputs else None
    return Recent(rows, actions, inputs)


def window(simulators, rows):
    """The same as the model takes it, `[obs_size]`."""
    return np.asarray(simulators.as_obs(recent(simulators, rows)))
