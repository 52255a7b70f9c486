"""Data from wherever users have them: our own files, a table, or a Minari dataset."""

from __future__ import annotations

from pathlib import Path

from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.from_table import load_table
from persim_jax.data.minari import is_minari_id, load_minari
from persim_jax.data.storage import dataset_paths, load_dataset
from persim_jax.data.tables import Columns, DataError

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


def load_source(
    source: str, columns: Columns, action_kind: str = "auto", time_step: float | None = None
) -> OfflineDataset:
    """Reads a dataset by what its name or content says that it is.

    Args:
      source: Path of a table (`.csv`, `.tsv`, `.txt`, `.parquet`, `.pq`); of a dataset as
        `save_dataset` wrote it, with or without a suffix; of the folder of a Minari dataset; or the
        id of an installed Minari dataset, such as D4RL/door/human-v2.
      columns: Which column of a table is what.
      action_kind: Of a table, see `from_table`.
      time_step: Of a table, see `from_table`.

    Raises:
      FileNotFoundError: There is no such file, folder or installed dataset.
      ValueError: It is no dataset, or one that cannot be used; says why.
    """
    path = Path(source)
    if path.suffix.lower() in TABLES:
        return load_table(path, columns, action_kind, time_step)
    if path.is_dir() or (is_minari_id(source) and not path.exists()):
        return load_minari(source)
    arrays, sidecar = dataset_paths(path)
    if arrays.exists() or sidecar.exists():
        return load_dataset(path)
    if path.exists():
        raise DataError(
            f"{path} is no dataset: give a table ({', '.join(TABLES)}), the .npz of a dataset, or "
            "the folder or id of a Minari dataset"
        )
    raise FileNotFoundError(f"there is no file or folder {path}")
