"""Checkpoints of training: everything a resumed run needs, behind one thin module over Orbax."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp

State = TypeVar("State")


class CorruptCheckpointError(ValueError):
    """A checkpoint cannot be read back as it was written."""


def _manager(directory: Path) -> ocp.CheckpointManager:
    # Orbax tells of every save at level INFO through absl.
    logging.getLogger("absl").setLevel(logging.WARNING)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(directory: Path, step: int, state: State) -> None:
    """Writes `state` as checkpoint number `step`; the last two are kept.

    Args:
      directory: Made if missing.
      step: Larger than every earlier one.
      state: Any pytree of arrays; typed keys are kept as such.
    """
    with _manager(directory) as manager:
        manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    folder = directory / str(step)
    (directory / f"{step}.sha256").write_text(_digest(folder))


def latest_step(directory: Path) -> int | None:
    """Number of the newest complete checkpoint, or None.

    One without its checksum was cut off while it was written and does not count.
    """
    if not directory.is_dir():
        return None
    steps = [int(p.stem) for p in directory.glob("*.sha256") if (directory / p.stem).is_dir()]
    return max(steps, default=None)


def restore(directory: Path, step: int, like: State) -> State:
    """Reads checkpoint number `step`.

    Args:
      directory: As in `save`.
      step: As in `save`.
      like: A pytree of the same structure, shapes and types.

    Returns:
      The saved state.

    Raises:
      CorruptCheckpointError: A file is truncated or altered, or the state has another structure.
    """
    folder = directory / str(step)
    expected = (directory / f"{step}.sha256").read_text().strip()
    if _digest(folder) != expected:
        raise CorruptCheckpointError(
            f"the checkpoint {folder} was altered or cut short: its SHA-256 is {_digest(folder)} "
            f"and was {expected} when it was written. Delete the folder and run again: training "
            "goes on from the checkpoint before it"
        )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with _manager(directory) as manager:
            return manager.restore(step, args=ocp.args.StandardRestore(abstract))
    except (ValueError, KeyError) as error:
        raise CorruptCheckpointError(
            f"the checkpoint {folder} holds another model than the config describes: {error}"
        ) from error


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(path.relative_to(folder)).encode())
        total.update(path.read_bytes())
    return total.hexdigest()
