"""Settings of MOReL, and the grid that they were chosen from on the validation agents.

`p` is one policy from all agents' trajectories, `a` one for each agent from its single trajectory;
`persim_jax.methods.morel_records.MorelConfig` and
`persim_jax.learners.natural_gradient.NaturalGradientConfig` say what each field means.
"""

from __future__ import annotations

from typing import Any

# What is searched, the whole of it. An update costs the same at every coefficient.
GRID: dict[str, tuple[float, ...]] = {
    "pessimism_coef": (0.5, 1.0, 3.0),
    "num_iterations": (50, 100, 200),
}

# Where nothing was chosen yet, the middle of the grid.
_MIDDLE = {"pessimism_coef": 1.0, "num_iterations": 100}
# Of -P, by the mean return over validation agents, random and pure_eps20 data.
_CHOSEN: dict[str, dict[str, dict[str, Any]]] = {
    "mountain_car": {"p": {"pessimism_coef": 0.5, "num_iterations": 100}, "a": _MIDDLE},
    "cart_pole": {"p": {"pessimism_coef": 1.0, "num_iterations": 50}, "a": _MIDDLE},
    "half_cheetah": {"p": _MIDDLE, "a": _MIDDLE},
}
# Epochs and minibatches of the ensemble, by the number of transitions: 500 trajectories, or one.
_EPOCHS: dict[str, dict[str, tuple[int, int]]] = {
    "mountain_car": {"p": (5, 256), "a": (100, 64)},
    "cart_pole": {"p": (30, 128), "a": (100, 32)},
    "half_cheetah": {"p": (5, 512), "a": (60, 64)},
}


def get_morel(environment: str, variant: str) -> dict[str, Any]:
    """Returns the section `baselines.morel` of an environment's config.

    Args:
      environment: Name in `envs.ENV_NAMES`.
      variant: As in `configs.base.get_base`.
    """
    section = {"smoke": _smoke, "paper": _paper}.get(variant, _default)(environment)
    section["distance"] = "raw"
    section["buffer_share"] = 0.0
    # Lanes side by side; -1 is one after the other on a CPU and all elsewhere.
    section["width"] = -1
    return section


def _default(environment: str) -> dict[str, Any]:
    """Sizes for two cores."""
    cheetah = environment == "half_cheetah"
    epochs = _EPOCHS[environment]
    return {
        "hidden": (128, 128) if cheetah else (64, 64),
        "activation": "relu",
        "ensemble_size": 4,
        "num_paths": 40 if environment == "mountain_car" else 80,
        # An imagined episode that is cut off goes on in the value network's eyes.
        "horizon": 250 if cheetah else 0,
        "chunk": 10,
        "train": {"learning_rate": 1e-3, "schedule": "cosine"},
        "policy": {"hidden": (32, 32), "init_log_std": -0.25, "min_log_std": -1.0},
        "learner": {
            "discount": 0.99,
            "gae_lambda": 0.97,
            "max_kl": 0.02,
            "cg_steps": 10,
            "damping": 1e-3,
            "fisher_every": 4,
            "backtracks": 10,
            "value_hidden": (64, 64),
            "value_rate": 1e-3,
            "value_steps": 100,
            "value_batch": 256,
            "clone_steps": 1000,
            "clone_rate": 1e-3,
            "clone_batch": 256,
        },
        **{
            view: {**_CHOSEN[environment][view], "num_epochs": count, "batch_size": size}
            for view, (count, size) in epochs.items()
        },
    }


def _paper(environment: str) -> dict[str, Any]:
    """The settings of MOReL's authors for their own environments; these three have none.

    Their 0.02 is twice the divergence of a step, their horizons are those of other environments.
    """
    section = _default(environment)
    section |= {"hidden": (512, 512), "num_paths": 200, "chunk": 10}
    section["train"]["schedule"] = "constant"
    section["policy"]["hidden"] = (64, 64)
    section["learner"] |= {
        "discount": 0.999,
        "max_kl": 0.01,
        "cg_steps": 20,
        "fisher_every": 1,
        "backtracks": 0,
        "value_hidden": (128, 128),
    }
    for view in ("p", "a"):
        section[view] |= {
            "pessimism_coef": 3.0,
            "num_iterations": 500,
            "num_epochs": 25,
            "batch_size": 256,
        }
    return section


def _smoke(environment: str) -> dict[str, Any]:
    """Sizes for tests."""
    section = _default(environment)
    section |= {"hidden": (8,), "ensemble_size": 2, "num_paths": 4, "horizon": 6, "chunk": 1}
    section["policy"]["hidden"] = (4,)
    section["learner"] |= {
        "value_hidden": (4,),
        "value_steps": 2,
        "value_batch": 8,
        "clone_steps": 2,
        "clone_batch": 8,
        "cg_steps": 2,
    }
    for view in ("p", "a"):
        section[view] |= {"num_iterations": 2, "num_epochs": 1, "batch_size": 64}
    return section
