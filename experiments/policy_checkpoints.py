"""Checkpoints of a policy training, in a folder that says which training they belong to."""

from __future__ import annotations

import json
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

from experiments.stamps import jsonable
from persim_jax import checkpoints
from persim_jax.files import write_json_atomically
from persim_jax.learners.online import OnlineState

TRAINING = "training.json"


class PolicyCheckpoints:
    """Saves and restores an online training, so that after a kill it ends as an unbroken one.

    The folder has the checkpoints and `training.json`: `settings`, what is trained and how, and
    `seconds`, which the steps up to each checkpoint took.

    Attributes:
      folder: Where.
      seconds_before: What the steps before this process took.
    """

    def __init__(
        self, folder: pathlib.Path, settings: Mapping[str, Any], budget: int, every_seconds: float
    ) -> None:
        """Opens or begins the folder of a training.

        Args:
          folder: Made if it is not there.
          settings: What the numbers depend on; a folder of another training is refused.
          budget: Steps after which training ends: that state is saved whatever the time. It is not
            one of the settings, so that a training that ended there may go on with a larger one.
          every_seconds: Least time between two checkpoints; 0 saves after each evaluation.

        Raises:
          ValueError: The folder holds checkpoints of another training, or of one that it does not
            name.
        """
        self.folder, self.seconds_before = folder, 0.0
        self._budget, self._every_seconds = budget, every_seconds
        self._settings: dict[str, Any] = jsonable(settings)
        self._seconds: dict[str, float] = {}
        self._begun = self._saved = time.monotonic()
        self._claim()

    @property
    def step(self) -> int | None:
        """Environment steps of each agent at the newest whole checkpoint, or None."""
        return checkpoints.latest_step(self.folder)

    @property
    def seconds(self) -> float:
        """What training took so far, in all processes; of a killed one up to its checkpoint."""
        return self.seconds_before + time.monotonic() - self._begun

    def restore(self, state: OnlineState) -> OnlineState:
        """Returns the newest checkpoint, or `state` where there is none.

        Raises:
          CorruptCheckpointError: It was cut short or altered.
        """
        return state if self.step is None else checkpoints.restore(self.folder, self.step, state)

    def save(self, state: OnlineState) -> None:
        """Writes `state` if it is time to, and in any case the last one."""
        steps = int(state.steps)
        ends = steps >= self._budget or bool(state.kept.reached.all())
        if ends or time.monotonic() - self._saved >= self._every_seconds:
            checkpoints.save(self.folder, steps, state)
            self._seconds[str(steps)] = self.seconds
            self._write()
            self._saved = time.monotonic()

    def delete(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)

    def _claim(self) -> None:
        path, step = self.folder / TRAINING, self.step
        if step is None:
            self._write()
            return
        if not path.exists():
            raise ValueError(
                f"{self.folder} has checkpoints but no {TRAINING}, so it is unknown what they are "
                "of: delete the folder to train from the start"
            )
        found = json.loads(path.read_text(encoding="utf8"))
        if differences := list(_differences(found["settings"], self._settings)):
            raise ValueError(
                f"{self.folder} holds a training with other settings: {'; '.join(differences)}. "
                "Restore them to go on from there, or delete the folder to train from the start"
            )
        self._seconds = found["seconds"]
        done = [seconds for steps, seconds in self._seconds.items() if int(steps) <= step]
        self.seconds_before = max(done, default=0.0)

    def _write(self) -> None:
        content = {"settings": self._settings, "seconds": self._seconds}
        write_json_atomically(self.folder / TRAINING, content)


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Says in which settings two trainings differ, by their dotted names."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{name} was {before} and is {now}"]
    found = []
    for key in dict.fromkeys([*before, *now]):
        below = f"{name}.{key}" if name else key
        found += _differences(before.get(key), now.get(key), below)
    return found
