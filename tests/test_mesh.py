"""Meshes: which are made, which are refused, and that eight devices compute what one does."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import mesh as mesh_lib
from persim_jax.mesh import MeshConfig, make_mesh, resolved_chunk, shape_of
from tests.mesh_worker import SHAPES, SIZE
from tests.test_repository import ROOT
from tests.test_training import SCALES, make_data


@pytest.mark.parametrize(
    ("asked", "members", "batches", "devices", "shape"),
    [
        ((-1, -1), 5, (512,), 1, (1, 1)),
        # Members first; what they leave goes to the batch.
        ((-1, -1), 5, (512,), 8, (5, 1)),
        ((-1, -1), 4, (512,), 8, (4, 2)),
        ((-1, -1), 7, (512,), 4, (1, 4)),
        ((-1, -1), 6, (512,), 4, (3, 1)),
        # All that is split must divide, polishing's draw of 100 too.
        ((-1, -1), 1, (512, 100), 8, (1, 4)),
        ((-1, -1), 1, (7,), 4, (1, 1)),
        # What is asked for stays, and the other axis takes what is left.
        ((1, -1), 5, (512,), 8, (1, 8)),
        ((-1, 4), 6, (512,), 8, (2, 4)),
        ((2, 3), 4, (9,), 8, (2, 3)),
    ],
)
def test_a_mesh_takes_as_many_devices_as_divide(asked, members, batches, devices, shape):
    assert shape_of(MeshConfig(*asked), members, batches, devices) == shape


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((5, 2), r"mesh\.member 5 x mesh\.batch 2 asks for 10 devices and there are 8"),
        ((-1, 9), "asks for 9 devices and there are 8"),
        ((2, 1), r"5 members \(spare ones included\) do not divide over mesh.member 2: use 1, 5,"),
        ((1, 3), "a batch of 100 transitions does not divide over mesh.batch 3: use 1, 2, 4, "),
        ((1, 5), "a batch of 64 transitions does not divide over mesh.batch 5: use 1, 2, 4, "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers(asked, message):
    with pytest.raises(ValueError, match=message):
        shape_of(MeshConfig(*asked), 5, (100, 64), 8)


@pytest.mark.parametrize("axis", ["member", "batch"])
def test_sizes_that_no_mesh_has_are_refused(axis):
    for size in (0, -2):
        with pytest.raises(ValueError, match=f"{axis} is {size}: give a number of devices"):
            MeshConfig(**{axis: size})


def test_with_one_device_nothing_is_moved_or_wrapped():
    mesh = make_mesh(MeshConfig(), 5, (512,))
    assert mesh.shape == {"member": 1, "batch": 1}
    array = jnp.ones((5, 2))
    loss = lambda weights, batch, key: jnp.zeros(())  # noqa: E731
    for one in (None, mesh):
        assert mesh_lib.by_member(one, array) is array
        assert mesh_lib.everywhere(one, array) is array
        assert mesh_lib.gathered(one, array) is array
        assert mesh_lib.own_part(one, array) is array
        assert mesh_lib.mean_over_batch(one, loss) is loss
    with pytest.raises(ValueError, match="there are 1"):
        make_mesh(MeshConfig(5), 5, (512,))


def test_minus_one_is_small_pieces_on_a_cpu_and_all_at_once_elsewhere(monkeypatch):
    assert [resolved_chunk(chunk) for chunk in (-1, 0, 3)] == [1, 0, 3]
    assert resolved_chunk(-1, on_cpu=100) == 100
    assert resolved_chunk(-1, make_mesh(MeshConfig(), 1, (1,)), on_cpu=100) == 100
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [resolved_chunk(chunk) for chunk in (-1, 0, 3)] == [0, 0, 3]


@pytest.mark.parametrize("chunk", [-1, 0, 2, 9])
def test_a_function_of_one_member_is_lifted_to_all(chunk):
    def one(member, shared, x):
        return member * shared, x.sum()

    xs = jnp.arange(10.0).reshape(5, 2)
    lifted = mesh_lib.over_members(one, 5, chunk, None)
    first, second = jax.jit(lifted)(jnp.asarray(10), xs)
    np.testing.assert_array_equal(first, [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(second, [1, 5, 9, 13, 17])


@pytest.fixture(scope="module")
def spread():
    """What eight simulated devices computed, in a process of their own."""
    # Fast code is not worth its compilation here.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-m", "tests.mesh_worker"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["num_devices"] == 8
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_eight_devices_compute_what_one_does(spread, shape):
    found = spread["shapes"]["x".join(map(str, shape))]
    assert found["devices"] == shape[0] * shape[1]
    assert found["own_members"] == {1: 4, 2: 2, 4: 1, 5: 1}[shape[0]]
    assert found["run_epoch"] < 2e-6
    assert found["member_losses"] < 2e-6
    # The second epoch finds its arrays where the first had found its own.
    assert found["compiled"] == 1
    # Two minibatches an epoch, however many parts each has: the schedule counts whole ones.
    assert found["steps"] == [4]
    # A line search turns on the last digit; where it ends does not.
    data = make_data(SIZE, SCALES)
    optimum, (residual,), *_ = np.linalg.lstsq(np.float64(data.obs), np.float64(data.rewards))
    np.testing.assert_allclose(found["polished_losses"], residual / SIZE, rtol=1e-4)
    for w in found["polished"]:
        np.testing.assert_allclose(w * SCALES, optimum * SCALES, atol=2e-3)


@pytest.mark.slow
def test_a_killed_training_goes_on_bit_for_bit_on_its_mesh_and_closely_on_another(spread):
    found = spread["checkpoints"]
    assert {name: entry["devices"] for name, entry in found.items()} == {
        "4x2": 8, "2x4": 8, "1x1": 1
    }  # fmt: skip
    assert all(entry["restored"] == 0.0 for entry in found.values())
    assert found["4x2"]["resumed"] == 0.0
    assert max(entry["resumed"] for entry in found.values()) < 2e-6


@pytest.mark.slow
def test_simulators_fitted_on_a_mesh_are_those_of_one_device_and_lie_on_one(spread):
    assert spread["fits"]["gap"] < 2e-6
    assert spread["fits"]["trained_on"] == 8
    assert spread["fits"]["kept_on"] == 1
