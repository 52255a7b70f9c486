"""The model: gymnasium's, with the masses, dampings and gears of the facts sheet."""

import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv

from envs.physics import cheetah_model
from envs.physics.cheetah_model import base_model, quiet, scaled_model

MASSES = {
    "torso": 6.250, "bthigh": 1.544, "bshin": 1.587, "bfoot": 1.095,
    "fthigh": 1.438, "fshin": 1.201, "ffoot": 0.885,
}  # fmt: skip
# What only a renderer looks at: left out, or renumbered for want of the rest.
VISUAL = ("mat_", "tex_", "ntex", "nmat", "nname", "name_", "names", "nbuffer", "geom_matid")


def test_masses_add_up_to_fourteen_kilograms():
    model = base_model()
    masses = {model.body(i).name: model.body_mass[i] for i in range(1, model.nbody)}
    assert list(masses) == list(MASSES)
    np.testing.assert_allclose(list(masses.values()), list(MASSES.values()), atol=5e-4)
    np.testing.assert_allclose(model.body_mass.sum(), 14.0, rtol=1e-12)


def test_damping_gears_and_steps():
    model = base_model()
    np.testing.assert_array_equal(model.dof_damping, [0, 0, 0, 6, 4.5, 3, 4.5, 3, 1.5])
    np.testing.assert_array_equal(model.dof_armature, [0] * 3 + [0.1] * 6)
    np.testing.assert_array_equal(model.actuator_gear[:, 0], [120, 90, 60, 120, 60, 30])
    names = [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]
    assert names == list(MASSES)[1:]
    assert model.opt.timestep * cheetah_model.FRAME_SKIP == 0.05
    assert (model.nq, model.nv) == (cheetah_model.NUM_POSITIONS,) * 2
    assert model.nu == cheetah_model.NUM_ACTIONS


def test_nothing_that_physics_depends_on_differs_from_gymnasium():
    with quiet():
        theirs = HalfCheetahEnv().model
    ours = base_model()
    compared = 0
    for name in dir(theirs):
        value = getattr(theirs, name)
        if name.startswith(("_", *VISUAL)) or not isinstance(value, np.ndarray | int | float):
            continue
        if name != "signature":
            np.testing.assert_array_equal(getattr(ours, name), value, err_msg=name)
            compared += 1
    assert compared > 300
    for name in dir(theirs.opt):
        if not name.startswith("_"):
            np.testing.assert_array_equal(getattr(ours.opt, name), getattr(theirs.opt, name))
    assert ours.stat.meaninertia == theirs.stat.meaninertia
    assert mujoco.mj_sizeModel(ours) < mujoco.mj_sizeModel(theirs) / 20


def test_scaling_touches_masses_and_damping_and_nothing_else():
    before = base_model().body_mass.copy(), base_model().dof_damping.copy()
    scaled = scaled_model(0.5, 1.5)
    np.testing.assert_allclose(scaled.body_mass.sum(), 7.0)
    np.testing.assert_allclose(scaled.body_mass, 0.5 * before[0])
    np.testing.assert_allclose(scaled.dof_damping, 1.5 * before[1])
    for name in ("body_inertia", "dof_armature", "jnt_stiffness", "actuator_gear", "body_mass"):
        same = np.array_equal(getattr(scaled, name), getattr(base_model(), name))
        assert same == (name != "body_mass")
    np.testing.assert_array_equal(base_model().body_mass, before[0])
    np.testing.assert_array_equal(base_model().dof_damping, before[1])


def test_nothing_is_written_into_the_working_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    base_model.__wrapped__()
    with quiet():
        model = mujoco.MjModel.from_xml_path(str(cheetah_model.xml_path()))
        data = mujoco.MjData(model)
        data.qpos[2] = np.nan
        mujoco.mj_step(model, data)
    assert data.warning[mujoco.mjtWarning.mjWARN_BADQPOS].number == 1
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_quiet_ends_with_its_block_whatever_happens(tmp_path):
    before = mujoco.MjLogConfig.get()
    try:
        changed = mujoco.MjLogConfig.get()
        changed.logfile = str(tmp_path / "log")
        changed.set()
        with pytest.raises(KeyError), quiet():
            raise KeyError
        after = mujoco.MjLogConfig.get()
        assert (after.logto_console, after.logto_file) == (True, True)
        assert after.logfile == changed.logfile
    finally:
        before.set()


def test_a_gymnasium_without_the_model_is_named(tmp_path, monkeypatch):
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(cheetah_model.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match=r"half_cheetah.xml: install gymnasium>=1.0"):
        cheetah_model.xml_path.__wrapped__()
