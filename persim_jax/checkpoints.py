"""Checkpoints of training: everything a resumed run needs, behind one thin module over Orbax."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from persim_jax.files import write_json_atomically

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

    Raises:
      ValueError: There is a complete checkpoint of this or a later number.
    """
    newest = latest_step(directory)
    if newest is not None and newest >= step:
        raise ValueError(f"checkpoint {step} would be older than number {newest} in {directory}")
    _drop_incomplete(directory)
    with _manager(directory) as manager:
        manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    sidecar = {"sha256": _digest(directory / str(step)), "leaves": _describe(state)}
    write_json_atomically(directory / f"{step}.json", sidecar)


def latest_step(directory: Path) -> int | None:
    """Number of the newest complete checkpoint, or None.

    One without its sidecar was cut off while it was written and does not count.
    """
    return max(_complete_steps(directory), default=None)


def restore(directory: Path, step: int, like: State) -> State:
    """Reads checkpoint number `step`.

    Args:
      directory: As in `save`.
      step: As in `save`.
      like: A pytree of the same structure, shapes and types.

    Returns:
      The saved state.

    Raises:
      FileNotFoundError: There is no such checkpoint.
      CorruptCheckpointError: A file is truncated or altered, or the state has another structure.
    """
    folder = directory / str(step)
    content = (directory / f"{step}.json").read_bytes()
    try:
        sidecar: dict[str, Any] = json.loads(content)
        expected, stored = sidecar["sha256"], sidecar["leaves"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpointError(
            f"the sidecar of the checkpoint {folder} was altered or cut short ({error}). {_REMEDY}"
        ) from error
    if _digest(folder) != expected:
        raise CorruptCheckpointError(
            f"the checkpoint {folder} was altered or cut short: its SHA-256 is {_digest(folder)} "
            f"and was {expected} when it was written. {_REMEDY}"
        )
    # Orbax would cast what has another type and say little about the rest.
    wanted = _describe(like)
    if wanted != stored:
        path = min(p for p in wanted | stored if wanted.get(p) != stored.get(p))
        raise CorruptCheckpointError(
            f"the checkpoint {folder} holds another model than the config describes: {path} is "
            f"{stored.get(path, 'missing')} there and {wanted.get(path, 'missing')} here"
        )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _manager(directory) as manager:
        return manager.restore(step, args=ocp.args.StandardRestore(abstract))


_REMEDY = (
    "Delete the folder and run again: training goes on from the checkpoint before it, if there is "
    "one"
)


def _complete_steps(directory: Path) -> list[int]:
    """Numbers of the checkpoints that have both their folder and their sidecar."""
    sidecars = directory.glob("*.json") if directory.is_dir() else ()
    return [int(p.stem) for p in sidecars if (directory / p.stem).is_dir()]


def _drop_incomplete(directory: Path) -> None:
    """Removes folders and sidecars without the other.

    A folder that was cut off before its sidecar looks complete to Orbax, which would skip saving
    its number and every earlier one.
    """
    complete = {str(step) for step in _complete_steps(directory)}
    for path in directory.glob("*"):
        if path.stem.isdigit() and path.stem not in complete:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _describe(state: Any) -> dict[str, str]:
    """Type and shape of each leaf by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(path.relative_to(folder)).encode())
        total.update(path.read_bytes())
    return total.hexdigest()
