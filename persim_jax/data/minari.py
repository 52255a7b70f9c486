"""Datasets from and for Minari (Younis et al., 2024), the offline data sets of Gymnasium's world.

An episode of Minari is one run of steps of an agent. Whose it is and what is known of the agent
stands in the episode's metadata: `agent_id`, `agent_name`, `covariates/NAME`, `first_row`.
Exogenous inputs are the `inputs` of its infos. What else we know of a dataset is the text
`persim_jax` of the dataset's metadata; in other people's datasets every episode is an agent.

Needs the extra `[minari]`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persim_jax.data.dataset import DatasetInfo, OfflineDataset, validate
from persim_jax.data.tables import DataError

KEY = "persim_jax"
_ID = re.compile(r"([\w-]+/)*[\w-]+-v\d+")


class _Run(NamedTuple):
    """One episode: consecutive steps of an agent.

    Attributes:
      agent: Row of the agent.
      first: Row of time where it begins.
      obs: `[S + 1, D]`.
      actions: `[S]` or `[S, A]`.
      rewards: `[S]`.
      terminated: `[S]`.
      inputs: `[S, I]`, or None.
    """

    agent: int
    first: int
    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    inputs: np.ndarray | None


def is_minari_id(text: str) -> bool:
    """Whether a text looks like the id of a Minari dataset: namespace/name-v0."""
    return _ID.fullmatch(text) is not None


def save_minari(dataset: OfflineDataset, dataset_id: str, root: Path | None = None) -> Path:
    """Writes a dataset in Minari's form, whole or not at all.

    Args:
      dataset: Valid, without lags.
      dataset_id: As Minari wants it: namespace/name-v0.
      root: Folder of Minari datasets; by default the one where Minari looks for them, so that
        `minari.load_dataset(dataset_id)` finds it.

    Returns:
      The folder for `minari.MinariDataset(folder)`.

    Raises:
      ValueError: The id is none, the dataset is not valid, or there is one of this id.
    """
    minari = _minari()
    from minari.dataset.minari_storage import MinariStorage
    from minari.storage.datasets_root_dir import get_dataset_path

    validate(dataset)
    if not is_minari_id(dataset_id):
        raise ValueError(f"{dataset_id!r} is no id of Minari: write it as namespace/name-v0")
    target = (get_dataset_path() if root is None else root) / dataset_id
    if target.exists():
        raise ValueError(f"{target} is there already: give another id, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    # A rename within a folder is atomic: a reader sees all of it or nothing.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    temporary.mkdir()
    try:
        storage = MinariStorage.new(
            temporary / "data",
            observation_space=_space(np.asarray(dataset.obs)),
            action_space=_action_space(dataset),
        )
        facts = {"info": dataclasses.asdict(dataset.info), "rows": np.shape(dataset.obs)[1]}
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "description": f"{dataset.info.environment}, {dataset.info.behavior} behavior",
                KEY: json.dumps(facts),
            }
        )
        runs = _runs(dataset)
        storage.update_episodes([_buffer(run) for run in runs])
        storage.update_episode_metadata([_metadata(dataset, run) for run in runs])
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target / "data"


def _minari() -> Any:
    try:
        import minari
    except ImportError as error:
        raise DataError(
            "Minari datasets need the package minari: pip install 'persim_jax[minari]'"
        ) from error
    return minari


def _space(values: np.ndarray) -> Any:
    from gymnasium import spaces

    return spaces.Box(-np.inf, np.inf, (values.shape[-1],), values.dtype.type)


def _action_space(dataset: OfflineDataset) -> Any:
    from gymnasium import spaces

    info = dataset.info
    return (
        spaces.Discrete(info.num_actions) if info.discrete else _space(np.asarray(dataset.actions))
    )


def _runs(dataset: OfflineDataset) -> list[_Run]:
    """Every run of steps, by agent and in order of time."""
    runs = []
    for agent, mask in enumerate(np.asarray(dataset.mask)):
        edges = np.diff(mask.astype(int), prepend=0, append=0)
        for first, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            part = lambda leaf: np.asarray(leaf)[agent, first:end]  # noqa: B023, E731
            runs.append(
                _Run(
                    agent=agent,
                    first=int(first),
                    obs=np.asarray(dataset.obs)[agent, first : end + 1],
                    actions=part(dataset.actions),
                    rewards=part(dataset.rewards),
                    terminated=part(dataset.terminated),
                    inputs=None if dataset.inputs is None else part(dataset.inputs),
                )
            )
    return runs


def _buffer(run: _Run) -> Any:
    from minari.data_collector import EpisodeBuffer

    truncated = np.zeros_like(run.terminated)
    truncated[-1] = not run.terminated[-1]
    return EpisodeBuffer(
        observations=run.obs,
        actions=run.actions,
        rewards=run.rewards,
        terminations=run.terminated,
        truncations=truncated,
        infos=None if run.inputs is None else {"inputs": run.inputs},
    )


def _metadata(dataset: OfflineDataset, run: _Run) -> dict[str, Any]:
    agent_id = int(np.asarray(dataset.agent_ids)[run.agent])
    values = np.asarray(dataset.covariates)[run.agent]
    covariates = zip(dataset.info.covariate_names, values, strict=True)
    return {
        "agent_id": agent_id,
        "agent_name": str(dataset.name_of(run.agent)),
        "first_row": run.first,
        **{f"covariates/{name}": value for name, value in covariates},
    }


def load_minari(source: str | Path) -> OfflineDataset:
    """Reads a Minari dataset that is on this machine.

    Args:
      source: Its folder, or its id if it is installed where Minari looks for it.

    Returns:
      What `save_minari` was given, except that a row between two gaps, which no transition holds,
      repeats the row before it. Of other datasets each episode is an agent, unless metadata of
      episodes have `agent_id`, and the covariates are those in `covariates/NAME`.

    Raises:
      FileNotFoundError: There is no such dataset.
      DataError: It is no Minari dataset, or its observations or actions are no vectors.
    """
    minari, path = _minari(), Path(source)
    if path.is_dir():
        folder = path if (path / "metadata.json").exists() else path / "data"
        if not (folder / "metadata.json").exists():
            raise DataError(
                f"{path} is no dataset: a folder must be one of Minari, with metadata.json in it "
                "or in its folder data; other data are given as a file"
            )
        data = minari.MinariDataset(folder)
    else:
        data = minari.load_dataset(str(source))
    metadata = list(data.storage.get_episode_metadata(range(data.total_episodes)))
    own = data.storage.metadata.get(KEY)
    facts = json.loads(own) if own else None
    runs, agents = _read_runs(data, metadata)
    info = DatasetInfo.from_json(facts["info"]) if facts else _guess(data, metadata, runs, agents)
    return _assemble(runs, agents, info, facts["rows"] if facts else None)


class _Agent(NamedTuple):
    """An agent as metadata tell of it."""

    agent_id: int
    covariates: dict[str, float]


def _read_runs(data: Any, metadata: list[dict]) -> tuple[list[_Run], list[_Agent]]:
    """Episodes as runs, and the agents in order of their first episodes."""
    rows: dict[int, int] = {}
    agents: list[_Agent] = []
    ends: list[int] = []
    runs = []
    start = _first_action(data)
    for facts, episode in zip(metadata, data.iterate_episodes(), strict=True):
        obs, actions = _vectors(episode.observations, "observations"), np.asarray(episode.actions)
        actions = actions - start if start else actions
        if actions.ndim > 2:
            raise DataError(
                f"actions have shape {actions.shape[1:]} at each step: give integers or vectors"
            )
        agent_id = int(facts.get("agent_id", episode.id))
        if agent_id not in rows:
            rows[agent_id] = len(agents)
            agents.append(_Agent(agent_id, facts.get("covariates", {})))
            ends.append(0)
        row = rows[agent_id]
        first = int(facts.get("first_row", ends[row]))
        ends[row] = first + len(obs)
        rewards, terminated = np.asarray(episode.rewards), np.asarray(episode.terminations)
        infos, inputs = episode.infos or {}, None
        if "inputs" in infos:
            # Those that a collector wrote begin with the reset's, which come before the first step.
            given = np.asarray(infos["inputs"])
            inputs = given.reshape(len(given), -1)[: len(rewards)]
        runs.append(_Run(row, first, obs, actions, rewards, terminated, inputs))
    return runs, agents


def _first_action(data: Any) -> int:
    """The number of a dataset's first discrete action, which need not be 0."""
    return int(getattr(data.action_space, "start", 0))


