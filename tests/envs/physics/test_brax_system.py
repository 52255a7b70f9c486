"""What Brax makes of the model, and that it does so without noise."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.physics import brax_system
from envs.physics.cheetah_model import base_model

ROOT = Path(__file__).parents[3]


def test_brax_keeps_what_the_model_says():
    system, model = brax_system.load(), base_model()
    for name in (
        "body_mass", "body_inertia", "dof_damping", "dof_armature", "jnt_stiffness", "jnt_solref",
        "jnt_solimp", "geom_size", "geom_friction", "geom_solref", "geom_solimp", "geom_contype",
        "geom_conaffinity", "dof_invweight0", "body_invweight0", "actuator_gear",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(system, name), getattr(model, name), err_msg=name)
    limited = model.jnt_limited == 1
    np.testing.assert_array_equal(system.jnt_range[limited], model.jnt_range[limited])
    for name in ("timestep", "gravity", "iterations", "ls_iterations", "tolerance", "integrator",
                 "solver", "cone", "disableflags", "enableflags"):  # fmt: skip
        np.testing.assert_array_equal(
            np.asarray(getattr(system.opt, name)), getattr(model.opt, name), err_msg=name
        )
    np.testing.assert_array_equal(system.link.inertia.mass, model.body_mass[1:])
    np.testing.assert_array_equal(system.dof.damping, model.dof_damping)
    np.testing.assert_array_equal(system.actuator.gear, model.actuator_gear[:, 0])
    np.testing.assert_array_equal(system.actuator.ctrl_range, model.actuator_ctrlrange)


def test_loading_leaves_the_model_itself_alone():
    brax_system.load()
    # Brax writes infinite ranges for joints without a limit into the model that it is given.
    assert np.isfinite(base_model().jnt_range).all()
    assert brax_system.load().mj_model is not base_model()


def test_arrays_have_the_precision_that_is_enabled_and_are_no_tracers():
    def mass(x):
        leaf = brax_system.arrays(brax_system.load()).body_mass
        assert not isinstance(leaf, jax.core.Tracer)
        return x + leaf.sum().astype(x.dtype), leaf

    assert jax.jit(mass)(jnp.zeros(()))[1].dtype == jnp.float32
    with jax.enable_x64(True):
        assert jax.jit(mass)(jnp.zeros(()))[1].dtype == jnp.float64


def test_strictness_is_lifted_inside_and_only_there():
    with brax_system.lenient():
        assert (jnp.ones((2, 3)) + jnp.arange(3)).shape == (2, 3)
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(3) + jnp.arange(3)


@pytest.mark.slow
def test_loading_prints_nothing_and_warns_of_nothing(tmp_path):
    code = "import envs; print(envs.make('half_cheetah', 'generalized').spec.backend)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "generalized\n", "")
    assert list(tmp_path.iterdir()) == []
