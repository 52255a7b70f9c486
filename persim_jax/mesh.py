"""Devices as a mesh with the axes ("member", "batch"), and training's computations spread over it.

Members never meet, so the first axis costs no communication. Along the second axis a minibatch is
split and the parts' gradients are averaged. With one device all of this is the identity.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from persim_jax.types import PyTree

MEMBER, BATCH = "member", "batch"
AUTO = -1

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices training is spread over; hashable.

    Attributes:
      member: Devices among which the members are dealt out; it divides their number. -1 takes as
        many as there are.
      batch: Devices among which each minibatch is split; it divides its size. -1 takes as many as
        the members leave.
    """

    member: int = AUTO
    batch: int = AUTO

    def __post_init__(self) -> None:
        """Refuses sizes that no mesh has."""
        for name in (MEMBER, BATCH):
            if (size := getattr(self, name)) < 1 and size != AUTO:
                raise ValueError(f"{name} is {size}: give a number of devices, or -1 for auto")


def shape_of(
    config: MeshConfig, num_members: int, batch_sizes: Sequence[int], num_devices: int
) -> tuple[int, int]:
    """Sizes of the two axes.

    Args:
      config: What was asked for.
      num_members: Members that are trained.
      batch_sizes: Transitions in a minibatch, and in whatever else is split like one.
      num_devices: That there are.

    Raises:
      ValueError: There are fewer devices, or something does not divide; says the numbers.
    """
    asked = [size if size != AUTO else 1 for size in (config.member, config.batch)]
    if math.prod(asked) > num_devices:
        raise ValueError(
            f"mesh.member {asked[0]} x mesh.batch {asked[1]} asks for {math.prod(asked)} devices "
            f"and there are {num_devices}: lower one, or use -1 for as many as there are"
        )
    member = config.member
    if member == AUTO:
        member = _largest_divisor(num_members, num_devices // asked[1])
    elif num_members % member:
        raise ValueError(
            f"{num_members} members (spare ones included) do not divide over mesh.member {member}: "
            f"use {_divisors(num_members)}, or -1"
        )
    if config.batch == AUTO:
        return member, _largest_divisor(math.gcd(*batch_sizes), num_devices // member)
    for size in batch_sizes:
        if size % config.batch:
            raise ValueError(
                f"a batch of {size} transitions does not divide over mesh.batch {config.batch}: "
                f"use {_divisors(math.gcd(*batch_sizes))}, or -1, or other sizes of batches"
            )
    return member, config.batch


def make_mesh(
    config: MeshConfig,
    num_members: int,
    batch_sizes: Sequence[int],
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """The mesh that a config asks for, over this process's devices unless others are given.

    Raises:
      ValueError: As `shape_of`.
    """
    devices = jax.local_devices() if devices is None else devices
    shape = shape_of(config, num_members, batch_sizes, len(devices))
    kinds = (AxisType.Auto, AxisType.Auto)
    used = devices[: math.prod(shape)]
    return jax.make_mesh(shape, (MEMBER, BATCH), axis_types=kinds, devices=used)


def by_member(mesh: Mesh | None, tree: Tree) -> Tree:
    """Deals out leaves `[M, ...]` over the mesh's members."""
    # Along an axis of one device nothing is dealt out. Said otherwise, the first epoch's arguments
    # would look unlike its results, and it would be compiled twice.
    alone = mesh is None or mesh.shape[MEMBER] == 1
    return _put(mesh, tree, PartitionSpec() if alone else PartitionSpec(MEMBER))


def everywhere(mesh: Mesh | None, tree: Tree) -> Tree:
    """Copies leaves to each device of the mesh."""
    return _put(mesh, tree, PartitionSpec())


def gathered(mesh: Mesh | None, tree: Tree) -> Tree:
    """Brings arrays back to the default device, so that what follows knows of no mesh."""
    if _is_one(mesh):
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)


def over_members(function: Callable, num_members: int, chunk: int, mesh: Mesh | None) -> Callable:
    """Lifts a function of one member to all of them, each on the device that holds it.

    Args:
      function: `(member [], shared, *trees) -> trees`; inside it `own_part` and `mean_over_batch`
        know the mesh.
      num_members: M.
      chunk: Members of a device that are computed side by side, 0 for all and -1 for what suits
        the device, see `resolved_chunk`.
      mesh: Static; None is one device.

    Returns:
      `(shared, *trees) -> trees`, where the leaves of `trees` are `[M, ...]` and `shared` is the
      same for all.
    """
    chunk = resolved_chunk(chunk, mesh, on_cpu=1)

    def of_device(shared: PyTree, *trees: PyTree) -> PyTree:
        count = trees[0].shape[0]
        width = min(chunk or count, count)
        one = lambda xs: function(xs[0], shared, *xs[1:])  # noqa: E731
        # lax.map with a batch size of 1 would make a batched product of each.
        return lax.map(one, trees) if width == 1 else lax.map(one, trees, batch_size=width)

    def lifted(shared: PyTree, *trees: PyTree) -> PyTree:
        members = jnp.arange(num_members)
        if _is_one(mesh):
            return of_device(shared, members, *trees)
        own = PartitionSpec(MEMBER)
        # Nobody checks what is equal along "batch": third parties' loops do not declare it.
        return jax.shard_map(
            of_device, mesh=mesh, in_specs=(PartitionSpec(), own, *(own for _ in trees)),
            out_specs=own, check_vma=False,
        )(shared, members, *trees)  # fmt: skip

    return lifted


def own_part(mesh: Mesh | None, rows: jax.Array) -> jax.Array:
    """This device's part of a batch `[..., B] -> [..., B / batch]`, inside `over_members`."""
    if _num_batch(mesh) == 1:
        return rows
    size = rows.shape[-1] // _num_batch(mesh)
    return lax.dynamic_slice_in_dim(rows, lax.axis_index(BATCH) * size, size, axis=-1)


def mean_over_batch(
    mesh: Mesh | None, loss: Callable[[PyTree, PyTree, jax.Array], jax.Array]
) -> Callable[[PyTree, PyTree, jax.Array], jax.Array]:
    """A loss of the whole batch from one that is a mean over its part, inside `over_members`.

    Args:
      mesh: Static.
      loss: `(weights, batch, key) -> []`, the mean over the transitions of a batch.

    Returns:
      The same function, given this device's part of a batch, with the value and the gradient of
      the whole batch on each device. Parts draw with keys of their own.
    """
    if _num_batch(mesh) == 1:
        return loss

    def value_and_grad(weights: PyTree, batch: PyTree, key: jax.Array) -> Any:
        key = jax.random.fold_in(key, lax.axis_index(BATCH))
        return lax.pmean(jax.value_and_grad(loss)(weights, batch, key), BATCH)

    @jax.custom_vjp
    def whole(weights: PyTree, batch: PyTree, key: jax.Array) -> jax.Array:
        key = jax.random.fold_in(key, lax.axis_index(BATCH))
        return lax.pmean(loss(weights, batch, key), BATCH)

    def backward(grads: PyTree, cotangent: jax.Array) -> tuple[PyTree, None, None]:
        return jax.tree.map(lambda grad: grad * cotangent, grads), None, None

    # Left to itself JAX would take a mean over devices for a function of its own part only.
    whole.defvjp(value_and_grad, backward)
    return whole


def resolved_chunk(chunk: int, mesh: Mesh | None = None, on_cpu: int = 1) -> int:
    """How many of something are computed side by side, where -1 leaves it to the device.

    On a CPU small batched products cost three times as much as single ones and what leaves the
    cache costs more; an accelerator wants all at once.

    Args:
      chunk: -1, or what was asked for.
      mesh: Where; None is JAX's default device.
      on_cpu: What -1 means on a CPU; elsewhere it means 0, all.
    """
    if chunk != AUTO:
        return chunk
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    return on_cpu if platform == "cpu" else 0


def _put(mesh: Mesh | None, tree: Tree, spec: PartitionSpec) -> Tree:
    if mesh is None or _is_one(mesh):
        return tree
    return jax.device_put(tree, NamedSharding(mesh, spec))


def _is_one(mesh: Mesh | None) -> bool:
    return mesh is None or mesh.size == 1


def _num_batch(mesh: Mesh | None) -> int:
    return 1 if mesh is None else mesh.shape[BATCH]


def _divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, number + 1) if number % size == 0)


def _largest_divisor(number: int, limit: int) -> int:
    return max(size for size in range(1, limit + 1) if number % size == 0)
