"""What a run shows while it works: stages and their times, training curves, checkpoints."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from tensorboardX import SummaryWriter

from experiments.workdir import LOG, Folder, Stopwatch
from persim_jax import checkpoints
from persim_jax.files import write_atomically
from persim_jax.methods import Monitor
from persim_jax.training import DivergedError, TrainConfig, TrainState

CHECKPOINT_SECONDS = 10.0
QUIET_SECONDS = 30.0
"""Least time between two lines about the same stage where there is no terminal."""


class Display:
    """Stages as they run: live on a terminal, as lines elsewhere.

    Attributes:
      console: Where to.
      num_stages: Stages that were run, the finished ones.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.num_stages = 0
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"), TextColumn("{task.description}"),
            BarColumn(bar_width=16), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints one line, however long it is."""
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def stage(
        self, workdir: Folder, name: str, total: int | None = None, goes_on: bool = False
    ) -> Iterator[Stage]:
        """Shows and times a stage.

        Args:
          workdir: Where its time is stored.
          name: Of the stage.
          total: Number of its steps, if it has any.
          goes_on: As in `Workdir.timed`.
        """
        with workdir.timed(name, goes_on) as watch:
            stage = Stage(self._progress, name, total, watch)
            yield stage
        stage.end()
        self.num_stages += 1
        if not self.console.is_terminal:
            note = f": {stage.note}" if stage.note else ""
            self.say(f"{name}{note} ({watch.seconds:.1f} s)")


class Stage:
    """A stage that is running.

    Attributes:
      watch: Its time.
      note: What is to be said of it now, at last what it came to.
    """

    def __init__(self, progress: Progress, name: str, total: int | None, watch: Stopwatch) -> None:
        self.watch, self.note = watch, ""
        self._progress, self._name, self._total = progress, name, total
        self._bar = progress.add_task(name.replace("_", " "), total=total, note="")
        self._said = time.perf_counter()

    def step(self, done: int, note: str) -> None:
        """Shows that `done` of the steps are done."""
        self.note = note
        self._progress.update(self._bar, completed=done, note=escape(note))
        now, console = time.perf_counter(), self._progress.console
        if not console.is_terminal and now - self._said >= QUIET_SECONDS:
            self._said = now
            count = f" {done}/{self._total}" if self._total else ""
            line = f"  {self._name}{count}: {note} ({self.watch.seconds:.0f} s)"
            console.print(escape(line), highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Stops the clock that is shown."""
        total = self._total or 1
        self._progress.update(self._bar, total=total, completed=total, note=escape(self.note))


@contextlib.contextmanager
def monitored_training(
    workdir: Path, config: TrainConfig, stage: Stage, checkpoint_seconds: float = CHECKPOINT_SECONDS
) -> Iterator[Monitor]:
    """A monitor that restores from checkpoints, logs every epoch and checkpoints now and then.

    Curves go to `metrics.jsonl` as `{"epoch", "loss": [M], "phase", "wall_s"}` and to TensorBoard.
    After a kill, lines of epochs that will be run again are dropped, so that the curve of a resumed
    run is that of an unbroken one; times go on from the last epoch that is kept.

    Args:
      workdir: The run's folder.
      config: How many epochs there will be.
      stage: What shows and times them.
      checkpoint_seconds: Least time between two checkpoints; the last epoch always has one, and so
        has the last good one of a training that diverges.

    Raises:
      DivergedError: As training raised it, with the path of the last good checkpoint.
    """
    curve, folder = workdir / "metrics.jsonl", workdir / "checkpoints"
    step = checkpoints.latest_step(folder)
    writer = SummaryWriter(str(workdir / "tensorboard"), purge_step=(step or 0) + 1)
    saved = time.perf_counter()
    good: TrainState | None = None

    def restore(state: TrainState) -> TrainState:
        if step is not None:
            state = checkpoints.restore(folder, step, state)
            LOG.info("training goes on from the checkpoint of epoch %d", step)
        stage.watch.before = _keep_epochs(curve, int(state.epoch))
        stage.step(int(state.epoch), f"from epoch {int(state.epoch)}")
        return state

    def on_epoch(state: TrainState, losses: jax.Array) -> None:
        nonlocal saved, good
        epoch, seconds, good = int(state.epoch), stage.watch.seconds, state
        values = np.asarray(losses, np.float64).tolist()
        phase = "adam" if epoch <= config.num_epochs else "polish"
        line = {"epoch": epoch, "loss": values, "phase": phase, "wall_s": seconds}
        with curve.open("a", encoding="utf8") as file:
            file.write(json.dumps(line) + "\n")
        writer.add_scalar("loss/mean", float(np.mean(values)), epoch)
        stage.step(epoch, f"epoch {epoch}, loss {np.mean(values):.3g}")
        if epoch == config.num_rounds or time.perf_counter() - saved >= checkpoint_seconds:
            checkpoints.save(folder, epoch, state)
            saved = time.perf_counter()

    try:
        yield Monitor(restore, on_epoch)
    except DivergedError as error:
        raise DivergedError(f"{error}. {_last_good(folder, good)}") from error
    finally:
        writer.close()


def _last_good(folder: Path, state: TrainState | None) -> str:
    """Says where the last good checkpoint is, written now where that of an earlier epoch was."""
    newest = checkpoints.latest_step(folder)
    if state is not None and int(state.epoch) > (newest or 0):
        newest = int(state.epoch)
        checkpoints.save(folder, newest, state)
    if newest is None:
        return "There is no checkpoint: no epoch ended well"
    return f"The last good checkpoint, of epoch {newest}, is {folder / str(newest)}"


def _keep_epochs(path: Path, last: int) -> float:
    """Drops the lines of epochs after `last`, and a line that a kill cut short.

    Returns:
      Seconds that the epochs that are kept had taken.
    """
    kept, seconds = [], 0.0
    for text in path.read_text("utf8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            line = json.loads(text)
            if line["epoch"] <= last:
                kept.append(text + "\n")
                seconds = float(line["wall_s"])
    write_atomically(path, "".join(kept).encode())
    return seconds
