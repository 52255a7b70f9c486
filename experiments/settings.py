"""From a run's config to the typed settings of the library, where the config ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from persim_jax.collect import BEHAVIORS
from persim_jax.methods import METHODS
from persim_jax.methods.persim import PersimConfig
from persim_jax.planning.mpc import PlannerConfig
from persim_jax.training import TrainConfig

Settings = TypeVar("Settings")

# A stage's key does not depend on which other stages there are.
STAGES = {"data": 0, "fit": 1, "prediction": 2, "planning": 3, "episodes": 4}


def stage_key(config: Mapping[str, Any], stage: str) -> jax.Array:
    """Key of a stage: `fold_in(fold_in(key(seed), trial), stage)`."""
    root = jax.random.fold_in(jax.random.key(config["seed"]), config["trial"])
    return jax.random.fold_in(root, STAGES[stage])


def check(config: Mapping[str, Any], methods: tuple[str, ...]) -> None:
    """Refuses a config before anything has been computed with it.

    Raises:
      ValueError: Says which field has which value and what it may be.
    """
    if config["behavior"] not in BEHAVIORS:
        raise ValueError(
            f"config.behavior is {config['behavior']!r}: use one of {', '.join(BEHAVIORS)}"
        )
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"method {unknown[0]!r} is unknown: use some of {', '.join(METHODS)}")
    for name in ("trial", "seed"):
        if config[name] < 0:
            raise ValueError(f"config.{name} is {config[name]}: it must not be negative")
    persim_config(config)
    planner_config(config)


def persim_config(config: Mapping[str, Any]) -> PersimConfig:
    """PerSim's settings."""
    train = _typed(TrainConfig, config["train"], "config.train")
    model = dict(config["model"])
    if model["agent_start"] < 0:
        model["agent_start"] = None
    return _typed(PersimConfig, model | {"train": train}, "config.model")


def planner_config(config: Mapping[str, Any]) -> PlannerConfig:
    """The planner's settings, the same for every method."""
    return _typed(PlannerConfig, config["planner"], "config.planner")


def _typed(kind: Callable[..., Settings], fields: Mapping[str, Any], where: str) -> Settings:
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ValueError(
            f"{where} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return kind(**values)
