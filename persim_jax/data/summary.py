"""What a dataset holds: a few words for people, a checksum for programs."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from persim_jax.data.dataset import OfflineDataset


def digest(dataset: OfflineDataset) -> str:
    """SHA-256 of all that a dataset holds, wherever it came from."""
    facts = dataclasses.asdict(dataset.info)
    # What a column was called is no part of the data.
    known = tuple(value for name, value in facts.items() if not name.endswith("_column"))
    total = hashlib.sha256(repr(known).encode())
    for name in ("obs", "actions", "inputs", "rewards", "mask", "agent_ids", "covariates"):
        values = getattr(dataset, name)
        total.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


def describe(dataset: OfflineDataset) -> list[str]:
    """What was read, in words, so that a mistake in the columns is seen."""
    info, lengths = dataset.info, dataset.lengths
    mask = np.asarray(dataset.mask)
    last = mask.shape[1] - np.argmax(mask[:, ::-1], axis=1)
    gaps = int((last - lengths).sum())
    kind = (
        f"one of {info.num_actions}: {', '.join(info.action_names)}"
        if info.discrete
        else f"continuous: {', '.join(info.action_names)}"
    )
    lines = [
        f"{dataset.num_agents} agents, {lengths.sum()} transitions, {lengths.min()} to "
        f"{lengths.max()} of each, {gaps} gaps in time",
        f"states: {', '.join(info.obs_names)}; action: {kind}",
    ]
    if info.input_names:
        lines.append(f"inputs, known and not predicted: {', '.join(info.input_names)}")
    if info.covariate_names:
        lines.append(f"covariates, not shown to the model: {', '.join(info.covariate_names)}")
    return lines