def _vectors(observations: Any, what: str) -> np.ndarray:
    """Observations `[S + 1, D]`; the parts of a dictionary are joined in their order."""
    if isinstance(observations, dict):
        parts = [_vectors(part, f"{what}/{name}") for name, part in observations.items()]
        return np.concatenate(parts, axis=-1)
    values = np.asarray(observations)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise DataError(
            f"{what} are {values.dtype} of shape {values.shape[1:]} at each step: vectors of "
            "floats are read"
        )
    return values


def _guess(data: Any, metadata: list[dict], runs: list[_Run], agents: list[_Agent]) -> DatasetInfo:
    """Facts of a dataset that somebody else wrote."""
    from gymnasium import spaces

    space, names = data.action_space, tuple(agents[0].covariates)
    for agent in agents:
        if set(agent.covariates) != set(names):
            raise DataError(
                f"covariates of agent {agent.agent_id} are {', '.join(agent.covariates) or 'none'},"
                f" those of agent {agents[0].agent_id} {', '.join(names) or 'none'}: give each "
                "agent's first episode the same ones"
            )
    discrete = isinstance(space, spaces.Discrete)
    width = int(space.n) if discrete else runs[0].actions.shape[-1]
    inputs, start = runs[0].inputs, _first_action(data)
    return DatasetInfo(
        environment=str(data.spec.dataset_id),
        behavior=str(data.storage.metadata.get("algorithm_name", "unknown")),
        obs_names=tuple(f"obs_{i}" for i in range(runs[0].obs.shape[1])),
        covariate_names=names,
        num_actions=width if discrete else 0,
        action_size=width,
        input_names=() if inputs is None else tuple(f"input_{i}" for i in range(inputs.shape[1])),
        action_names=tuple(str(start + i) for i in range(width)) if start else (),
        segmented=len(runs) > len(agents),
    )


