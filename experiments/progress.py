"""What training shows while it runs: a progress bar, JSON lines, TensorBoard, checkpoints."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from experiments.workdir import LOG
from persim_jax import checkpoints
from persim_jax.methods import Monitor
from persim_jax.training import TrainConfig, TrainState


@contextlib.contextmanager
def monitored_training(
    workdir: Path, config: TrainConfig, console: Console, checkpoint_seconds: float = 10.0
) -> Iterator[Monitor]:
    """A monitor that restores from checkpoints, logs every epoch and checkpoints now and then.

    Curves go to `metrics.jsonl` as `{"epoch", "loss": [M], "phase", "wall_s"}` and to TensorBoard.
    After a kill, lines of epochs that will be run again are dropped, so that the curve of a resumed
    run is that of an unbroken one.

    Args:
      workdir: The run's folder.
      config: How many epochs there will be.
      console: Where the bar is drawn; plain when it is no terminal.
      checkpoint_seconds: Least time between two checkpoints; the last epoch always has one.
    """
    curve, folder = workdir / "metrics.jsonl", workdir / "checkpoints"
    writer = SummaryWriter(str(workdir / "tensorboard"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    bar = progress.add_task("training", total=config.num_rounds, loss="")
    started = saved = time.perf_counter()

    def restore(state: TrainState) -> TrainState:
        step = checkpoints.latest_step(folder)
        if step is not None:
            state = checkpoints.restore(folder, step, state)
            LOG.info("training goes on from the checkpoint of epoch %d", step)
        _keep_epochs(curve, int(state.epoch))
        progress.update(bar, completed=int(state.epoch))
        return state

    def on_epoch(state: TrainState, losses: jax.Array) -> None:
        nonlocal saved
        epoch, now = int(state.epoch), time.perf_counter()
        values = np.asarray(losses, np.float64).tolist()
        phase = "adam" if epoch <= config.num_epochs else "polish"
        line = {"epoch": epoch, "loss": values, "phase": phase, "wall_s": now - started}
        with curve.open("a", encoding="utf8") as file:
            file.write(json.dumps(line) + "\n")
        writer.add_scalar("loss/mean", float(np.mean(values)), epoch)
        progress.update(bar, completed=epoch, loss=f"loss {np.mean(values):.3g}")
        if epoch == config.num_rounds or now - saved >= checkpoint_seconds:
            checkpoints.save(folder, epoch, state)
            saved = now

    try:
        with progress:
            yield Monitor(restore, on_epoch)
    finally:
        writer.close()


def _keep_epochs(path: Path, last: int) -> None:
    """Drops the lines of epochs after `last`, and a line that a kill cut short."""
    kept = []
    for line in path.read_text("utf8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            if json.loads(line)["epoch"] <= last:
                kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf8")
