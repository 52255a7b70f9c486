"""The half cheetah's model as a `brax.base.System`, and what Brax needs around its calls.

Brax no longer maintains its pipelines. This file and the two backends beside it are all that knows
them, and it is imported only for those who ask for one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from envs.physics.cheetah_model import INSTALL, base_model

Tree = TypeVar("Tree")


@functools.cache
def load() -> Any:
    """The system with float64 NumPy leaves, which belong to no device, precision or trace.

    Raises:
      ModuleNotFoundError: Brax or MuJoCo is not installed.
    """
    # Brax writes infinities into the ranges of the model that it is given.
    model = base_model().__copy__()
    with _quiet(), lenient(), jax.ensure_compile_time_eval(), jax.enable_x64(True):
        try:
            # Both pipelines, so that the noise of importing them is over with.
            for pipeline in ("brax.mjx.pipeline", "brax.generalized.pipeline"):
                importlib.import_module(pipeline)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"This backend of HalfCheetah needs Brax and MuJoCo's MJX: {INSTALL}"
            ) from error
        from brax.io import mjcf

        return jax.tree.map(np.asarray, mjcf.load_model(model))


def arrays(tree: Tree) -> Tree:
    """The leaves as JAX arrays, constants under `jit`, in the precision that is enabled."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, tree)


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Allows what Brax does while it is traced, and a caller may have forbidden.

    It relies on broadcasting and on mixed dtypes, and reads deprecated fields of MJX. Products of
    float32 are products of float32, also where an accelerator would rather round its factors.
    """
    ranks, dtypes = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    products = jax.default_matmul_precision("highest")
    with ranks, dtypes, products, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing `.*` directly from `Data`", DeprecationWarning)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out that warp is not installed, and that Brax and JAXopt are not maintained."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        warnings.filterwarnings("ignore", "Brax System, ", UserWarning)
        yield
    for line in printed.getvalue().splitlines():
        if not line.startswith("Failed to import"):
            print(line)
