"""Where JAX knows 64 bits a learner's state keeps its kinds of numbers, which a scan asks for."""

import jax
import jax.numpy as jnp
import pytest

from persim_jax.learners.bcq_continuous import ContinuousBCQConfig, make_continuous_bcq
from persim_jax.learners.bcq_discrete import DiscreteBCQConfig, make_discrete_bcq
from persim_jax.learners.cql_continuous import ContinuousCQLConfig, make_continuous_cql
from persim_jax.learners.cql_discrete import DiscreteCQLConfig, make_discrete_cql
from persim_jax.learners.natural_gradient import NaturalGradientConfig, make_natural_gradient
from persim_jax.tasks import DataSpec
from persim_jax.types import Trajectory, Transitions

pytestmark = pytest.mark.optimizes

DISCRETE = DataSpec("toy", ("x", "y"), 3, (), (), 5)
CONTINUOUS = DataSpec("toy", ("x", "y"), 0, (-1.0,), (1.0,), 5)
LEARNERS = {
    "discrete bcq": lambda: make_discrete_bcq(DISCRETE, DiscreteBCQConfig(hidden=(3,))),
    "discrete cql": lambda: make_discrete_cql(DISCRETE, DiscreteCQLConfig(hidden=(3,))),
    "continuous bcq": lambda: make_continuous_bcq(
        CONTINUOUS, ContinuousBCQConfig(hidden=(3,), vae_hidden=(3,))
    ),
    "continuous cql": lambda: make_continuous_cql(
        CONTINUOUS, ContinuousCQLConfig(hidden=(3,), threshold=1.0)
    ),
}


def actions_of(spec, shape, dtype):
    return jnp.zeros(shape, jnp.int32) if spec.discrete else jnp.zeros((*shape, 1), dtype)


def kinds(tree):
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


BOTH = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


@BOTH
@pytest.mark.parametrize("name", LEARNERS)
def test_an_update_keeps_the_kinds_of_an_offline_learner(x64, name, dtype):
    learner, spec = LEARNERS[name](), DISCRETE if "discrete" in name else CONTINUOUS
    batch = Transitions(
        agent=jnp.zeros(4, jnp.int32), obs=jnp.zeros((4, 2), dtype),
        actions=actions_of(spec, (4,), dtype), rewards=jnp.zeros(4, dtype),
        next_obs=jnp.zeros((4, 2), dtype), terminated=jnp.zeros(4, bool),
    )  # fmt: skip
    state = jax.eval_shape(learner.init, jax.random.key(0))
    new, _ = jax.eval_shape(learner.update, jax.random.key(0), state, batch)
    assert kinds(new) == kinds(state)


@BOTH
@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["categorical", "gaussian"])
def test_an_update_keeps_the_kinds_of_the_natural_gradient(x64, spec, dtype):
    learner = make_natural_gradient(spec, NaturalGradientConfig(value_steps=1, value_batch=2))
    episodes = Trajectory(
        obs=jnp.zeros((3, 5, 2), dtype), actions=actions_of(spec, (3, 4), dtype),
        rewards=jnp.zeros((3, 4), dtype), terminated=jnp.zeros((3, 4), bool),
        mask=jnp.ones((3, 4), bool),
    )  # fmt: skip
    state = jax.eval_shape(learner.init, jax.random.key(0))
    new, _ = jax.eval_shape(learner.update, jax.random.key(0), state, episodes)
    assert kinds(new) == kinds(state)
