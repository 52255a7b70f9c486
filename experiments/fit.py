r"""Personalized simulators from your own data, with nothing to tune.

    python -m experiments.fit --data=clinic.csv --workdir=runs/clinic
    python -m experiments.fit --data=clinic.csv --workdir=runs/clinic --agent_column=patient \
        --time_column=hour --state_columns=glucose --action_columns=insulin --lags=4

DATA is a table (.csv, .tsv, .txt, or .parquet with the extra [tables]), a dataset of ours (.npz),
or the folder or id of a Minari dataset (extra [minari]). A table has a row for each moment of each
agent. Which column is what is told by flags or by this rule: `agent` and `time`; states are called
`state` or `state_*`, actions `action` or `action_*`, inputs (known, not predicted, such as meals)
`input` or `input_*`, constants of an agent `covariate` or `covariate_*`, the reward `reward`. Times
are numbers or dates; between rows more than 1.5 usual steps apart is a gap, which nothing crosses.

Text is a discrete action, and so is one column of few whole numbers; other actions are continuous.
Widths, batches and epochs follow from the size of the data. Rank and penalty are chosen by how well
each candidate predicts the last fifth of all trajectories, and so are lags with --lags=auto. Every
choice is printed and stored in `choices.json`. Started again on the same workdir it goes on where
it stopped. Writes `dataset/`, `choices.json`, `simulators/`, `metrics.jsonl`, `checkpoints/`.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from rich.console import Console

from experiments import run as launcher
from experiments.errors import one_line_each
from experiments.progress import CHECKPOINT_SECONDS, Display, monitored_training
from experiments.stamps import environment_stamp, jsonable
from experiments.workdir import Folder, locked, read_json
from persim_jax import choices as choices_lib
from persim_jax.choices import Asked, Choices, Run, Trial
from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.from_table import ACTION_KINDS
from persim_jax.data.lags import with_lags
from persim_jax.data.sources import load_source
from persim_jax.data.storage import dataset_paths, load_dataset, save_dataset
from persim_jax.data.summary import describe, digest
from persim_jax.data.tables import Columns
from persim_jax.files import write_json_atomically
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.validation.verdicts import counted

FLAGS = flags.FLAGS
FORMAT = "persim_jax.Choices/1"


def fit(
    data: str,
    workdir: str | Path,
    columns: Columns | None = None,
    asked: Asked | None = None,
    seed: int = 0,
    action_kind: str = "auto",
    time_step: float | None = None,
    console: Console | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> PersonalizedSimulators:
    """Reads data, chooses sizes, fits, and stores all of it; what is done already is kept.

    Args:
      data: Path or id, see `load_source`. It is not changed.
      workdir: Made if missing.
      columns: Which column of a table is what.
      asked: Candidates of what is chosen.
      seed: Of all that is random.
      action_kind: See `from_table`.
      time_step: See `from_table`.
      console: Where progress is shown.
      checkpoint_seconds: Least time between two checkpoints of training.

    Raises:
      ValueError: The data cannot be used, or the workdir was made from other data or with other
        settings; says which.
      FileNotFoundError: There are no such data.
      DivergedError: Training left the finite numbers.
    """
    asked = asked or Asked()
    dataset = load_source(data, columns or Columns(), action_kind, time_step)
    # Before the folder is made: lags that no record allows must not keep it from other ones.
    with_lags(dataset, min(asked.lags))
    config = {
        "data_sha256": digest(dataset),
        "lags": asked.lags,
        "ranks": asked.ranks,
        "penalties": asked.penalties,
        "seed": seed,
    }
    # As runs and validation do: some accelerators would round products of float32.
    with (
        jax.default_matmul_precision("highest"),
        Display(console or Console()) as display,
        locked(workdir) as path,
    ):
        folder = Folder(path)
        folder.keep_config(jsonable(config))
        write_json_atomically(path / "environment.json", jsonable(environment_stamp()))
        if not dataset_paths(path / "dataset" / "dataset")[1].exists():
            save_dataset(path / "dataset" / "dataset", dataset, {"source": str(data)})
        for line in describe(dataset):
            display.say(line)
        choices = _chosen(folder, dataset, asked, seed, display)
        return _fitted(folder, dataset, choices, display, checkpoint_seconds)


def read_fit(workdir: str | Path) -> tuple[OfflineDataset, Choices]:
    """The data of a workdir, without lags, and the choices that were made for them.

    Raises:
      FileNotFoundError: Nothing was fitted there.
      ValueError: A file was cut short or altered, or is of another version.
    """
    path = Path(workdir) / "choices.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{workdir} holds no choices: make it with python -m experiments.fit first"
        )
    stored = read_json(path)
    if stored.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the format {stored.get('format')!r}: this version reads {FORMAT!r}, fit "
            "again"
        )
    dataset = load_dataset(Path(workdir) / "dataset" / "dataset")
    return dataset, Choices.from_json(stored["choices"])


def _chosen(
    folder: Folder, dataset: OfflineDataset, asked: Asked, seed: int, display: Display
) -> Choices:
    """The stored choices, or new ones; trials that were done are not done again."""
    path = folder.path / "choices.json"
    if path.exists():
        choices = read_fit(folder.path)[1]
        display.say(f"chosen before: {_words(choices)}")
        return choices
    with display.stage(folder, "choose") as stage:
        choices, trials = choices_lib.choose(dataset, asked, seed, _remembered(folder, stage.step))
        stage.note = _words(choices)
    stored = {
        "format": FORMAT,
        "choices": dataclasses.asdict(choices),
        "trials": [trial._asdict() | {"by_agent": len(trial.by_agent)} for trial in trials],
    }
    write_json_atomically(path, jsonable(stored))
    return choices


def _remembered(folder: Folder, tell: Callable[[int, str], None]) -> Run:
    """Runs trials, or takes them from `trials.json` where an earlier process ran them."""
    path = folder.path / "trials.json"
    done = read_json(path)

    def run(candidate: Choices, trial: Callable[[], list[Trial]]) -> list[Trial]:
        key = f"{counted(candidate.lags, 'lag')}, penalty {candidate.agent_penalty:g}"
        if key not in done:
            done[key] = jsonable([found._asdict() for found in trial()])
            write_json_atomically(path, done)
        trials = [Trial(**one | {"by_agent": tuple(one["by_agent"])}) for one in done[key]]
        best = min(trials, key=lambda found: found.error)
        tell(len(done), f"{key}: error {best.error:.3f} at rank {best.rank}")
        return trials

    return run


def _words(choices: Choices) -> str:
    return (
        f"{counted(choices.lags, 'lag')}, rank {choices.rank}, penalty {choices.agent_penalty:g}, "
        f"layers of {choices.state_features}, {choices.ensemble_size} members, "
        f"{choices.num_epochs} epochs "
        f"of batches of {choices.batch_size}"
    )


def _fitted(
    folder: Folder,
    dataset: OfflineDataset,
    choices: Choices,
    display: Display,
    checkpoint_seconds: float,
) -> PersonalizedSimulators:
    """The stored simulators, or new ones."""
    path = folder.path / "simulators"
    if (path / "simulators.json").exists():
        display.say(f"fitted before: {path}")
        return PersonalizedSimulators.load(path)
    train = choices.config().train
    begun = (folder.path / "checkpoints").exists()
    with (
        display.stage(folder, "fit", train.num_rounds, goes_on=begun) as stage,
        monitored_training(folder.path, train, stage, checkpoint_seconds) as monitor,
    ):
        simulators = choices_lib.fit_with(dataset, choices, monitor=monitor)
    simulators.save(path)
    display.say(f"simulators: {path}")
    return simulators


def columns_of(values: Any) -> Columns:
    """Columns as the flags name them."""
    group = lambda names: None if names is None else tuple(names)  # noqa: E731
    return Columns(
        values.agent_column, values.time_column, group(values.state_columns),
        group(values.action_columns), group(values.input_columns),
        group(values.covariate_columns), values.reward_column,
    )  # fmt: skip


def asked_of(values: Any) -> Asked:
    """Candidates as the flags name them.

    Raises:
      ValueError: One is no number, or out of range.
    """
    try:
        lags = (
            choices_lib.TRIED_LAGS if values.lags == "auto" else _integers(values.lags.split(","))
        )
        return Asked(lags, _integers(values.ranks), _penalties(values.penalties))
    except ValueError as error:
        raise ValueError(
            f"--lags, --ranks and --penalties are positive numbers with commas between them, or "
            f"--lags=auto: {error}"
        ) from error


def _penalties(texts: Sequence[str]) -> tuple[float, ...]:
    numbers = tuple(float(text) for text in texts)
    # One below zero would reward factors for growing without end.
    if not numbers or not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"{','.join(texts)} is not positive")
    return numbers


def _integers(texts: Sequence[str]) -> tuple[int, ...]:
    numbers = tuple(int(text) for text in texts)
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{','.join(texts)} is not positive")
    return numbers


def main(argv: Sequence[str]) -> None:
    """Fits with the flags as parsed."""
    del argv
    launcher.set_up_jax(True, FLAGS.compile_cache)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    with one_line_each():
        fit(
            FLAGS.data, FLAGS.workdir, columns_of(FLAGS), asked_of(FLAGS), FLAGS.seed,
            FLAGS.action_kind, FLAGS.time_step, console, FLAGS.checkpoint_seconds,
        )  # fmt: skip


def _define_flags() -> None:
    flags.DEFINE_string(
        "data", None, "Table, dataset of ours, or Minari dataset, see above.", required=True
    )
    flags.DEFINE_string(
        "workdir", None, "Folder for all that is made, itself made if missing.", required=True
    )
    flags.DEFINE_string("agent_column", "agent", "Of a table: whose row it is.")
    flags.DEFINE_string(
        "time_column", "time", "Of a table: when; numbers, or dates as in ISO 8601."
    )
    flags.DEFINE_list("state_columns", None, "What is predicted; by default state and state_*.")
    flags.DEFINE_list(
        "action_columns", None, "What was done until the next row; action and action_*."
    )
    flags.DEFINE_list(
        "input_columns", None, "What acted besides, known and not predicted; input and input_*."
    )
    flags.DEFINE_list(
        "covariate_columns", None, "Constants of an agent; covariate and covariate_*."
    )
    flags.DEFINE_string(
        "reward_column", None, "What a step earned; by default reward, if there is one."
    )
    flags.DEFINE_enum("action_kind", "auto", ACTION_KINDS, "Whether an action is one of a few.")
    flags.DEFINE_float(
        "time_step", None, "Usual time between rows, in seconds for dates; the median by default.",
        lower_bound=0.0,
    )  # fmt: skip
    flags.DEFINE_string(
        "lags", "1", "How many of the last observations, with the actions between them, the model "
        "sees: more than 1 where states are partly hidden. Several with commas, or auto: tried.",
    )  # fmt: skip
    flags.DEFINE_list(
        "ranks", [str(rank) for rank in choices_lib.RANKS], "Numbers of factors to try."
    )
    flags.DEFINE_list(
        "penalties", [str(p) for p in choices_lib.PENALTIES], "Penalties on what is an agent's own."
    )
    flags.DEFINE_integer("seed", 0, "Of all that is random.", lower_bound=0)
    flags.DEFINE_float(
        "checkpoint_seconds", CHECKPOINT_SECONDS, "Least time between two checkpoints.",
        lower_bound=0.0,
    )  # fmt: skip
    flags.DEFINE_string(
        "compile_cache", None, "Folder for compiled programs: the next fit then starts faster."
    )


if __name__ == "__main__":
    _define_flags()
    app.run(main)
