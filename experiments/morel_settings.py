"""From the section `baselines.morel` of a run's config to MOReL's typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.settings import typed
from persim_jax.learners.natural_gradient import NaturalGradientConfig
from persim_jax.learners.policies import PolicyConfig
from persim_jax.methods.morel import MorelConfig, MorelSettings
from persim_jax.training import TrainConfig

VIEWS = ("p", "a")
_WHERE = "config.baselines.morel"
# What stands in a view's part and is of the ensemble's training.
_TRAINING = ("num_epochs", "batch_size")


def morel_settings(section: Mapping[str, Any], name: str, agents: tuple[int, ...]) -> MorelSettings:
    """The settings of `morel_p` or `morel_a`.

    Args:
      section: `config.baselines.morel`.
      name: Of the method.
      agents: Rows of the agents that get a policy of their own.

    Raises:
      ValueError: A field is unknown or has a value that it must not have; says where.
    """
    fields = {k: v for k, v in section.items() if k not in VIEWS} | dict(section[name[-1]])
    train = dict(fields["train"]) | {k: fields.pop(k) for k in _TRAINING if k in fields}
    policy = typed(PolicyConfig, fields.pop("policy"), f"{_WHERE}.policy")
    learner = dict(fields["learner"]) | {"policy": policy}
    parts = {
        "train": typed(TrainConfig, train, f"{_WHERE}.train"),
        "learner": typed(NaturalGradientConfig, learner, f"{_WHERE}.learner"),
    }
    return MorelSettings(config=typed(MorelConfig, fields | parts, _WHERE), agents=agents)


def morel_own(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The part of the section that the rows of one method depend on."""
    return {k: v for k, v in section.items() if k not in VIEWS} | {"view": section[name[-1]]}
