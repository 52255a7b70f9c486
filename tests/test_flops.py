"""Operations of training, against a count by hand and XLA's own."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import flops, training
from persim_jax.mesh import MeshConfig, make_mesh
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.training import TrainConfig
from persim_jax.types import Transitions

MEMBERS, ROWS, STEPS = 3, 256, 2
CONFIG = FactorConfig(
    num_agents=9, obs_size=5, action_size=4, discrete=False, rank=6, state_features=(64, 48),
    action_features=(32,), ensemble_size=MEMBERS,
)  # fmt: skip


def shapes():
    """Transitions without numbers; a few more than two minibatches."""
    size = STEPS * ROWS + 7
    make = lambda *shape: jax.ShapeDtypeStruct((size, *shape), jnp.float32)  # noqa: E731
    index = jax.ShapeDtypeStruct((size,), jnp.int32)
    return Transitions(
        agent=index, obs=make(5), actions=make(4), rewards=make(), next_obs=make(5),
        terminated=jax.ShapeDtypeStruct((size,), bool),
    )  # fmt: skip


def by_hand():
    """2 m n k of each layer: forward, its weights' gradient, and its inputs' but for the first."""
    layers = {"state": [(5, 64), (64, 48), (48, 5 * 6)], "action": [(4, 32), (32, 6)]}
    total = sum(
        2 * ROWS * inputs * outputs * (3 if index else 2)
        for encoder in layers.values()
        for index, (inputs, outputs) in enumerate(encoder)
    )
    return MEMBERS * STEPS * total


@pytest.mark.parametrize("precision", ["highest", "bf16"])
def test_an_epoch_counts_what_a_person_counts(precision):
    config = TrainConfig(num_epochs=7, batch_size=ROWS, precision=precision)
    assert flops.epoch_flops(factor_model(CONFIG), config, shapes()) == by_hand()


def test_a_step_counts_what_xla_counts():
    model, key = factor_model(CONFIG), jax.random.key(0)

    def step(weights, data):
        loss = training.member_loss(model, model.fit_normalizer(data))
        batch = jax.tree.map(lambda leaf: leaf[:ROWS], data)
        return jax.value_and_grad(loss)(weights, batch, key)

    weights = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], model.init(key)))
    counted = jax.jit(step).lower(weights, shapes()).compile().cost_analysis()["flops"]
    assert by_hand() / MEMBERS / STEPS == pytest.approx(counted, rel=0.15)


def test_loops_branches_and_batches_count_as_often_as_they_run():
    a, b = np.ones((3, 4), np.float32), np.ones((4, 4), np.float32)
    one = 2 * 3 * 4 * 4
    assert flops.product_flops(jnp.matmul, a, b) == one
    assert flops.product_flops(jax.jit(jnp.matmul), a, b) == one
    loop = lambda a, b: jax.lax.scan(lambda x, _: (x @ b, None), a, length=5)  # noqa: E731
    assert flops.product_flops(loop, a, b) == 5 * one
    both = lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a @ b @ b)  # noqa: E731
    assert flops.product_flops(both, a, b) == 2 * one
    many = jax.vmap(jnp.matmul, (None, 0))
    assert flops.product_flops(many, a, np.stack([b, b, b])) == 3 * one
    forever = lambda a, b: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ b, a)  # noqa: E731
    with pytest.raises(ValueError, match="inside a while loop"):
        flops.product_flops(forever, a, b)
    assert flops.product_flops(lambda a: jax.lax.while_loop(jnp.any, lambda x: x - 1, a), a) == 0


@pytest.mark.parametrize("precision", ["highest", "bf16"])
def test_the_fastest_of_the_large_products_is_the_rate(monkeypatch, precision):
    # Calls take 3, 2, 5, 1, 5, 5, ... seconds of this clock; it is looked at between them, too.
    takes = itertools.chain([3.0, 2.0, 5.0, 1.0], itertools.repeat(5.0))
    ticks = itertools.accumulate(itertools.chain([0.0], spread(takes)))
    monkeypatch.setattr(flops, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(flops, "PRODUCT_SIZES", {"cpu": 32})
    mesh = make_mesh(MeshConfig(), 1, (1,))
    assert flops.measured_product_rate(precision, mesh, seconds=12.0) == 2 * 32**3 / 1.0


def spread(takes):
    """Steps of a clock that is read before and after each call, and, after two, once more."""
    for index, seconds in enumerate(takes):
        yield from (0.0, seconds)
        if index >= flops.MIN_CALLS - 1:
            yield 0.0
