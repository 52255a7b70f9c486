"""Which job is next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from experiments.sweeping.plan import Planned


class Queue:
    """Jobs that wait for a worker: trial by trial, within a trial the longest first."""

    def __init__(self, jobs: Sequence[Planned], estimates: Mapping[str, float]) -> None:
        self._waiting = sorted(jobs, key=lambda p: (p.trial, -estimates[p.key]))

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self, running: Collection[Planned]) -> Planned | None:
        """Takes the next job, None if none can start beside those that are running.

        A workdir belongs to one job at a time. Of jobs that can start those come first whose data
        no running job makes just now: they would wait for it. The longest first, as a long job
        that starts last keeps all other workers waiting at the end.
        """
        folders = {planned.folder for planned in running}
        free = [p for p in self._waiting if p.folder not in folders]
        if not free:
            return None
        data = {data_of(planned) for planned in running}
        first = [p for p in free if p.trial == free[0].trial]
        chosen = next((p for p in first if data_of(p) not in data), free[0])
        self._waiting.remove(chosen)
        return chosen


def data_of(planned: Planned) -> tuple[object, ...]:
    """Jobs that are equal in this are made of the same data."""
    config = planned.config
    agents = tuple(sorted(config.get("agents", {}).items()))
    return (config["environment"], config["behavior"], config["seed"], planned.trial, agents)
