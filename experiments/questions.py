"""What the launchers `query` and `plan` share: simulators, and questions to them in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import cli
from persim_jax.data.info import DatasetInfo, level_index
from persim_jax.data.lags import Recent, with_lags
from persim_jax.data.storage import dataset_paths, load_dataset
from persim_jax.data.table_rows import labels_of, sort_rows
from persim_jax.data.tables import Columns, DataError, about_comma, numbers, read_table
from persim_jax.models.reward import learn_reward
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import RewardFn

TIME = "time"
"""What the column of times is called unless a user says otherwise to `experiments.fit`."""
LEARNED = "learned"
"""The reward that is no function of the user's but learned from the data."""


class Schedule(NamedTuple):
    """What a file says of the steps ahead.

    Attributes:
      actions: `[T]` int or `[T, A]`; None where they were not asked for.
      inputs: `[T, I]`; None for simulators without exogenous inputs.
    """

    actions: np.ndarray | None
    inputs: np.ndarray | None


def open_simulators(workdir: str | Path) -> PersonalizedSimulators:
    """The simulators that `experiments.fit` left in a folder.

    Raises:
      FileNotFoundError: There are none.
      ValueError: They were cut short or altered, or are of another version.
    """
    folder = Path(workdir) / "simulators"
    if not (folder / "simulators.json").exists():
        raise FileNotFoundError(
            f"there are no simulators in {workdir}: fit some first, python -m experiments.fit "
            f"--data=FILE --workdir={workdir}"
        )
    return PersonalizedSimulators.load(folder)


def read_schedule(
    path: str | Path, simulators: PersonalizedSimulators, with_actions: bool
) -> Schedule:
    """Reads the steps ahead from a table with a row for each; other columns are left alone.

    Inputs and continuous actions stand in columns of their names. Discrete actions stand by their
    names in the column that the data had for them, in `action`, or in the only one whose name
    begins so.

    Args:
      path: CSV or Parquet.
      simulators: Whose.
      with_actions: Whether actions are read, too.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: A column is missing, or a cell is no number or no action; says which.
    """
    return _schedule(path, read_table(Path(path)), simulators, with_actions)


def _schedule(
    path: str | Path,
    table: dict[str, np.ndarray],
    simulators: PersonalizedSimulators,
    with_actions: bool,
) -> Schedule:
    config, info = simulators.config, simulators.info
    inputs = actions = None
    if config.num_inputs:
        names = info.input_names if info else tuple(f"input_{i}" for i in range(config.num_inputs))
        inputs = _columns(path, table, names, "inputs")
    if with_actions and config.discrete:
        levels = info.action_names if info else ()
        levels = levels or tuple(str(i) for i in range(config.action_size))
        actions = _levels(path, table, levels, info)
    elif with_actions:
        names = info.action_names if info else ()
        names = names or tuple(f"action_{i}" for i in range(config.action_size))
        actions = _columns(path, table, names, "actions")
    return Schedule(actions, inputs)


def _columns(
    path: str | Path, table: dict[str, np.ndarray], names: Sequence[str], what: str
) -> np.ndarray:
    """Columns of numbers, `[T, K]`."""
    found = []
    for name in names:
        if name not in table:
            raise ValueError(
                f"{path} has no column {name!r}: the {what} of these simulators are "
                f"{', '.join(names)}, and the file has {', '.join(table)}"
            )
        values, _ = numbers(table[name])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            cell = str(table[name][bad[0]])
            raise ValueError(
                f"row {bad[0] + 1} of {path}, column {name!r}: {cell!r} is no finite number"
                f"{about_comma(cell)} ({len(bad)} such cells): give one for each step"
            )
        found.append(values)
    return np.stack(found, axis=-1).astype(np.float32)


def _levels(
    path: str | Path,
    table: dict[str, np.ndarray],
    levels: Sequence[str],
    info: DatasetInfo | None,
) -> np.ndarray:
    """A column of discrete actions as integers, `[T]`."""
    own = info.action_column if info else ""
    columns = [name for name in (own, "action") if name in table][:1]
    columns = columns or [name for name in table if name.startswith("action")]
    if len(columns) != 1:
        raise ValueError(
            f"{path} has {len(columns)} columns whose name begins with action: it needs one, "
            f"{own or 'action'!r}; it has {', '.join(table)}"
        )
    cells = table[columns[0]].tolist()
    found = [level_index(levels, cell) for cell in cells]
    if None in found:
        row = found.index(None)
        raise ValueError(
            f"row {row + 1} of {path}, column {columns[0]!r}: no agent ever took the action "
            f"{str(cells[row]).strip()!r}; the data know {', '.join(levels)}"
        )
    return np.asarray(found, np.int32)


