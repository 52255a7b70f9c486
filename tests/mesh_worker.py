"""Trains on one device and on meshes of eight simulated ones; prints how far apart they end.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.mesh_worker
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import checkpoints, training
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.mesh import MeshConfig, make_mesh
from persim_jax.methods.base import Monitor
from persim_jax.methods.persim import PersimConfig, fit
from persim_jax.training import TrainConfig
from tests.test_training import SCALES, make_data, regression

SHAPES = ((1, 8), (5, 1), (2, 4), (4, 2))
SIZE = 64
CONFIG = TrainConfig(num_epochs=2, batch_size=24, learning_rate=0.05, polish_steps=40)


def begin(num_members, mesh, seed=1):
    """Model, initial state and data on a mesh."""
    model, data = regression(num_members), jax.tree.map(jnp.asarray, make_data(SIZE, SCALES))
    state = training.init(jax.random.key(seed), model, data, CONFIG)
    return model, training.place(state, mesh), data


def run(num_members, mesh=None):
    """Each epoch's state and losses, and the losses over all data."""
    (model, state, data), steps = begin(num_members, mesh), []
    training.train(model, CONFIG, state, data, lambda *step: steps.append(step), mesh)
    return steps, training.member_losses(model, CONFIG, steps[-1][0].params, data, mesh)


def gap(found, expected):
    """Largest difference, relative to the largest number of each array; keys as numbers."""
    key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    plain = lambda x: np.asarray(jax.random.key_data(x) if key(x) else x)  # noqa: E731
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    numbers = [(np.float64(plain(a)), np.float64(plain(b))) for a, b in pairs]
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6) for a, b in numbers)


def compare_shapes():
    """Gaps by shape and function, the polished weights, and how the arrays lay."""
    alone, found = {m: run(m) for m in (4, 5)}, {}
    for shape in SHAPES:
        members = 5 if shape[0] == 5 else 4
        mesh = make_mesh(MeshConfig(*shape), members, (24, SIZE))
        compiled = training.run_epoch._cache_size()
        (steps, losses), (expected, expected_losses) = run(members, mesh), alone[members]
        model, state, data = begin(members, mesh)
        polished, polished_losses = training.polish(model, CONFIG, state, data, mesh)
        leaf = steps[-1][0].params.weights["w"]
        found["x".join(map(str, shape))] = {
            "run_epoch": gap(steps, expected),
            "member_losses": gap(losses, expected_losses),
            "polished": polished.params.weights["w"].tolist(),
            "polished_losses": polished_losses.tolist(),
            "compiled": training.run_epoch._cache_size() - compiled,
            "devices": len(leaf.sharding.device_set),
            "own_members": leaf.addressable_shards[0].data.shape[0],
            "steps": sorted({int(x) for x in jax.tree.leaves(steps[-1][0].opt_state)[0]}),
        }
    return found


def compare_checkpoints(folder):
    """A run that is cut after its first epoch: gaps to the unbroken one, by where it goes on."""
    meshes = {shape: make_mesh(MeshConfig(*shape), 4, (24,)) for shape in ((4, 2), (2, 4), (1, 1))}
    steps, _ = run(4, meshes[4, 2])
    checkpoints.save(folder, 1, steps[0][0])
    found = {}
    for shape, mesh in meshes.items():
        model, like, data = begin(4, mesh, seed=9)
        restored = checkpoints.restore(folder, 1, like)
        again = training.train(model, CONFIG, restored, data, mesh=mesh)
        found["x".join(map(str, shape))] = {
            "restored": gap(restored, steps[0][0]),
            "resumed": gap(again, steps[1][0]),
            "devices": len(restored.params.weights["w"].sharding.device_set),
        }
    return found


def make_dataset():
    rng = np.random.default_rng(0)
    shape = (4, 25)
    actions = rng.integers(2, size=shape).astype(np.int32)
    return OfflineDataset(
        obs=rng.normal(size=(4, 26, 2)).astype(np.float32),
        actions=actions,
        rewards=np.zeros(shape, np.float32),
        terminated=np.zeros(shape, bool),
        mask=np.ones(shape, bool),
        agent_ids=np.arange(4, dtype=np.int32),
        covariates=np.zeros((4, 1), np.float32),
        info=DatasetInfo("line", "random", ("x", "y"), ("gain",), 2, 2),
    )


def compare_fits():
    """PerSim on one device and on all of them, members side by side: gaps, devices."""
    config = PersimConfig(
        rank=2, state_features=(4,), ensemble_size=2, spare_members=2, agent_penalty=0.1,
        train=TrainConfig(num_epochs=2, batch_size=24, learning_rate=0.01, member_chunk=0),
    )  # fmt: skip
    fits, states = {}, []
    monitor = Monitor(on_epoch=lambda state, losses: states.append(state))
    for name, mesh in {"alone": MeshConfig(1, 1), "spread": MeshConfig(2)}.items():
        fits[name] = fit(
            jax.random.key(0), make_dataset(), None, dataclasses.replace(config, mesh=mesh), monitor
        )
    trained, kept = (jax.tree.leaves(tree)[0] for tree in (states[-1].params, fits["spread"]))
    return {
        "gap": gap(fits["spread"].params, fits["alone"].params),
        "trained_on": len(trained.sharding.device_set),
        "kept_on": len(kept.sharding.device_set),
    }


def main():
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "num_devices": jax.device_count(),
            "shapes": compare_shapes(),
            "checkpoints": compare_checkpoints(Path(folder) / "checkpoints"),
            "fits": compare_fits(),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
