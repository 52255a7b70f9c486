"""Small runs for the tests of the launcher and its stages."""

import contextlib
import fcntl
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.progress import Display
from experiments.records import Row, read_rows, row_key
from experiments.stamps import ROOT
from persim_jax.data.dataset import OfflineDataset

# What a clock decides, in rows and in their values.
TIMES = ("wall_s", "measured_at", "share")
TIMED = frozenset(
    {
        "train_seconds",
        "compile_seconds",
        "plan_decisions_per_second",
        "collect_steps_per_second",
        "train_flops_per_second",
        "matmul_flops_per_second",
    }
)


def tiny(name: str = "mountain_car", **changes: Any) -> dict[str, Any]:
    """The smoke config with yet smaller sizes; `section__field=value` changes a field."""
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.agents.num_agents = 8
    config.model.update({"state_features": (8,), "ensemble_size": 2, "spare_members": 0})
    config.train.update({"num_epochs": 2, "polish_rounds": 0, "polish_steps": 3, "batch_size": 512})
    config.prediction.update({"num_episodes": 3, "num_steps": 20})
    config.planner.update({"num_candidates": 8, "horizon": 4, "chunk_size": 8})
    config.evaluation.update({"planning_episodes": 2, "policy_episodes": 2})
    plain: dict[str, Any] = config.to_dict()
    for field, value in changes.items():
        section, _, nested = field.partition("__")
        if nested:
            plain[section][nested] = value
        else:
            plain[section] = value
    return plain


def quiet_display() -> Display:
    """A display that nobody sees."""
    return Display(Console(file=io.StringIO()))


def dataset_of(world: Any, steps: int = 4) -> OfflineDataset:
    """Any valid dataset of a world's agents, for methods that do not look at it."""
    from experiments.stages import dataset_info

    size, count = world.env.spec.obs_size, world.agents.num_agents
    return OfflineDataset(
        obs=np.zeros((count, steps + 1, size), np.float32),
        actions=np.zeros((count, steps), np.int32),
        rewards=np.zeros((count, steps), np.float32),
        terminated=np.zeros((count, steps), bool),
        mask=np.ones((count, steps), bool),
        agent_ids=world.agents.agent_ids,
        covariates=world.agents.covariates,
        info=dataset_info(world, "random"),
    )


def untimed(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
    """Rows by identity, without what a clock decides; two of one identity are an error."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        assert row_key(row) not in found, f"twice: {row_key(row)}"
        kept = {k: v for k, v in row.items() if k not in TIMES}
        if row["metric"] in TIMED:
            assert row["value"] > 0
            del kept["value"]
        found[row_key(row)] = kept
    return found


def rows_of(workdir: Path) -> dict[tuple[Any, ...], Row]:
    """The rows of a workdir as `untimed` shows them."""
    return untimed(read_rows(workdir / "rows.jsonl"))


def curve_of(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a workdir's training curve."""
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text("utf8").splitlines()]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def assert_same_arrays(first: Path, second: Path) -> None:
    """Equal bit for bit, NaN where the other has NaN."""
    one, two = arrays_of(first), arrays_of(second)
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert array.dtype == two[name].dtype
        np.testing.assert_array_equal(array, two[name], err_msg=f"{name} in {second}")


# What `tiny` changes, as flags of the launcher.
TINY = (
    "--config.agents.num_agents=8",
    "--config.model.state_features=(8,)",
    "--config.train.num_epochs=2",
    "--config.train.polish_rounds=0",
    "--config.train.polish_steps=3",
    "--config.train.batch_size=512",
    "--config.prediction.num_episodes=3",
    "--config.prediction.num_steps=20",
    "--config.planner.num_candidates=8",
    "--config.planner.horizon=4",
    "--config.planner.chunk_size=8",
)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of several test processes makes, for reading by all of them.

    Args:
      factory: Pytest's.
      name: Of the folder.
      make: Fills the folder, which does not exist yet.
    """
    base = factory.getbasetemp()
    # Under pytest-xdist each process has a folder of its own in the one that they share.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def command(*flags: str) -> list[str]:
    """The launcher's command line."""
    return [sys.executable, "-m", "experiments.run", *flags]


def environment(**changes: str) -> dict[str, str]:
    """Of a launcher: neither the tests' threads nor their XLA flags."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return kept | {"PYTHONUNBUFFERED": "1"} | changes


def launch(*flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs the launcher to its end."""
    return subprocess.run(
        command(*flags), cwd=ROOT, env=environment(**changes), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def compile_cache(folder: Path) -> Any:
    """Compiled programs kept in a folder, for this process."""
    from jax.experimental.compilation_cache import compilation_cache

    names = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    for name, value in names.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
