"""A small dataset with everything that users' data have: names, gaps, inputs, two coordinates."""

import numpy as np

from persim_jax.data.dataset import DatasetInfo, OfflineDataset

# Runs of rows of three agents; between two runs time has a gap.
RUNS = {"ann": (4, 3), "bob": (6,), "cy": (2, 2, 3)}
ROWS = 7


def make_segmented(discrete=True, inputs=True):
    """Row t of agent i: x = 100 i + t, y = -t, input x / 10, action t mod 3 or two numbers."""
    mask = np.zeros((3, ROWS - 1), bool)
    for row, runs in enumerate(RUNS.values()):
        ends = np.cumsum(runs)
        mask[row, : ends[-1] - 1] = True
        mask[row, ends[:-1] - 1] = False
    rows = np.asarray([sum(runs) for runs in RUNS.values()])
    time = np.minimum(np.arange(ROWS), rows[:, None] - 1).astype(np.float32)
    x = 100 * np.arange(3, dtype=np.float32)[:, None] + time
    steps = time[:, :-1]
    actions = np.stack([steps / 7, 1000 + steps], axis=-1).astype(np.float32)
    return OfflineDataset(
        obs=np.stack([x, -time], axis=-1),
        actions=(steps % 3).astype(np.int32) if discrete else actions,
        rewards=np.zeros(mask.shape, np.float32),
        terminated=np.zeros(mask.shape, bool),
        mask=mask,
        agent_ids=np.arange(3, dtype=np.int32),
        covariates=np.zeros((3, 0), np.float32),
        info=DatasetInfo(
            environment="toy",
            behavior="unknown",
            obs_names=("x", "y"),
            covariate_names=(),
            num_actions=3 if discrete else 0,
            action_size=3 if discrete else 2,
            input_names=("meal",) if inputs else (),
            agent_names=tuple(RUNS),
            action_names=("none", "low", "high") if discrete else ("dose", "rate"),
            segmented=True,
            time_step=0.5,
        ),
        inputs=x[:, :-1, None] / np.float32(10) if inputs else None,
    )
