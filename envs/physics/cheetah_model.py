"""The MuJoCo model of gymnasium's HalfCheetah-v5, which every backend steps."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from typing import Any

FRAME_SKIP = 5
"""Physics steps in a control step."""
NUM_POSITIONS = 9
"""Positions, the free x included; there are as many velocities."""
NUM_ACTIONS = 6
INSTALL = "install it with `pip install 'persim_jax[half_cheetah]'`"


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
    return mujoco.MjModel.from_xml_path(str(xml_path()))


def scaled_model(mass_scale: float, damping_scale: float) -> Any:
    """A copy of the model with scaled masses and joint damping; inertia tensors stay."""
    model = base_model().__copy__()
    model.body_mass[:] = base_model().body_mass * mass_scale
    model.dof_damping[:] = base_model().dof_damping * damping_scale
    return model
