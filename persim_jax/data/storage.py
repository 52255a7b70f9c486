"""Datasets on disk: `NAME.npz` with the arrays, `NAME.json` with everything about them.

Nothing is told by a file's name, nothing is pickled, and both files are checked when they are
read. The sidecar is written last, so that a dataset without one was never finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from persim_jax.data.dataset import DatasetInfo, OfflineDataset, validate
from persim_jax.files import CorruptFileError, write_atomically, write_json_atomically

FORMAT = "persim_jax.OfflineDataset/2"
READABLE = (FORMAT, "persim_jax.OfflineDataset/1")
"""The first version had neither inputs nor names of agents; it is read as it is."""

PathLike: TypeAlias = str | os.PathLike[str]

_ARRAYS = ("obs", "actions", "rewards", "terminated", "mask", "agent_ids", "covariates")
_REMEDY = "delete {0}.npz and {0}.json and run again whatever made them"


def dataset_paths(path: PathLike) -> tuple[Path, Path]:
    """Returns the files of a dataset: arrays and sidecar.

    Args:
      path: Folder and name, with or without the suffix of either file.
    """
    path = Path(path)
    if path.suffix in (".npz", ".json"):
        path = path.with_suffix("")
    # Not `with_suffix`, which would take the "5" of "random_0.5" for one.
    return path.with_name(f"{path.name}.npz"), path.with_name(f"{path.name}.json")


def save_dataset(path: PathLike, dataset: OfflineDataset, provenance: Mapping[str, Any]) -> None:
    """Writes a dataset, replacing one of the same name.

    Args:
      path: Folder and name without a suffix; missing folders are made.
      dataset: The data, on host or device.
      provenance: How the data came about, as values that JSON knows: config digest, seeds, code
        version.

    Raises:
      ValueError: The dataset is not valid (see `dataset.validate`).
      TypeError: The provenance is no JSON.
      OSError: The folder cannot be written to, or the disk is full.
    """
    validate(dataset)
    names = (*_ARRAYS, "inputs") if dataset.info.input_names else _ARRAYS
    arrays = {name: np.ascontiguousarray(getattr(dataset, name)) for name in names}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    data = buffer.getvalue()
    npz_path, json_path = dataset_paths(path)
    sidecar = {
        "format": FORMAT,
        "info": dataclasses.asdict(dataset.info),
        "agents": _describe_agents(dataset),
        "arrays": {name: _describe(array) for name, array in arrays.items()},
        "file": {"name": npz_path.name, "bytes": len(data), "sha256": _sha256(data)},
        "provenance": dict(provenance),
    }
    # As it will be read back, tuples as lists and numbers as keys; and before anything is written,
    # since provenance that is no JSON must not cost the old dataset.
    sidecar = json.loads(json.dumps(sidecar, allow_nan=False))
    sidecar["sidecar_sha256"] = _sidecar_sha256(sidecar)
    write_atomically(npz_path, data)
    write_json_atomically(json_path, sidecar)


def load_dataset(path: PathLike) -> OfflineDataset:
    """Reads a dataset, its arrays as numpy on the host.

    Args:
      path: As it was given to `save_dataset`; the suffix of either file may be there.

    Raises:
      FileNotFoundError: There is no dataset of this name.
      CorruptFileError: A file is missing, cut short or altered.
    """
    npz_path, _ = dataset_paths(path)
    sidecar = _read_sidecar(path)
    if not npz_path.exists():
        raise CorruptFileError(f"{npz_path} is missing although its sidecar is there; {_do(path)}.")
    data = npz_path.read_bytes()
    stored = sidecar["file"]
    if _sha256(data) != stored["sha256"]:
        raise CorruptFileError(
            f"{npz_path} is not the file that was written: it has {len(data)} of "
            f"{stored['bytes']} bytes and its SHA-256 is {_sha256(data)}, but the sidecar says "
            f"{stored['sha256']}; {_do(path)}."
        )
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in sidecar["arrays"]}
    for name, array in arrays.items():
        if _describe(array) != sidecar["arrays"][name]:
            raise CorruptFileError(
                f"{name} in {npz_path} is {_describe(array)}, but the sidecar says "
                f"{sidecar['arrays'][name]}; {_do(path)}."
            )
    return OfflineDataset(info=DatasetInfo.from_json(sidecar["info"]), **arrays)


def load_provenance(path: PathLike) -> dict[str, Any]:
    """Returns how a dataset came about, without reading its arrays.

    Raises:
      FileNotFoundError: There is no dataset of this name.
      CorruptFileError: The sidecar is missing, cut short or altered.
    """
    provenance: dict[str, Any] = _read_sidecar(path)["provenance"]
    return provenance


def _read_sidecar(path: PathLike) -> dict[str, Any]:
    """Returns the sidecar of a dataset after checking it against its own checksum."""
    npz_path, json_path = dataset_paths(path)
    if not json_path.exists():
        if npz_path.exists():
            raise CorruptFileError(
                f"{json_path}, the sidecar of {npz_path}, is missing, so that nothing can be "
                f"checked; {_do(path)}."
            )
        raise FileNotFoundError(f"there is no dataset {json_path}; make it first.")
    try:
        sidecar = json.loads(json_path.read_bytes())
        stored = sidecar.pop("sidecar_sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{json_path} is no sidecar of a dataset, or a part of one ({error}); {_do(path)}."
        ) from error
    if stored != _sidecar_sha256(sidecar):
        raise CorruptFileError(
            f"{json_path} was altered: the SHA-256 of its content is {_sidecar_sha256(sidecar)}, "
            f"but it says {stored} itself; {_do(path)}."
        )
    if sidecar["format"] not in READABLE:
        raise ValueError(
            f"{json_path} has the format {sidecar['format']!r}; this version reads {FORMAT!r}, so "
            "make the dataset again."
        )
    return dict(sidecar)


def _do(path: PathLike) -> str:
    """Returns what to do about a dataset that cannot be trusted."""
    return _REMEDY.format(dataset_paths(path)[0].with_suffix(""))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sidecar_sha256(sidecar: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a sidecar's content, whatever its layout as text."""
    return _sha256(json.dumps(sidecar, sort_keys=True).encode())


def _describe(array: np.ndarray) -> dict[str, Any]:
    """Returns shape, dtype and SHA-256 of an array, which unlike the file's has no times in it."""
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "sha256": _sha256(array.tobytes()),
    }


def _describe_agents(dataset: OfflineDataset) -> dict[str, Any]:
    """Returns ids and covariates once more as text, for people and for other languages."""
    names, rows = dataset.info.covariate_names, range(dataset.num_agents)
    # Through the shortest text of each value, or a float32 of 0.0025 would read 0.00249999994.
    covariates = [[float(str(x)) for x in row] for row in np.asarray(dataset.covariates)]
    return {
        str(dataset.name_of(row)): dict(zip(names, values, strict=True))
        for row, values in zip(rows, covariates, strict=True)
    }
