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
    config.train.batch_size = 64
    if config.variant != "paper":
        # Chosen on the validation agents. The dynamics are smooth and almost linear in the state,
        # and second-order steps reach a loss that Adam does not.
        config.model.update(
            {
                "activation": "tanh",
                "skip": True,
                "normalize_obs": True,
                "normalize_delta": True,
                "agent_start": 1.0,
            }
        )
        config.train.update({"schedule": "cosine", "polish_rounds": 1, "polish_steps": 20})
    if config.variant == "default":
        config.model.state_features = (32,)
        config.train.update({"num_epochs": 60, "polish_rounds": 10, "polish_steps": 200})
    return config
