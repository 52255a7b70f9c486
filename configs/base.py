"""Every field of a run with its default; the environments' files hold overrides only.

Paper and protocol meet here: where they leave a choice, it is a field.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs.baselines import get_baselines

VARIANTS = ("smoke", "default", "paper")


def get_base(environment: str, variant: str) -> ConfigDict:
    """Returns the config that all environments share.

    Args:
      environment: Name in `envs.ENV_NAMES`.
      variant: "" or "default", "smoke" (sizes for tests) or "paper" (the authors' settings).

    Raises:
      ValueError: There is no such variant.
    """
    variant = variant or "default"
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown: use one of {', '.join(VARIANTS)}")
    config = ConfigDict()
    config.environment = environment
    config.behavior = "random"
    config.variant = variant
    config.seed = 0
    config.trial = 0
    # Who steps the true environment, where there is a choice; see `envs.half_cheetah.BACKENDS`.
    config.backend = "auto"
    # "highest" keeps float32 products in float32 on accelerators that would round them; training
    # has its own, `train.precision`.
    config.matmul_precision = "highest"
    config.agents = ConfigDict({"num_agents": 20 if variant == "smoke" else 500, "seed": 0})
    config.model = _model()
    config.train = _train()
    # Devices that training is spread over, members first; -1 is as many as there are and divide.
    config.mesh = ConfigDict({"member": -1, "batch": -1})
    config.prediction = ConfigDict(
        {
            "warm_up": 10,
            "num_steps": 50,
            "num_episodes": 2 if variant == "smoke" else 200,
            "combine": "mean",
        }
    )
    config.planner = ConfigDict(
        {
            "sampler": "random_shooting",
            "num_candidates": 1000,
            "horizon": 50,
            "bonus_weight": 0.0,
            # Candidates rolled out together, as suits the device.
            "chunk_size": -1,
            # The paper's text; the authors' code for continuous actions has "mean".
            "propagate": "members",
            # Continuous actions: 1 + 5 rounds, 0.3 + 0.3 U(0, 1), as the authors' code.
            "num_rounds": 6,
            "num_elites": 50,
            "smoothing": 0.1,
            "init_std": (0.3, 0.6),
            # Of iCEM and MPPI; see `persim_jax.planning.config.PlannerConfig`.
            "noise_beta": 0.25,
            "keep_fraction": 0.3,
            "temperature": 1.0,
        }
    )
    planning, policy = {"smoke": (2, 2), "default": (10, 100), "paper": (20, 100)}[variant]
    config.evaluation = ConfigDict(
        {
            "planning_episodes": planning,
            "policy_episodes": policy,
            # "printed": planning for the test agents of the paper's Table 2 only.
            "planning_agents": "all",
            # Planning episodes between which a killed run can go on; 0 is all of an agent's.
            "episodes_per_call": 0,
            # Episodes side by side; on a CPU 1, where ended ones cost nothing; 0 is all of a call.
            "width": 1,
        }
    )
    config.baselines = get_baselines(environment, variant)
    if variant == "smoke":
        config.planner.update({"num_candidates": 20, "horizon": 10})
        config.planner.update({"num_rounds": 2, "num_elites": 5})
        config.train.update({"num_epochs": 2})
        config.model.update({"state_features": (16,), "ensemble_size": 2})
    return config


def _model() -> ConfigDict:
    """The authors' encoders; see `persim_jax.models.factor.FactorConfig` for what each means."""
    return ConfigDict(
        {
            "rank": 3,
            "state_features": (256,),
            "action_features": (),
            "activation": "relu",
            "layer_norm": False,
            "angles": (),
            "skip": False,
            "ensemble_size": 5,
            "spare_members": 0,
            "normalize_obs": False,
            "normalize_delta": False,
            "target": "delta",
            # Negative: drawn as PyTorch draws it.
            "agent_start": -1.0,
            "agent_penalty": 0.0,
            "huber": 0.0,
        }
    )


def _train() -> ConfigDict:
    """The authors' training; see `persim_jax.training.TrainConfig`."""
    return ConfigDict(
        {
            "num_epochs": 300,
            "batch_size": 512,
            "learning_rate": 1e-3,
            "schedule": "halve",
            "halve_every": 150,
            "weight_decay": 0.0,
            "polish_rounds": 0,
            "polish_steps": 200,
            "polish_size": 16384,
            # Members side by side; -1 is 1 on a CPU and all, which is 0, on an accelerator.
            "member_chunk": -1,
            # Of matrix products in training only: "highest", "tf32" or "bf16".
            "precision": "highest",
        }
    )
