"""Settings of JAX that a process makes before its first array."""

from __future__ import annotations

import logging
import os

import jax

DETERMINISTIC = "--xla_gpu_deterministic_ops"


def set_up_jax(deterministic: bool, compile_cache: str | None) -> None:
    """Settings that JAX reads once, when it makes its first array: call this before.

    Args:
      deterministic: Let a GPU add up in a fixed order, unless XLA_FLAGS already says whether.
      compile_cache: Folder in which compiled programs are kept for the next process, or None.
    """
    # scikit-learn's threads, which the report's t-SNE needs not, spin where cores are busy.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # That there is no TPU is no news.
    logging.getLogger("jax").setLevel(logging.WARNING)
    before = os.environ.get("XLA_FLAGS", "")
    if deterministic and DETERMINISTIC not in before:
        os.environ["XLA_FLAGS"] = f"{before} {DETERMINISTIC}=true".strip()
    if compile_cache:
        jax.config.update("jax_compilation_cache_dir", compile_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
