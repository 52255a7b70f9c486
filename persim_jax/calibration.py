"""The rescaling that validation found, kept beside its verdict for the questions that follow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from persim_jax.files import CorruptFileError, write_json_atomically

FORMAT = "persim_jax.Calibration/1"


class Calibration(NamedTuple):
    """How wide intervals must be, in the model's own standard deviations.

    Attributes:
      levels: Nominal coverage, L of them.
      known: Half widths `[L, H, D]` for agents of the training data.
      unseen: Half widths `[L, H, D]` for newcomers.
    """

    levels: tuple[float, ...]
    known: np.ndarray
    unseen: np.ndarray

    def horizon(self, is_known: bool = True) -> int:
        """Steps that validation looked ahead, H: not as many for known agents and for newcomers."""
        return (self.known if is_known else self.unseen).shape[1]

    def widths(
        self, levels: tuple[float, ...], steps: int, is_known: bool = True
    ) -> np.ndarray | None:
        """Half widths `[levels, steps, D]`; past the horizon those of its last step.

        Returns:
          None where a level was not calibrated or validation found no width.
        """
        table = self.known if is_known else self.unseen
        if any(level not in self.levels for level in levels) or not table.shape[1]:
            return None
        rows = [self.levels.index(level) for level in levels]
        wide: np.ndarray = table[rows][:, np.minimum(np.arange(steps), table.shape[1] - 1)]
        return wide if np.isfinite(wide).all() else None


def save(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Writes a calibration as JSON; a width that there is not is null."""
    tables = {
        name: np.where(np.isfinite(table), table, None).tolist()  # type: ignore[call-overload]
        for name, table in (("known", calibration.known), ("unseen", calibration.unseen))
    }
    write_json_atomically(path, {"format": FORMAT, "levels": list(calibration.levels)} | tables)


def load(path: str | os.PathLike[str]) -> Calibration | None:
    """Reads what `save` wrote; None where there is no such file.

    Raises:
      CorruptFileError: It was cut short or altered.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']!r}")
        known, unseen = (np.asarray(stored[name], np.float64) for name in ("known", "unseen"))
        levels = tuple(float(level) for level in stored["levels"])
        if known.ndim != 3 or unseen.ndim != 3 or not len(known) == len(levels) == len(unseen):
            raise ValueError(f"widths of shapes {known.shape} and {unseen.shape}")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path} is no calibration, or a part of one ({error}): validate again"
        ) from error
    return Calibration(levels, known, unseen)
