"""From a run's config to the typed settings of the offline baselines, and what names their rows.

What the baselines are trained with must not rename the rows of other methods, and what PerSim is
trained with must not rename theirs: each row's digest is of what its number depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import envs
from experiments.families import SECTION as SECTION
from experiments.families import family_digest
from experiments.settings import typed
from experiments.stamps import config_digest, without_later
from persim_jax.learners.offline import OfflineConfig
from persim_jax.methods.offline import (
    AUGMENTED,
    CONFIGS,
    OfflineName,
    OfflineSettings,
    parse_name,
)

# What evaluating an offline policy, or making the simulator behind it, has nothing to do with.
_UNUSED = ("planner", "prediction")
_SIMULATOR = ("model", "train", "mesh")


def offline_settings(config: Mapping[str, Any], name: str) -> OfflineSettings:
    """The settings of one method, without agents and synthetic trajectories.

    Raises:
      ValueError: The config has no such section, a field is unknown or has a value that it must
        not have.
    """
    about = _about(name)
    if SECTION not in config:
        raise ValueError(f"config lacks {SECTION}, which {name} needs: configs/baselines.py has it")
    section = config[SECTION]
    where = f"config.{SECTION}"
    own = dict(section[about.learner][about.view])
    train = dict(section["train"]) | {"num_steps": own.pop("num_steps")}
    discrete = envs.make(config["environment"], config["backend"]).spec.discrete
    fields = dict(section[about.learner]["shared"]) | own
    kind: Any = CONFIGS[about.learner, discrete]
    return OfflineSettings(
        learner=typed(kind, fields, f"{where}.{about.learner}"),
        train=typed(OfflineConfig, train, f"{where}.train"),
        normalize=section["normalize"],
    )


def method_digest(config: Mapping[str, Any], method: str) -> str:
    """Digest of what the rows of a method depend on.

    For PerSim and True env that is the config without the section of the baselines, for a method of
    a family see `families.family_digest`. For an offline learner it is the config without planner
    and prediction test and, where no simulator is behind it, without the model, together with the
    settings of this learner for this view of the data.
    """
    about, config = parse_name(method), without_later(config)
    if about is None:
        return family_digest(config, method)
    if SECTION not in config:
        return config_digest(config)
    left_out = (SECTION, "trial", *_UNUSED, *(() if about.view == AUGMENTED else _SIMULATOR))
    section = config[SECTION]
    mine = {
        "normalize": section["normalize"],
        "train": section["train"],
        "learner": about.learner,
        "shared": section[about.learner]["shared"],
        "own": section[about.learner][about.view],
    }
    return config_digest({k: v for k, v in config.items() if k not in left_out} | {"method": mine})


def _about(name: str) -> OfflineName:
    about = parse_name(name)
    if about is None:
        raise ValueError(f"{name!r} is no offline baseline")
    return about
