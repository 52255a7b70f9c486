"""Settings of the baselines: BCQ and CQL, with the grid that they were chosen from, and others.

A learner has one set of settings for each view of the data: `p`, one policy from all agents'
trajectories; `a`, one from an agent's single trajectory; `k`, one from that and its simulator's.
`python -m experiments.tune_baselines` measures the grid on the validation agents. A change here
changes the digest of the baselines' rows only.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from configs.cadm import get_cadm
from configs.morel import get_morel

# What is searched, the whole of it.
GRID: dict[str, dict[str, tuple[float, ...]]] = {
    "bcq": {"threshold": (0.1, 0.3, 0.6)},
    "cql": {"weight": (0.1, 1.0, 4.0)},
}
STEPS = (5_000, 10_000, 20_000)
# On random data, views `p` and `a`, and not to 20 000 steps, which are minutes for each learner.
CONTINUOUS_GRID: dict[str, dict[str, tuple[float, ...]]] = {
    "bcq": {"perturbation": (0.05,)},
    "cql": {"weight": (1.0, 5.0)},
}
CONTINUOUS_STEPS = (5_000, 10_000)

# Chosen on the validation agents: (threshold or weight, gradient steps).
_CHOSEN: dict[str, dict[str, dict[str, tuple[float, int]]]] = {
    "mountain_car": {
        "bcq": {"p": (0.3, 20_000), "a": (0.3, 5_000), "k": (0.3, 20_000)},
        "cql": {"p": (0.1, 20_000), "a": (1.0, 20_000), "k": (0.1, 20_000)},
    },
    "cart_pole": {
        "bcq": {"p": (0.3, 5_000), "a": (0.6, 5_000), "k": (0.1, 10_000)},
        "cql": {"p": (1.0, 20_000), "a": (4.0, 5_000), "k": (0.1, 10_000)},
    },
    "half_cheetah": {
        # `k`, whose simulators take a quarter of an hour, has the settings of `a`.
        "bcq": {"p": (0.05, 10_000), "a": (0.05, 10_000), "k": (0.05, 10_000)},
        "cql": {"p": (5.0, 10_000), "a": (1.0, 5_000), "k": (1.0, 5_000)},
    },
}


def get_baselines(environment: str, variant: str) -> ConfigDict:
    """Returns the section `baselines` of an environment's config.

    Args:
      environment: Name in `envs.ENV_NAMES`.
      variant: As in `configs.base.get_base`.
    """
    grid = CONTINUOUS_GRID if environment == "half_cheetah" else GRID
    smoke = variant == "smoke"
    sections: dict[str, Any] = {}
    for learner, fields in grid.items():
        (field,) = fields
        sections[learner] = {
            "shared": _shared(environment, learner, smoke),
            **{
                view: {field: value, "num_steps": 20 if smoke else steps}
                for view, (value, steps) in _CHOSEN[environment][learner].items()
            },
        }
    return ConfigDict(
        {
            "normalize": True,
            "train": {
                "batch_size": 8 if smoke else 64,
                "chunk": 10 if smoke else 1000,
                "max_value": 1e6,
                # Lanes side by side; -1 is one after the other on a CPU and all elsewhere.
                "width": -1,
            },
            **sections,
            # What PerSim's own settings do not say; see `persim_jax.methods.ablations`.
            "ablations": {"own_batch_size": 32},
            "cadm": get_cadm(environment, variant),
            "morel": get_morel(environment, variant),
        }
    )


def _shared(environment: str, learner: str, smoke: bool) -> dict[str, Any]:
    """Fields of a learner that no grid searches; see `persim_jax.methods.offline.CONFIGS`."""
    if environment == "half_cheetah":
        # Half the width of the authors' networks and, of CQL's sampled actions, 4 instead of 10 of
        # each kind, so that two cores can run it.
        hidden = (16,) if smoke else (128, 128)
        more: dict[str, Any] = {"vae_hidden": hidden} if learner == "bcq" else {"num_samples": 4}
        return {"hidden": hidden} | more
    return {"hidden": (16,) if smoke else (64, 64), "learning_rate": 3e-4}
