"""Families of methods with a section of their own in `config.baselines`, and what names their rows.

A family stands here once, with what its numbers depend on: then its settings are in the digests of
its own rows and in nobody else's. How its methods are run stands in `experiments.method_stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import envs
from experiments.morel_settings import morel_own, morel_settings
from experiments.settings import persim_config, typed
from experiments.stamps import config_digest, without_later
from persim_jax.mesh import MeshConfig
from persim_jax.methods import cadm, morel
from persim_jax.methods.ablations import AGENTS, AblationSettings, ablation_settings
from persim_jax.methods.model_based import ModelSettings
from persim_jax.training import TrainConfig

SECTION = "baselines"

Config = Mapping[str, Any]


class Family(NamedTuple):
    """Methods that share a section of settings.

    Attributes:
      section: Its name in `config.baselines`.
      methods: Names.
      settings: `(config, name, agents) -> settings` of the method's `fit`; `agents` are the rows of
        those that need a policy or a network of their own.
      unused: Other sections of the config that no number of these methods depends on.
      own: `(section, name) -> data`, the part of the section that one method depends on.
    """

    section: str
    methods: tuple[str, ...]
    settings: Callable[[Config, str, tuple[int, ...]], Any]
    unused: tuple[str, ...] = ()
    own: Callable[[Mapping[str, Any], str], Any] = lambda section, name: section


def _ablations(config: Config, name: str, agents: tuple[int, ...]) -> Any:
    section = config[SECTION]["ablations"]
    shared = {"persim": persim_config(config), "networks": agents}
    where = f"config.{SECTION}.ablations"
    return ablation_settings(typed(AblationSettings, dict(section) | shared, where))


def _cadm(config: Config, name: str, agents: tuple[int, ...]) -> Any:
    del agents  # one model of all
    where = f"config.{SECTION}.cadm"
    section = _own_cadm(config[SECTION]["cadm"], name)
    own, train = dict(section["own"]), dict(section["train"])
    train |= {"num_epochs": 1, "bootstrap": own.pop("bootstrap")}
    network = dict(section["network"]) | {"num_steps": own.pop("num_steps")}
    settings = ModelSettings(
        network=typed(cadm.CadmSettings, network, f"{where}.network"),
        train=typed(TrainConfig, train, f"{where}.train"),
        mesh=typed(MeshConfig, config["mesh"], "config.mesh"),
        **own,
    )
    # What does not fit this environment is told before there are data.
    spec = envs.make(config["environment"], config["backend"]).spec
    cadm.cadm_config(spec, settings.network, ensemble_size=settings.ensemble_size)
    return settings


def _own_cadm(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    own = section["vanilla" if name == cadm.VANILLA else "pets"]
    return {"network": section["network"], "train": section["train"], "own": own}


def _morel(config: Config, name: str, agents: tuple[int, ...]) -> Any:
    return morel_settings(config[SECTION]["morel"], name, agents)


FAMILIES = (
    Family(section="ablations", methods=tuple(AGENTS), settings=_ablations),
    Family(
        section="cadm", methods=tuple(cadm.RECIPES), settings=_cadm, unused=("model", "train"),
        own=_own_cadm,
    ),
    Family(
        section="morel",
        methods=morel.NAMES,
        settings=_morel,
        unused=("planner", "prediction", "model", "train", "mesh"),
        own=morel_own,
    ),
)  # fmt: skip


def family_of(name: str) -> Family | None:
    """Returns the family of a method; None for PerSim, True env and the offline learners."""
    return next((family for family in FAMILIES if name in family.methods), None)


def method_settings(config: Config, name: str, agents: tuple[int, ...] = ()) -> Any:
    """The settings of a method of a family.

    Args:
      config: Of the run.
      name: Of the method.
      agents: Rows of the agents that need a policy or a network of their own.

    Raises:
      ValueError: The method is of no family, the config lacks its section, or a field is unknown or
        has a value that it must not have.
    """
    family = family_of(name)
    if family is None:
        raise ValueError(f"{name!r} has no section in config.{SECTION}")
    if family.section not in config.get(SECTION, {}):
        raise ValueError(
            f"config lacks {SECTION}.{family.section}, which {name} needs: configs/baselines.py "
            "has it"
        )
    return family.settings(config, name, agents)


def check(config: Config, methods: tuple[str, ...]) -> None:
    """Refuses settings of families before anything has been computed with them.

    Raises:
      ValueError: Says which field has which value and what it may be.
    """
    for name in methods:
        if family_of(name) is not None:
            method_settings(config, name)


def family_digest(config: Config, name: str) -> str:
    """Digest of what the rows of a method depend on, its own settings included."""
    family, config = family_of(name), without_later(config)
    section = config.get(SECTION, {}).get(family.section) if family else None
    if family is None or section is None:
        return config_digest(config)
    left_out = {SECTION, "trial", *family.unused}
    mine = {"family": family.section, "own": family.own(section, name)}
    return config_digest({k: v for k, v in config.items() if k not in left_out} | {"method": mine})
