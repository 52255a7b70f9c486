"""In which precision matrix products are computed; all else stays float32.

Parameters, activations, gradients and the optimiser's state are float32 in every precision, and so
are the sums inside a product: only what enters a product is rounded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

PRECISIONS = {"highest": "highest", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}
"""Our names, and what JAX calls them.

"tf32" rounds to ten bits where the device has such products and is "highest" elsewhere.
"""


@contextlib.contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Lets the products that are traced inside be computed in a precision.

    Args:
      precision: A name in `PRECISIONS`.

    Raises:
      ValueError: There is no such name.
    """
    check(precision)
    with jax.default_matmul_precision(PRECISIONS[precision]):
        yield


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose products are those of float32, unless JAX was told of another precision.

    Left to themselves GPUs round what enters a product to ten bits and TPUs to seven, and a model
    that is 1e-4 from its data predicts an accelerator's rounding.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        settings: Any = jax.config
        if settings.jax_default_matmul_precision is not None:
            return function(*args, **kwargs)
        with products_in("highest"):
            return function(*args, **kwargs)

    return call


def check(precision: str) -> None:
    """Refuses a precision that there is not.

    Raises:
      ValueError: Says which there are.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown: use one of {', '.join(PRECISIONS)}")


def dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`lax.dot_general` of a dense layer, `[..., I] x [I, O] -> [..., O]`, for flax's `Dense`.

    Inside `products_in("bf16")` this product and both products of its gradient take bfloat16 and
    add up in float32, on every device: XLA honours the name of the precision on accelerators only.
    """
    settings: Any = jax.config  # its fields are made at run time, unseen by type checkers
    if settings.jax_default_matmul_precision != PRECISIONS["bf16"]:
        return lax.dot_general(lhs, rhs, dimension_numbers, precision=precision, **options)
    return _rounded_product(lhs, rhs)


@jax.custom_vjp
def _rounded_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _product(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), (x.ndim - 1,), (0,))


def _product(
    lhs: jax.Array, rhs: jax.Array, left: tuple[int, ...], right: tuple[int, ...]
) -> jax.Array:
    """Contracts axes `left` of one with axes `right` of the other, adding up in float32."""
    numbers = ((left, right), ((), ()))
    return lax.dot_general(lhs, rhs, numbers, preferred_element_type=jnp.float32)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    rounded = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    return _product(*rounded, (x.ndim - 1,), (0,)), rounded


def _backward(
    rounded: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Left to JAX, the transposed products would take the float32 cotangent as it is.
    x, kernel = rounded
    cotangent = cotangent.astype(jnp.bfloat16)
    leading, last = tuple(range(x.ndim - 1)), (x.ndim - 1,)
    return _product(cotangent, kernel, last, (1,)), _product(x, cotangent, leading, leading)


_rounded_product.defvjp(_forward, _backward)