def _assemble(
    runs: list[_Run], agents: list[_Agent], info: DatasetInfo, rows: int | None
) -> OfflineDataset:
    """Puts runs in their places of arrays `[N, T + 1, ...]`."""
    rows = rows or max(run.first + len(run.obs) for run in runs)
    count, steps = len(agents), rows - 1
    one = runs[0]
    # In the data's own precision, so that what single precision loses is noticed.
    precision = np.result_type(np.float32, *(run.obs.dtype for run in runs))
    obs = np.zeros((count, rows, one.obs.shape[1]), precision)
    ids = np.asarray([agent.agent_id for agent in agents], np.int64)
    small = np.array_equal(ids, ids.astype(np.int32))
    action_shape, kind = ((), np.int32) if info.discrete else (one.actions.shape[1:], np.float32)
    dataset = OfflineDataset(
        obs=obs,
        actions=np.zeros((count, steps, *action_shape), kind),
        rewards=np.zeros((count, steps), np.float32),
        terminated=np.zeros((count, steps), bool),
        mask=np.zeros((count, steps), bool),
        agent_ids=ids.astype(np.int32) if small else ids,
        covariates=np.asarray(
            [[agent.covariates[name] for name in info.covariate_names] for agent in agents],
            np.float32,
        ).reshape(count, len(info.covariate_names)),
        info=info,
        inputs=np.zeros((count, steps, info.num_inputs), np.float32) if info.num_inputs else None,
    )
    for run in runs:
        place = run.agent, slice(run.first, run.first + len(run.rewards))
        # Whatever comes after repeats the last observation, unless another run overwrites it.
        obs[run.agent, run.first : run.first + len(run.obs)] = run.obs
        obs[run.agent, run.first + len(run.obs) :] = run.obs[-1]
        dataset.mask[place] = True
        for name in ("actions", "rewards", "terminated"):
            getattr(dataset, name)[place] = getattr(run, name)
        if dataset.inputs is not None:
            dataset.inputs[place] = run.inputs
    validate(dataset)
    return dataset.replace(obs=obs.astype(np.float32, copy=False))
