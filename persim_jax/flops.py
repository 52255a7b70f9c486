"""How fast training is: operations counted in the program, and what a device can do at most.

XLA's own count takes the body of a loop once and adds what it fused; here each matrix product of
the traced program counts 2 m n k, as often as it is run, and nothing else does.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from persim_jax.mesh import BATCH, MEMBER
from persim_jax.models.base import DynamicsModel
from persim_jax.optimization import TrainConfig, steps_per_epoch
from persim_jax.precision import products_in
from persim_jax.training import member_loss
from persim_jax.types import Items

PRODUCT_SIZES = {"cpu": 1024}
"""Rows and columns of the large product by platform; a size that fills the device."""
ACCELERATOR_SIZE = 8192
MIN_CALLS = 3


def product_flops(function: Callable, *args: Any) -> int:
    """Operations in the matrix products of a function.

    Args:
      function: Traceable; its arguments may be `jax.ShapeDtypeStruct`s.
      *args: Its arguments.

    Raises:
      ValueError: A product is inside a `while` loop, of which nobody knows how often it is run.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def epoch_flops(model: DynamicsModel, config: TrainConfig, data: Items) -> int:
    """Operations in the matrix products of an epoch, forward and backward, over all members.

    Args:
      model: What is trained.
      config: How.
      data: Arrays or their shapes, B items.

    Raises:
      ValueError: As `product_flops`.
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), data)
    size = shapes.num_items
    rows = jnp.arange(min(config.batch_size, size))
    batch = jax.eval_shape(lambda data: data.take(rows), shapes)
    key = jax.eval_shape(lambda: jax.random.key(0))
    weights = jax.eval_shape(model.init, key)
    one = jax.tree.map(lambda leaf: leaf.update(shape=leaf.shape[1:]), weights)
    normalizer = jax.eval_shape(model.fit_normalizer, shapes)

    def step(weights: Any, normalizer: Any, batch: Any, key: jax.Array) -> Any:
        return jax.value_and_grad(member_loss(model, normalizer))(weights, batch, key)

    # In "bf16" a product that XLA drops, the gradient of the inputs, would count too.
    with products_in("highest"):
        of_step = product_flops(step, one, normalizer, batch, key)
    return model.num_members * steps_per_epoch(config, size) * of_step


def measured_product_rate(precision: str, mesh: Mesh, seconds: float = 0.3) -> float:
    """Operations per second of a large matrix product on all devices of a mesh at once.

    Args:
      precision: A name in `persim_jax.precision.PRECISIONS`.
      mesh: Each device multiplies matrices of its own.
      seconds: How long to measure; the fastest of the calls counts.
    """
    platform = mesh.devices.flat[0].platform
    size = PRODUCT_SIZES.get(platform, ACCELERATOR_SIZE)
    kind = jnp.bfloat16 if precision == "bf16" else jnp.float32
    spread = NamedSharding(mesh, PartitionSpec((MEMBER, BATCH)))
    shape = (mesh.size * size, size)
    left, right = (
        jax.device_put(jax.random.normal(jax.random.key(i), shape, kind), spread) for i in (0, 1)
    )
    _products(left, right, precision, mesh).block_until_ready()
    best, calls, begin = math.inf, 0, time.perf_counter()
    while calls < MIN_CALLS or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        _products(left, right, precision, mesh).block_until_ready()
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return mesh.size * 2 * size**3 / best


@functools.partial(jax.jit, static_argnames=("precision", "mesh"))
def _products(left: jax.Array, right: jax.Array, precision: str, mesh: Mesh) -> jax.Array:
    def of_device(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.matmul(left, right, preferred_element_type=jnp.float32)

    spread = PartitionSpec((MEMBER, BATCH))
    with products_in(precision):
        products: jax.Array = jax.shard_map(
            of_device, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False
        )(left, right)
    return products


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    inner = [_count(found) for value in params.values() for found in _jaxprs(value)]
    if name == "while" and any(inner):
        raise ValueError(
            "a matrix product is inside a while loop: count one turn of it, and how many there were"
        )
    if name == "cond":
        return max(inner)
    return int(params.get("length", 1) if name == "scan" else 1) * sum(inner)


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    """The programs in an equation's parameter."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    return [j for item in value for j in _jaxprs(item)] if isinstance(value, tuple | list) else []
