"""From a run's config to the typed settings of the library, where the config ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import jax

import envs
from persim_jax.collect import BEHAVIORS
from persim_jax.evaluation.prediction import COMBINE
from persim_jax.mesh import MeshConfig, shape_of
from persim_jax.methods import METHODS, find_method
from persim_jax.methods.persim import PersimConfig
from persim_jax.models.factor_network import TARGETS
from persim_jax.networks import ACTIVATIONS
from persim_jax.planning.mpc import PlannerConfig, make_sampler
from persim_jax.training import TrainConfig

Settings = TypeVar("Settings")

# A stage's key does not depend on which other stages there are.
STAGES = {
    "data": 0,
    "fit": 1,
    "prediction": 2,
    "planning": 3,
    "episodes": 4,
    "offline": 5,
    "synthetic": 6,
    "validation": 7,
}

# What `jax_default_matmul_precision` may be without asking for one algorithm by name.
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")
PLAIN = (
    "environment",
    "behavior",
    "variant",
    "seed",
    "trial",
    "backend",
    "matmul_precision",
)
PLANNING_AGENTS = ("all", "printed")
# Sections that no dataclass describes, each field with the least value that makes sense.
SECTIONS: Mapping[str, Mapping[str, int | None]] = {
    "agents": {"num_agents": 1, "seed": 0},
    "prediction": {"warm_up": 0, "num_steps": 2, "num_episodes": 1, "combine": None},
    "evaluation": {
        "planning_episodes": 1,
        "policy_episodes": 1,
        "planning_agents": None,
        "episodes_per_call": 0,
        "width": 0,
    },
}


def stage_key(config: Mapping[str, Any], stage: str) -> jax.Array:
    """Key of a stage: `fold_in(fold_in(key(seed), trial), stage)`."""
    root = jax.random.fold_in(jax.random.key(config["seed"]), config["trial"])
    return jax.random.fold_in(root, STAGES[stage])


def check(config: Mapping[str, Any], methods: tuple[str, ...]) -> None:
    """Refuses a config before anything has been computed with it.

    Raises:
      ValueError: Says which field has which value and what it may be.
    """
    check_values(config, methods)
    spec = envs.make(config["environment"], config["backend"]).spec
    prediction = config["prediction"]
    if prediction["warm_up"] + prediction["num_steps"] > spec.max_steps:
        raise ValueError(
            f"config.prediction asks for {prediction['warm_up']} + {prediction['num_steps']} "
            f"steps: an episode of {spec.name} has at most {spec.max_steps}"
        )
    _check_mesh(persim_config(config))
    make_sampler(spec, planner_config(config))


def check_values(config: Mapping[str, Any], methods: tuple[str, ...]) -> None:
    """Refuses what can be told to be wrong without an environment and without devices.

    A process that only plans calls this: it may run where neither is, and takes none from others.

    Raises:
      ValueError: As `check`.
    """
    fields = (*PLAIN, *SECTIONS, "model", "train", "mesh", "planner")
    absent = [field for field in fields if field not in config]
    if absent:
        raise ValueError(f"config lacks {', '.join(absent)}: configs/base.py has every field")
    _one_of("environment", config["environment"], envs.ENV_NAMES)
    _one_of("behavior", config["behavior"], BEHAVIORS)
    _one_of("matmul_precision", config["matmul_precision"], PRECISIONS)
    for name in ("trial", "seed"):
        if config[name] < 0:
            raise ValueError(f"config.{name} is {config[name]}: it must not be negative")
    for name in SECTIONS:
        _check_section(name, config[name])
    evaluation = config["evaluation"]
    _one_of("evaluation.planning_agents", evaluation["planning_agents"], PLANNING_AGENTS)
    together = evaluation["episodes_per_call"]
    if together and evaluation["planning_episodes"] % together:
        raise ValueError(
            f"config.evaluation.episodes_per_call is {together}: it must divide planning_episodes, "
            f"{evaluation['planning_episodes']}"
        )
    _one_of("prediction.combine", config["prediction"]["combine"], COMBINE)
    _check_methods(methods)
    persim_config(config)
    planner_config(config)


def persim_config(config: Mapping[str, Any]) -> PersimConfig:
    """PerSim's settings.

    Raises:
      ValueError: A field is unknown or has a value that it must not have.
    """
    train = typed(TrainConfig, config["train"], "config.train")
    mesh = typed(MeshConfig, config["mesh"], "config.mesh")
    model = dict(config["model"])
    if model.get("agent_start", 0.0) < 0:
        model["agent_start"] = None
    settings = typed(PersimConfig, model | {"train": train, "mesh": mesh}, "config.model")
    _one_of("model.activation", settings.activation, ACTIVATIONS)
    _one_of("model.target", settings.target, TARGETS)
    for name in ("rank", "ensemble_size", "state_features", "action_features"):
        value = getattr(settings, name)
        sizes = value if isinstance(value, tuple) else (value,)
        if any(size < 1 for size in sizes) or (name == "state_features" and not sizes):
            raise ValueError(f"config.model.{name} is {value}: sizes must be at least 1")
    return settings


def planner_config(config: Mapping[str, Any]) -> PlannerConfig:
    """The planner's settings, the same for every method.

    Raises:
      ValueError: A field is unknown or has a value that it must not have.
    """
    return typed(PlannerConfig, config["planner"], "config.planner")


def _check_mesh(settings: PersimConfig) -> None:
    """Refuses a mesh that this process cannot make, before any data are collected."""
    members = settings.ensemble_size + settings.spare_members
    shape_of(settings.mesh, members, (settings.train.batch_size,), jax.local_device_count())


def typed(kind: Callable[..., Settings], fields: Mapping[str, Any], where: str) -> Settings:
    """Makes a dataclass of the fields of a section, lists as tuples.

    Raises:
      ValueError: A field is unknown or has a value that it must not have; says where.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(fields, known, where)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error


def _check_section(name: str, fields: Mapping[str, Any]) -> None:
    known = SECTIONS[name]
    _refuse_unknown(fields, known, f"config.{name}")
    absent = sorted(known.keys() - fields.keys())
    if absent:
        raise ValueError(f"config.{name} lacks {', '.join(absent)}: configs/base.py has it")
    for field, least in known.items():
        if least is not None and fields[field] < least:
            raise ValueError(
                f"config.{name}.{field} is {fields[field]}: it must be at least {least}"
            )


def _check_methods(methods: tuple[str, ...]) -> None:
    if not methods:
        raise ValueError(f"there is no method: use some of {', '.join(METHODS)}")
    for name in methods:
        find_method(name)
        if methods.count(name) > 1:
            raise ValueError(f"method {name!r} is named twice: name each once")


def _refuse_unknown(fields: Mapping[str, Any], known: Collection[str], where: str) -> None:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(
            f"{where} has no field {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )


def _one_of(name: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"config.{name} is {value!r}: use one of {', '.join(choices)}")
