"""Which cores and which accelerator each worker has, so that no two jobs share a device."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# One thread for one core: threads that spin on each other's core cost both jobs time.
SINGLE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class Share(NamedTuple):
    """What a worker has of the machine.

    Attributes:
      cores: CPU cores that it runs on.
      gpu: The accelerator that it sees, by its name in CUDA_VISIBLE_DEVICES; None where the
        machine has none.
      alone: Whether no other worker has it.
    """

    cores: tuple[int, ...]
    gpu: str | None = None
    alone: bool = True

    def variables(self, before: Mapping[str, str]) -> dict[str, str]:
        """Environment variables of the worker, beside those of this process."""
        found = {"OMP_NUM_THREADS": "1"}
        if self.gpu is not None:
            found["CUDA_VISIBLE_DEVICES"] = self.gpu
            if not self.alone:
                found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        elif len(self.cores) == 1:
            found["XLA_FLAGS"] = single_thread(before.get("XLA_FLAGS", ""))
        return found


def single_thread(flags: str) -> str:
    """XLA's flags with which it computes in one thread, whatever else they say."""
    if "xla_cpu_multi_thread_eigen" in flags:
        return flags
    return f"{flags} {SINGLE_THREAD}".strip()


def share_out(
    workers: int, cores: Sequence[int], gpus: Sequence[str], together: bool
) -> list[Share]:
    """Shares a machine out among workers.

    Args:
      workers: How many; 0 is one for each GPU or, without GPUs, for each core.
      cores: That there are.
      gpus: That there are; jobs run on them if there are any.
      together: Whether several workers may have one device.

    Raises:
      ValueError: There are fewer devices than workers, who are not to share.
    """
    devices: Sequence[object] = gpus or cores
    workers = workers or len(devices)
    if workers > len(devices) and not together:
        kind = "GPU" if gpus else "CPU core"
        raise ValueError(
            f"{workers} workers for {len(devices)} {kind}{'s' * (len(devices) != 1)}: jobs would "
            f"share devices. Ask for --workers={len(devices)}, or for --share_devices"
        )
    alone = workers <= len(devices)
    return [
        Share(
            _part(cores, number, workers),
            str(gpus[number % len(gpus)]) if gpus else None,
            alone,
        )
        for number in range(workers)
    ]


def _part(cores: Sequence[int], number: int, workers: int) -> tuple[int, ...]:
    """The cores of one of the workers, as equal as can be; one in turn where there are too few."""
    if workers >= len(cores):
        return (cores[number % len(cores)],)
    start, end = (len(cores) * n // workers for n in (number, number + 1))
    return tuple(cores[start:end])


def find_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def find_gpus(environment: Mapping[str, str]) -> list[str]:
    """NVIDIA GPUs that this process may use, found without taking memory on them."""
    if environment.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return found.stdout.split() if found.returncode == 0 else []
