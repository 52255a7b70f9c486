"""Worlds and methods whose numbers are known, for the tests of what is measured."""

import jax

from experiments.policies import greedy_act
from experiments.stages import make_world
from experiments.workdir import Workdir
from persim_jax.collect import memoryless
from persim_jax.methods import Method
from persim_jax.models.true_env import true_dynamics
from tests.experiments.jobs import tiny

WRONG = 1.15


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def wrong_physics(world):
    """A method whose model is the truth with stronger forces, and whose policy is the test one."""
    act, test = greedy_act(world.env.spec.name), world.policies.test
    params = jax.tree.map(lambda leaf: WRONG * leaf, world.env_params)
    return Method(
        name="wrong",
        plans=False,
        fit=lambda *_: params,
        policy=lambda fitted, agent, planner: memoryless(act, test),
        model=lambda fitted: (true_dynamics(world.env), fitted),
    ), params


def setup_of(path, **changes):
    config = tiny(**changes)
    return Workdir(path, config), make_world(config)
