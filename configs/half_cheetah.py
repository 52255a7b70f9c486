"""HalfCheetah with the scales of its masses and of its joint damping as covariates.

python -m experiments.run --config=configs/half_cheetah.py --workdir=runs/half_cheetah
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.base import get_base


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant: "", "smoke" or "paper"."""
    config = get_base("half_cheetah", variant)
    config.model.update({"rank": 15, "normalize_obs": True, "normalize_delta": True})
    config.planner.update({"sampler": "cem", "num_candidates": 200, "horizon": 30})
    if config.variant == "paper":
        config.model.update({"state_features": (512,) * 4, "action_features": (512, 512)})
        config.train.batch_size = 1024
        return config
    # Chosen on the validation agents. The test policy and a planner go where no data are, so what
    # counts is what the model makes of states and actions that it has not seen. Standardised layers
    # keep it bounded there, and let it learn at a high rate; what is linear in the state goes past
    # them; the velocities of joints, which hardly carry over a step, are predicted themselves.
    # Torques act linearly on the accelerations, and a linear action encoder invents less of actions
    # that no data have. docs/half_cheetah.md has the comparisons.
    config.model.update({"layer_norm": True, "skip": True, "target": "auto"})
    config.train.update({"batch_size": 1024, "learning_rate": 8e-3, "schedule": "cosine"})
    if config.variant == "default":
        config.model.state_features = (256, 256)
        config.train.num_epochs = 16
        # On two cores an episode of a thousand decisions takes minutes.
        config.evaluation.update(
            {"planning_episodes": 1, "planning_agents": "printed", "episodes_per_call": 1}
        )
    else:
        config.train.batch_size = 256
        config.planner.update({"num_candidates": 8, "num_elites": 4})
        # Side by side, so that the true environment is called half as often.
        config.evaluation.update({"planning_agents": "printed", "width": 0})
    return config
