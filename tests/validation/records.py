"""Records of made-up agents whose truth is known, shared by the tests of validation."""

import numpy as np

from persim_jax.data.dataset import DatasetInfo, OfflineDataset


def line_data(gains, steps=40, noise=0.0, seed=0, names=()):
    """Agents on a line, obs [position, heat]; gain n moves by gain * push, push -1, 0 or 1.

    position' = position + gain * push + noise, heat' = 0.9 heat + 0.1 push.
    """
    rng = np.random.default_rng(seed)
    gains = np.asarray(gains, np.float64)
    obs = np.zeros((len(gains), steps + 1, 2))
    obs[:, 0] = rng.normal(0, 0.3, (len(gains), 2))
    actions = rng.integers(3, size=(len(gains), steps)).astype(np.int32)
    for t in range(steps):
        push = actions[:, t] - 1.0
        moved = gains * push + noise * rng.normal(size=len(gains))
        obs[:, t + 1, 0] = obs[:, t, 0] + moved
        obs[:, t + 1, 1] = 0.9 * obs[:, t, 1] + 0.1 * push
    return dataset_of(np.float32(obs), actions, names)


def dataset_of(obs, actions, names=(), mask=None):
    """A dataset of records `[N, T + 1, 2]` and actions `[N, T]`, complete unless masked."""
    mask = np.ones(actions.shape, bool) if mask is None else mask
    info = DatasetInfo(
        "line", "random", ("position", "heat"), (), 3, 3, agent_names=tuple(names), segmented=True
    )
    return OfflineDataset(
        obs=obs, actions=actions, rewards=np.zeros(actions.shape, np.float32),
        terminated=np.zeros(actions.shape, bool), mask=mask,
        agent_ids=10 + np.arange(len(obs)), covariates=np.zeros((len(obs), 0), np.float32),
        info=info,
    )  # fmt: skip
