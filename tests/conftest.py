"""Numerics are strict under test, so that silent broadcasts and promotions are failures.

Warnings are errors too; that is in setup.cfg, next to the marker `slow`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# No test opens a window; set before anything imports matplotlib.
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import jax
import pytest

# A [N] array against a [T, N] one must be aligned by hand: silent broadcasting hides wrong axes.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Raw uint32 keys look like data and broadcast like data; the package uses typed keys only.
jax.config.update("jax_legacy_prng_key", "error")

# The same examples on every machine, none stored on disk; no deadline, as a first call compiles.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests, and notebooks, come first, those of few tests before all.

    Processes take whole files in this order. A file of few slow tests holds long ones; were it left
    for last, as by xdist's own order, one process would work on it alone while the others idle.
    """
    tests = Counter(item.path for item in items)
    long = {i.path for i in items if i.get_closest_marker("slow") or i.path.suffix == ".ipynb"}

    def place(item: pytest.Item) -> tuple[bool, int]:
        number = tests[item.path]
        return (False, number) if item.path in long else (True, -number)

    items.sort(key=place)


MAPS = Path("/proc/self/maps")
MANY_MAPS = 30_000
"""Linux allows a process 65530 mappings, and each compiled program takes some: past that, compiling
crashes."""


@pytest.fixture(autouse=True, scope="module")
def room_to_compile() -> Iterator[None]:
    """Forgets compiled programs where a process has gathered very many."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def strict_dtypes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Mixing int32 with float32 raises, except where optax, which does so, is called."""
    mode = "standard" if request.node.get_closest_marker("optimizes") else "strict"
    with jax.numpy_dtype_promotion(mode):
        yield


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key() -> jax.Array:
    """A typed key; a test that needs several splits it."""
    return jax.random.key(0)
