"""Trains on one device and on meshes of eight simulated ones; prints how far apart they end.

python -m tests.mesh_worker FOLDER, with XLA_FLAGS=--xla_force_host_platform_device_count=8
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import checkpoints, training
from persim_jax.mesh import MeshConfig, make_mesh
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.training import TrainConfig
from persim_jax.types import Transitions

SHAPES = ((1, 8), (5, 1), (2, 4), (4, 2))
CONFIG = TrainConfig(
    num_epochs=2, batch_size=40, learning_rate=0.01, polish_rounds=1, polish_steps=3, polish_size=64
)
SIZE = 100


def make_model(num_members):
    return factor_model(
        FactorConfig(
            num_agents=4, obs_size=3, action_size=2, discrete=True, rank=2, state_features=(8,),
            activation="tanh", ensemble_size=num_members, normalize_obs=True,
            normalize_delta=True, agent_penalty=0.1,
        )
    )  # fmt: skip


def make_data():
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(SIZE, 3)).astype(np.float32)
    agent, actions = (rng.integers(n, size=SIZE).astype(np.int32) for n in (4, 2))
    push = np.tanh(obs) * (agent[:, None] - 1.5) * (actions[:, None] - 0.5)
    return jax.tree.map(
        jnp.asarray,
        Transitions(
            agent=agent, obs=obs, actions=actions, rewards=obs[:, 0],
            next_obs=(obs + push).astype(np.float32), terminated=agent < 0,
        ),
    )  # fmt: skip


def run(num_members, mesh=None, config=CONFIG):
    """State and losses after each of two epochs and a round, and the losses over all data."""
    model, data, steps = make_model(num_members), make_data(), []
    state = training.init(jax.random.key(1), model, data, config)
    final = training.train(model, config, state, data, lambda *step: steps.append(step), mesh)
    return steps, training.member_losses(model, config, final.params, data, mesh)


def plain(tree):
    """Numpy leaves, keys as numbers."""
    key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if key(x) else x) for x in jax.tree.leaves(tree)]


def gap(found, expected):
    """Largest difference, relative to the largest number of each array."""
    pairs = zip(plain(found), plain(expected), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)) for a, b in pairs)


def compare_shapes():
    """Gaps by shape and function, and how the arrays lay."""
    alone, found = {m: run(m) for m in (4, 5)}, {}
    for shape in SHAPES:
        begin = time.perf_counter()
        members = 5 if shape[0] == 5 else 4
        mesh = make_mesh(MeshConfig(*shape), members, (40, 64))
        epochs = training.run_epoch._cache_size()
        (*steps, polished), losses = run(members, mesh)
        (*expected, expected_polished), expected_losses = alone[members]
        leaf = jax.tree.leaves(steps[0][0].params.weights)[0]
        found["x".join(map(str, shape))] = {
            "run_epoch": max(gap(a, b) for a, b in zip(steps, expected, strict=True)),
            "polish": gap(polished, expected_polished),
            "member_losses": gap(losses, expected_losses),
            "compiled": training.run_epoch._cache_size() - epochs,
            "devices": len(leaf.sharding.device_set),
            "own_members": leaf.addressable_shards[0].data.shape[0],
            "steps": int(jax.tree.leaves(steps[-1][0].opt_state)[0][0]),
            "seconds": round(time.perf_counter() - begin, 1),
        }
    return found


def compare_checkpoints(folder):
    """A run that is cut after its first epoch: gaps to the unbroken one, by where it goes on."""
    meshes = {str(s): make_mesh(MeshConfig(*s), 4, (40,)) for s in ((4, 2), (2, 4), (1, 1))}
    config = dataclasses.replace(CONFIG, polish_rounds=0)
    steps, _ = run(4, meshes["(4, 2)"], config)
    checkpoints.save(folder, 1, steps[0][0])
    model, data, found = make_model(4), make_data(), {}
    for name, mesh in meshes.items():
        like = training.place(training.init(jax.random.key(9), model, data, config), mesh)
        restored = checkpoints.restore(folder, 1, like)
        again = training.train(model, config, restored, data, mesh=mesh)
        found[name] = {
            "restored": gap(restored, steps[0][0]),
            "resumed": gap(again, steps[1][0]),
            "devices": len(jax.tree.leaves(restored.params.weights)[0].sharding.device_set),
        }
    return found


def main():
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "num_devices": jax.device_count(),
            "shapes": compare_shapes(),
            "checkpoints": compare_checkpoints(Path(folder) / "checkpoints"),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
