"""What d3rlpy does in `benchmarks.d3rlpy_comparison`; runs where d3rlpy is, without this package.

    SCRATCH/bin/python benchmarks/d3rlpy_side.py JOB.npz OUT.json

The job holds the transitions of all episodes, settings, and the beginnings of the evaluation
episodes; out come returns per seed, agent and episode, and gradient steps per second.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np


def mountain_car(obs: np.ndarray, actions: np.ndarray, covariates: np.ndarray) -> tuple[Any, ...]:
    """Next observations, rewards and ends of many cars; covariates are gravities."""
    position, velocity = obs.T
    velocity = velocity + (actions - 1) * 0.001 - np.cos(3 * position) * covariates[:, 0]
    velocity = np.clip(velocity, -0.07, 0.07)
    position = np.clip(position + velocity, -1.2, 0.6)
    velocity = np.where((position <= -1.2) & (velocity < 0), 0.0, velocity)
    ended = (position >= 0.5) & (velocity >= 0)
    return np.stack([position, velocity], axis=1), np.where(ended, 0.0, -1.0), ended


def cart_pole(obs: np.ndarray, actions: np.ndarray, covariates: np.ndarray) -> tuple[Any, ...]:
    """Next observations, rewards and ends of many poles; covariates are forces and lengths."""
    _, speed, angle, spin = obs.T
    force, length = np.where(actions == 1, 1.0, -1.0) * covariates[:, 0], covariates[:, 1]
    sine, cosine = np.sin(angle), np.cos(angle)
    push = (force + 0.1 * length * spin**2 * sine) / 1.1
    turn = (9.8 * sine - cosine * push) / (length * (4 / 3 - 0.1 * cosine**2 / 1.1))
    pull = push - 0.1 * length * turn * cosine / 1.1
    step = np.stack([speed, pull, spin, turn], axis=1)
    new = obs + 0.02 * step
    ended = (np.abs(new[:, 0]) > 2.4) | (np.abs(new[:, 2]) > np.deg2rad(12))
    return new, np.ones(len(new)), ended


STEPS = {"mountain_car": (mountain_car, 500), "cart_pole": (cart_pole, 200)}


def play(algo: Any, environment: str, obs: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Returns of episodes that begin at `obs [E, D]`, played side by side, greedily."""
    step, limit = STEPS[environment]
    total, alive = np.zeros(len(obs)), np.ones(len(obs), bool)
    for _ in range(limit):
        actions = algo.predict(obs.astype(np.float32))
        obs, rewards, ended = step(obs, actions, covariates)
        total += np.where(alive, rewards, 0.0)
        alive &= ~ended
        if not alive.any():
            break
    return total


def make_algorithm(learner: str, settings: dict[str, Any]) -> Any:
    """The discrete learner with the settings of the comparison, the rest as d3rlpy has it."""
    import d3rlpy

    shared = {
        "batch_size": settings["batch_size"],
        "gamma": settings["discount"],
        "learning_rate": settings["learning_rate"],
        "target_update_interval": settings["target_every"],
        "encoder_factory": d3rlpy.models.encoders.VectorEncoderFactory(list(settings["hidden"])),
    }
    if learner == "cql":
        config: Any = d3rlpy.algos.DiscreteCQLConfig(alpha=settings["weight"], **shared)
    else:
        config = d3rlpy.algos.DiscreteBCQConfig(
            action_flexibility=settings["threshold"],
            beta=settings["logit_penalty"],
            share_encoder=False,
            **shared,
        )
    return config.create(device=False)


def make_buffer(job: Any) -> Any:
    """The same transitions as d3rlpy's buffer; a time limit is no end of the task."""
    import d3rlpy

    return d3rlpy.dataset.MDPDataset(
        observations=job["obs"],
        actions=job["actions"][:, None],
        rewards=job["rewards"][:, None],
        terminals=job["terminals"].astype(np.float32),
        timeouts=job["timeouts"].astype(np.float32),
        action_space=d3rlpy.constants.ActionSpace.DISCRETE,
        action_size=int(job["num_actions"]),
    )


def train(algo: Any, buffer: Any, num_steps: int) -> float:
    """Takes gradient steps on sampled batches, no logging; returns steps per second of CPU time."""
    size = algo.batch_size
    start = time.process_time()
    for _ in range(num_steps):
        algo.update(buffer.sample_transition_batch(size))
    return num_steps / (time.process_time() - start)


def main(job_path: str, out_path: str) -> None:
    """Runs one job."""
    import d3rlpy
    import torch

    job = np.load(job_path)
    settings = json.loads(str(job["settings"]))
    torch.set_num_threads(settings["threads"])
    buffer = make_buffer(job)
    returns, speeds = [], []
    for seed in range(settings["seeds"]):
        d3rlpy.seed(seed)
        algo = make_algorithm(settings["learner"], settings)
        algo.build_with_dataset(buffer)
        # The first steps are slower, on both sides: they are not in the time.
        train(algo, buffer, 20)
        speeds.append(train(algo, buffer, settings["num_steps"] - 20))
        found = play(algo, settings["environment"], job["begin"], job["covariates"])
        returns.append(found.tolist())
    about = {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}
    with open(out_path, "w", encoding="utf8") as file:
        json.dump({"returns": returns, "steps_per_second": speeds, "versions": about}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
