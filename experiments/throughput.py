"""How much of a device training uses, as rows and as a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.records import Row, make_row
from experiments.workdir import Workdir
from persim_jax.data.dataset import OfflineDataset
from persim_jax.flops import measured_product_rate
from persim_jax.methods.persim import PERSIM, PersimConfig, epoch_flops


def measure_training(
    workdir: Workdir, dataset: OfflineDataset, settings: PersimConfig
) -> tuple[list[Row], str]:
    """Compares training, which is done, with a large matrix product on the same devices.

    Args:
      workdir: Has the curve, `metrics.jsonl`.
      dataset: What was trained on.
      settings: How.

    Returns:
      Rows with operations per second in epochs of Adam (only matrix products count) and in the
      large product, which is measured here; and what to say of them.
    """
    train, mesh = settings.train, settings.make_mesh(int(np.asarray(dataset.mask).sum()))
    flops = epoch_flops(dataset, settings)
    seconds, compiled = epoch_seconds(workdir.path / "metrics.jsonl")
    achieved, highest = flops / seconds, measured_product_rate(train.precision, mesh)
    shape = "x".join(str(size) for size in mesh.devices.shape)
    shared: dict[str, Any] = {"precision": train.precision, "mesh": shape, "wall_s": seconds}
    rows = [
        make_row(
            workdir.context, method=PERSIM.name, metric="train_flops_per_second", value=achieved,
            share=achieved / highest, flops_per_epoch=flops, includes_compilation=compiled,
            **shared,
        ),
        make_row(
            workdir.context, method="any", metric="matmul_flops_per_second", value=highest,
            **shared | {"wall_s": None},
        ),
    ]  # fmt: skip
    text = (
        f"{_flops_text(achieved)}, {100 * achieved / highest:.2g} % of a large matrix product's "
        f"{_flops_text(highest)} ({train.precision}, mesh {shape})"
    )
    return rows, text + (", compilation included" if compiled else "")


def epoch_seconds(curve: Path) -> tuple[float, bool]:
    """Median seconds of an epoch of Adam, and whether compilation is part of it.

    The first epoch compiles and so does the first after a kill, which the median leaves aside; a
    lone epoch is all there is.
    """
    lines = [json.loads(text) for text in curve.read_text("utf8").splitlines()]
    ends = [line["wall_s"] for line in lines if line["phase"] == "adam"]
    if len(ends) < 2:
        return (float(ends[0]) if ends else float("nan")), True
    return float(np.median(np.diff(ends))), False


def _flops_text(rate: float) -> str:
    power = max(p for p in (6, 9, 12, 15) if rate >= 10.0**p or p == 6)
    return f"{rate / 10.0**power:.3g} {dict(zip((6, 9, 12, 15), 'MGTP', strict=True))[power]}FLOP/s"
