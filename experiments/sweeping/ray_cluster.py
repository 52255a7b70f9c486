"""Workers on a Ray cluster: the same jobs as tasks, on whichever hosts there are.

The sweep's folder must have the same path on all hosts. A job whose worker or host is lost runs
again on another one and goes on from what it had written.
"""

from __future__ import annotations

import json
import os
from typing import Any

from experiments.stamps import ROOT
from experiments.sweeping.devices import single_thread
from experiments.sweeping.index import FAILED
from experiments.sweeping.worker import CACHE_VARIABLE, Order, Outcome

MAX_RETRIES = 3


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "--executor=ray needs Ray, which is not installed: pip install '.[cluster]', or use "
            "--executor=local"
        ) from error
    return ray


def perform_on_cluster(order: dict[str, Any]) -> dict[str, Any]:
    """A job in a worker of Ray, plain data in and out."""
    from experiments.accelerators import set_up_jax
    from experiments.sweeping.worker import perform

    set_up_jax(deterministic=True, compile_cache=os.environ.get(CACHE_VARIABLE))
    return perform(Order(**order))._asdict()


def task_variables(
    cpus_per_job: float, gpus_per_job: float, compile_cache: str | None
) -> dict[str, str]:
    """Environment variables of the processes that do jobs."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    found = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if cpus_per_job <= 1:
        found["XLA_FLAGS"] = single_thread(os.environ.get("XLA_FLAGS", ""))
    if 0 < gpus_per_job < 1:
        # The first job on a GPU would else take most of its memory, and the next one none.
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if compile_cache:
        found[CACHE_VARIABLE] = os.path.abspath(compile_cache)  # tasks have other working folders
    return found


class RayExecutor:
    """Jobs as Ray tasks."""

    def __init__(
        self,
        address: str | None = None,
        workers: int = 0,
        cpus_per_job: float = 1.0,
        gpus_per_job: float = -1.0,
        compile_cache: str | None = None,
    ) -> None:
        """Joins a cluster or starts one on this machine.

        Args:
          address: Of a cluster, "auto" for the one that this machine belongs to; None starts one.
          workers: Jobs at a time; 0 is as many as the cluster has devices for.
          cpus_per_job: CPU cores that a job takes.
          gpus_per_job: GPUs that it takes; negative is one where the cluster has any.
          compile_cache: Folder for compiled programs, at the same path on all hosts, or None.

        Raises:
          ValueError: Ray is not installed, or the cluster cannot be reached or has not what a job
            takes.
        """
        self._ray = _import_ray()
        env_vars = task_variables(cpus_per_job, gpus_per_job, compile_cache)
        try:
            self._ray.init(
                address=address, runtime_env={"env_vars": env_vars}, log_to_driver=False,
                logging_level="ERROR", include_dashboard=False if address is None else None,
            )  # fmt: skip
        except Exception as error:  # a node that does not start is told by no narrower class
            problem = f"no Ray cluster at {address}" if address else "Ray does not start here"
            raise ValueError(f"{problem}: {error}") from error
        found = self._ray.cluster_resources()
        gpus = found.get("GPU", 0.0)
        gpus_per_job = (1.0 if gpus else 0.0) if gpus_per_job < 0 else gpus_per_job
        fit = found.get("CPU", 0.0) / cpus_per_job
        if gpus_per_job:
            fit = min(fit, gpus / gpus_per_job)
        if fit < 1:
            raise ValueError(
                f"a job takes {cpus_per_job:g} CPU cores and {gpus_per_job:g} GPUs, the cluster "
                f"has {found.get('CPU', 0.0):g} and {gpus:g}: lower --cpus_per_job, --gpus_per_job"
            )
        self.slots = min(workers or int(fit), int(fit))
        self._task = self._ray.remote(
            num_cpus=cpus_per_job, num_gpus=gpus_per_job, max_retries=MAX_RETRIES
        )(perform_on_cluster)
        self._running: dict[Any, str] = {}

    def submit(self, order: Order) -> None:
        """As in `Executor`."""
        plain = json.loads(json.dumps(order._asdict()))
        self._running[self._task.remote(plain)] = order.key

    def wait(self, seconds: float) -> list[Outcome]:
        """As in `Executor`."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._outcome(reference) for reference in ready]

    def close(self) -> None:
        """Leaves the cluster; its tasks end with it."""
        self._ray.shutdown()

    def _outcome(self, reference: Any) -> Outcome:
        key = self._running.pop(reference)
        try:
            return Outcome(**self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            # Its workers were lost again and again.
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return Outcome(key, FAILED, error=text)