def read_state(
    text: str | None, simulators: PersonalizedSimulators, agent: str | int | None = None
) -> Any:
    """A state from a command line: numbers, or a table whose last rows are the agent's history.

    Args:
      text: "a,b,c", the coordinates; or the path of a table with a row for each moment in order of
        time, in the columns of the data; a column `time` is checked. A model with lags needs such
        a table, with actions and inputs (those of the last row are not used). Where it has the
        data's column of agents, rows of other agents are left out. None stays None: where the agent
        was last seen.
      simulators: Whose.
      agent: Id or name of the agent.

    Returns:
      What `PersonalizedSimulators.query` takes as `obs`.

    Raises:
      FileNotFoundError: It is neither numbers nor a file.
      ValueError: There are too few or odd numbers, a column is missing, no row is the agent's, or
        its rows go back in time or leave a gap where the model looks.
    """
    if text is None:
        return None
    config, info = simulators.config, simulators.info
    names = info.target_names if info else tuple(f"obs_{i}" for i in range(config.target_size))
    try:
        flat = np.asarray([float(part) for part in text.split(",")], np.float32)
    except ValueError:
        table = _rows_of(text, read_table(Path(text)), info, agent)
        rows = _columns(text, table, names, "states")
        _check_times(text, table, config.lags, info.time_step if info else 0.0)
        if config.lags == 1:
            return rows[-1]
        table = {name: cells[:-1] for name, cells in table.items()}
        past = _schedule(text, table, simulators, with_actions=True)
        return Recent(rows, np.asarray(past.actions), past.inputs)
    if config.lags > 1:
        raise ValueError(
            f"--state is {text}: these simulators look at the last {config.lags} moments and at "
            "what was done in between; give a table of them, with the columns of the data"
        )
    if flat.size != len(names):
        raise ValueError(f"--state has {flat.size} numbers: a state is {', '.join(names)}")
    return flat


def _check_times(path: str, table: dict[str, np.ndarray], lags: int, step: float) -> None:
    """Refuses rows, where they say when they were, that are no last moments in order of time."""
    if TIME not in table or len(table[TIME]) < 2:
        return
    rows = {"agent": np.full(len(table[TIME]), "of the state"), TIME: table[TIME]}
    try:
        passed = np.diff(sort_rows(rows, Columns()).time)[1 - lags :]
    except DataError as error:
        raise ValueError(f"{path}: {error}") from error
    if lags > 1 and step and np.any((passed < 0.5 * step) | (passed > 1.5 * step)):
        raise ValueError(
            f"the last {lags} rows of {path} are {', '.join(f'{x:g}' for x in passed)} apart, but "
            f"the data have a row every {step:g}: give the last moments without a gap"
        )


def _rows_of(
    path: str, table: dict[str, np.ndarray], info: DatasetInfo | None, agent: str | int | None
) -> dict[str, np.ndarray]:
    """The rows of one agent, where a table says whose they are."""
    column = (info.agent_column if info else "") or "agent"
    if agent is None or column not in table:
        return table
    own = labels_of(table[column]) == str(agent)
    if not own.any():
        raise ValueError(
            f"{path} has no row of agent {agent} in its column {column!r}: give the last moments "
            "of this agent, or leave that column out"
        )
    return {name: cells[own] for name, cells in table.items()}


def reward_of(
    reference: str, workdir: str | Path, simulators: PersonalizedSimulators
) -> tuple[RewardFn, list[str]]:
    """A reward by name, or one that is learned from the data of a workdir.

    Returns:
      The reward, and what to know before relying on it.

    Raises:
      FileNotFoundError: It is to be learned and the data are not there.
      ValueError: It cannot be imported or learned; says why.
    """
    if reference != LEARNED:
        return cli.load_function(reference), []
    path = Path(workdir) / "dataset" / "dataset"
    if not dataset_paths(path)[1].exists():
        raise FileNotFoundError(
            f"there are no data in {workdir} to learn a reward from: give --reward=module:function"
        )
    data = with_lags(load_dataset(path), simulators.config.lags)
    reward = learn_reward(jax.random.key(0), data)
    return reward, [str(reward)]


def trusted_steps(workdir: str | Path, agent: str | int, asked: int) -> tuple[int | None, str]:
    """Up to how many steps validation trusts an agent's simulator, and what to say about it.

    Args:
      workdir: Where validation left its verdict, if it was asked.
      agent: Id or name.
      asked: Steps that a question looks ahead.

    Returns:
      Steps, or None where nothing is known; and a sentence, empty where all steps are trusted.
    """
    path = Path(workdir) / "verdict.json"
    if not path.exists():
        return None, (
            f"nobody has checked these simulators: python -m experiments.validate "
            f"--workdir={workdir} does"
        )
    agents = json.loads(path.read_text(encoding="utf8"))["agents"]
    found = agents.get(str(agent))
    if found is None:
        return None, f"the verdict in {path} does not speak of agent {agent}"
    steps = int(found["steps"])
    if found["verdict"] == "trust":
        # Trust is in what could be tested, which a short record bounds.
        return steps, (
            f"validation could test the simulator of agent {agent} for {steps} steps, no longer: "
            "nobody has checked later ones"
            if asked > steps
            else ""
        )
    if found["verdict"] == "do_not_trust":
        page = path.with_name("validation.html")
        return 0, f"validation says not to trust the simulator of agent {agent}: {page} says why"
    return steps, f"validation trusts the simulator of agent {agent} for {steps} steps, no longer"


def action_cells(
    simulators: PersonalizedSimulators, actions: np.ndarray
) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the actions `[T]` or `[T, A]` as the data name them."""
    info, config = simulators.info, simulators.config
    names = list(info.action_names) if info else []
    actions = np.asarray(actions)
    if config.discrete:
        return [(info.action_column if info else "") or "action"], [
            [names[a] if names else int(a)] for a in actions.tolist()
        ]
    names = names or [f"action_{i}" for i in range(config.action_size)]
    return names, [[float(x) for x in row] for row in actions]


def agent_of(simulators: PersonalizedSimulators, text: str) -> str | int:
    """An agent's name, or its id where agents have none.

    Raises:
      KeyError: There is no such agent.
    """
    row = simulators.row_of(text)
    names = simulators.agent_names
    return names[row] if names else int(np.asarray(simulators.agent_ids)[row])
