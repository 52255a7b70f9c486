"""CartPole with the push's force and the pole's length as covariates.

python -m experiments.run --config=configs/cart_pole.py --workdir=runs/cart_pole
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.base import get_base


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant: "", "smoke" or "paper"."""
    config = get_base("cart_pole", variant)
    config.model.rank = 5
    if config.variant == "paper":
        config.train.batch_size = 64
        return config
    # Chosen on the validation agents. The dynamics are smooth and almost linear in the state, and
    # second-order steps reach a loss that Adam does not. Adam's large steps matter, too: with small
    # ones up to three members in five of the pure data never find the factor 1 / length.
    config.model.update(
        {
            "activation": "tanh",
            "skip": True,
            "normalize_obs": True,
            "normalize_delta": True,
            "agent_start": 1.0,
        }
    )
    config.train.update({"batch_size": 256, "learning_rate": 2e-2, "schedule": "cosine"})
    if config.variant == "default":
        config.model.update({"state_features": (32,), "spare_members": 2})
        config.train.update({"num_epochs": 100, "polish_rounds": 2, "polish_steps": 1000})
    else:
        config.train.update({"polish_rounds": 1, "polish_steps": 20})
    return config
