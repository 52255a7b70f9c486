"""The MuJoCo model of gymnasium's HalfCheetah-v5, which every backend steps."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

FRAME_SKIP = 5
"""Physics steps in a control step."""
NUM_POSITIONS = 9
"""Positions, the free x included; there are as many velocities."""
NUM_ACTIONS = 6
INSTALL = "install the extra, `pip install '.[half-cheetah]'` in the repository"


@functools.cache
def xml_path() -> pathlib.Path:
    """Path of the model in the installed gymnasium package.

    Raises:
      FileNotFoundError: This gymnasium does not bring it.
    """
    spec = importlib.util.find_spec("gymnasium")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("HalfCheetah takes its model from gymnasium: install gymnasium")
    path = pathlib.Path(spec.origin).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
    if not path.is_file():
        raise FileNotFoundError(f"gymnasium has no {path}: install gymnasium>=1.0")
    return path


@functools.cache
def base_model() -> Any:
    """The model at its own masses and damping, an `mujoco.MjModel`; not to be changed.

    Raises:
      ModuleNotFoundError: MuJoCo is not installed.
    """
    try:
        import mujoco
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"HalfCheetah needs MuJoCo: {INSTALL}") from error
    spec = mujoco.MjSpec.from_file(str(xml_path()))
    # Of the half megabyte of a model all but 17 kB are textures, and every agent has a model.
    spec.compiler.discardvisual = True
    with quiet(), warnings.catch_warnings():
        # The file is gymnasium's; setting the total mass by hand would give other solver scales.
        warnings.filterwarnings("ignore", ".*'settotalmass' is deprecated", UserWarning)
        return spec.compile()


def scaled_model(mass_scale: float, damping_scale: float) -> Any:
    """A copy of the model with scaled masses and joint damping; inertia tensors stay."""
    model = base_model().__copy__()
    model.body_mass[:] = base_model().body_mass * mass_scale
    model.dof_damping[:] = base_model().dof_damping * damping_scale
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps MuJoCo from printing and from writing MUJOCO_LOG.TXT into the working folder."""
    import mujoco

    before, silent = mujoco.MjLogConfig.get(), mujoco.MjLogConfig.get()
    silent.logto_console = silent.logto_file = False
    silent.set()
    try:
        yield
    finally:
        before.set()
