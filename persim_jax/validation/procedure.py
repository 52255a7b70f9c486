"""Judges a way of fitting simulators: fit again on a part of the data, predict the rest.

What is judged is the procedure, with its choices, on these data. The simulators that a user holds
were fitted to all of the data and are at best a little better than those that are judged here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import normalizer as normalizer_lib
from persim_jax.data.dataset import OfflineDataset
from persim_jax.methods.persim import PersimConfig, fit, fit_model
from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.personalization.evidence import evidence_of
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.validation import queries as queries_lib
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.open_loop import (
    Forecast,
    forecast,
    forecast_simulators,
    persistence,
)
from persim_jax.validation.per_agent import RidgeConfig, fit_each, ridge_model, scaling_of
from persim_jax.validation.queries import Queries
from persim_jax.validation.splits import Split, split

PERSONALIZED, POOLED = "personalized", "pooled"
PERSISTENCE, PER_AGENT = "persistence", "one_per_agent"
METHODS = (PERSONALIZED, POOLED, PER_AGENT, PERSISTENCE)


class Part(NamedTuple):
    """One kind of held-out steps: tails of known agents, or records of unseen ones.

    Attributes:
      dataset: The agents, whole.
      queries: What is predicted; its rows are those of `dataset`.
      forecasts: By the names in `METHODS`.
    """

    dataset: OfflineDataset
    queries: Queries
    forecasts: dict[str, Forecast]


class Evidence(NamedTuple):
    """All that a verdict is drawn from.

    Attributes:
      split: What was held out.
      scale: `[D]`, standard deviation of each coordinate in the training data.
      tails: Of known agents.
      unseen: Of agents that training did not see, personalized from their first k transitions.
    """

    split: Split
    scale: np.ndarray
    tails: Part
    unseen: Part


def gather(
    key: jax.Array,
    dataset: OfflineDataset,
    model: PersimConfig,
    config: ValidationConfig,
    say: Callable[[str], None] = lambda text: None,
) -> Evidence:
    """Fits again and predicts what was held out.

    Args:
      key: Consumed.
      dataset: All of the data.
      model: Choices of the procedure that is judged.
      config: What is held out.
      say: Told what is done.

    Returns:
      Predictions of all methods beside the truth.

    Raises:
      CannotJudgeError: There are too few agents or steps.
      DivergedError: Training left the finite numbers.
    """
    key_split, key_fit, key_pooled = jax.random.split(key, 3)
    parts = split(key_split, dataset, config)
    later = queries_lib.after_first(np.asarray(parts.unseen.mask), config.transitions)
    tails = queries_lib.windows(parts.known, parts.tails, config)
    unseen = queries_lib.windows(parts.unseen, later, config)
    say(f"fitting {parts.train.num_agents} agents without their tails")
    simulators = fit(key_fit, parts.train, config=model)
    say("fitting one model to all agents alike")
    pooled = fit_pooled(key_pooled, parts.train, model)
    say("predicting what was held out")
    first = first_steps(parts.unseen, later)
    newcomers = simulators.personalize(first).simulators(config.num_particles)
    known = _forecasts(simulators, pooled, parts.train, parts.train, tails)
    new = _forecasts(newcomers, pooled, parts.train, first, unseen)
    return Evidence(
        parts,
        scale_of(parts.train),
        Part(parts.known, tails, known),
        Part(parts.unseen, unseen, new),
    )


def fit_pooled(
    key: jax.Array, train: OfflineDataset, model: PersimConfig
) -> tuple[FactorConfig, ModelParams]:
    """The same model with the same budget, where all agents are one."""
    kept = dataclasses.replace(model.factor(train), num_agents=1)
    data = jax.tree.map(jnp.asarray, train.transitions())
    data = data.replace(agent=jnp.zeros_like(data.agent))
    return kept, fit_model(key, kept, data, model)[0]


def first_steps(dataset: OfflineDataset, ends: np.ndarray) -> OfflineDataset:
    """Each agent's steps before a row of time `[N]`."""
    mask = np.asarray(dataset.mask)
    seen = mask & (np.arange(mask.shape[1]) < ends[:, None])
    return dataset.replace(mask=seen, terminated=np.asarray(dataset.terminated) & seen)


def _forecasts(
    simulators: PersonalizedSimulators,
    pooled: tuple[FactorConfig, ModelParams],
    train: OfflineDataset,
    own: OfflineDataset,
    queries: Queries,
) -> dict[str, Forecast]:
    """Of all methods; `own` holds what is known of the agents that are predicted."""
    info, scale = train.info, scale_of(train)
    alike = queries._replace(agent=np.zeros_like(queries.agent))
    sizes = RidgeConfig(
        len(info.target_names), info.lags, 0 if info.num_inputs else info.num_actions, degree=2
    )
    ridge, params = fit_each(evidence_of(own), scaling_of(train), sizes)
    return {
        PERSONALIZED: forecast_simulators(simulators, queries, scale),
        POOLED: forecast(factor_model(pooled[0]), pooled[1], alike, scale),
        PER_AGENT: forecast(ridge_model(ridge), params, queries, scale),
        PERSISTENCE: persistence(queries),
    }


def scale_of(train: OfflineDataset) -> np.ndarray:
    """Standard deviation of each coordinate's newest values, `[D]`; 1 where they never differ."""
    values = np.asarray(train.transitions().next_obs)[:, : len(train.info.target_names)]
    std = values.astype(np.float64).std(axis=0)
    # As in the model, so that what it does not scale is not scaled here either.
    constant = normalizer_lib.is_constant(values.astype(np.float32), std)
    return np.where(constant, 1.0, std)
