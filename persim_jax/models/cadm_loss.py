"""CaDM's loss: F one-step losses from true states under one context, forward and backward."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from persim_jax import normalizer as normalizer_lib
from persim_jax.data.windows import WindowBatch, Windows
from persim_jax.models import gaussian
from persim_jax.models.base import ModelParams
from persim_jax.models.cadm_network import (
    CadmConfig,
    CadmNetwork,
    CadmNormalizer,
    encode_history,
    joined_inputs,
    visible,
)
from persim_jax.models.ensemble import fit_carry
from persim_jax.types import Metrics


def fit_normalizer(config: CadmConfig, data: Windows) -> CadmNormalizer:
    """Statistics of the base steps, each counted once."""
    carry = fit_carry(config.target, data.obs, data.next_obs)
    if config.absolute:
        carry = carry.at[jnp.asarray(config.absolute)].set(0.0)
    # The loss divides by the same number for every batch, so that it is a mean over base steps.
    items = jnp.minimum(data.after, config.future_length).mean(dtype=data.obs.dtype)
    return CadmNormalizer(
        obs=normalizer_lib.fit(visible(config, data.obs)),
        actions=None if config.discrete else normalizer_lib.fit(data.actions),
        target=normalizer_lib.fit(data.next_obs - carry[None] * data.obs),
        back_target=normalizer_lib.fit(data.obs - carry[None] * data.next_obs),
        carry=carry,
        context=normalizer_lib.fit(data.next_obs - data.obs),
        items_per_step=items,
    )


def loss(
    config: CadmConfig, params: ModelParams, batch: WindowBatch, key: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Forward loss + back_weight times the backward one + bounds + decays, `[M]`.

    The forward loss is the mean squared error or, with a variance, the mean of
    (mean - y)^2 / variance + log variance, over dimensions and over all steps of the windows, in
    scaled units. Every step of a window is predicted from its true state, under the context of the
    steps before the first. Bounds of variances are each member's own, and so is their weight:
    the authors' members share them, which would let members meet.

    Args:
      config: Sizes.
      params: Ensemble.
      batch: Leaves `[M, B, ...]`.
      key: Unused.

    Returns:
      Losses `[M]`, and the forward and backward parts.
    """
    del key
    norm = params.normalizer

    def member(weights: Any, batch: WindowBatch) -> tuple[jax.Array, Metrics]:
        return member_loss(config, norm, weights, batch)

    if jax.tree.leaves(params.weights)[0].shape[0] == 1:
        # A batched product of one is three times slower than a plain one on a CPU.
        one = jax.tree.map(lambda leaf: leaf[0], (params.weights, batch))
        return jax.tree.map(lambda leaf: leaf[None], member(*one))
    return jax.vmap(member)(params.weights, batch)


def member_loss(
    config: CadmConfig, norm: CadmNormalizer, weights: Any, batch: WindowBatch
) -> tuple[jax.Array, Metrics]:
    """The loss of one member, `[]`, on windows `[B, ...]`."""
    variables, network = {"params": weights}, CadmNetwork(config)
    histories = encode_history(config, norm, batch.history)
    context = network.apply(variables, histories, method=CadmNetwork.context)
    shape = (*batch.mask.shape, config.context_size)
    context = jnp.broadcast_to(context[:, None], shape)
    carry = norm.carry[None, None]

    def mean(values: jax.Array) -> jax.Array:
        """Of `[B, F, D]` over what there is."""
        kept = jnp.where(batch.mask[..., None], values, 0.0).mean(axis=(0, 2))
        return kept.sum() / norm.items_per_step

    inputs = joined_inputs(config, norm, batch.obs, batch.actions)
    target = normalizer_lib.apply(norm.target, batch.next_obs - carry * batch.obs)
    predicted = network.apply(variables, inputs, context, method=CadmNetwork.ahead)
    forward = mean(gaussian.surprise(predicted, target, config.variance_power))

    inputs = joined_inputs(config, norm, batch.next_obs, batch.actions)
    target = normalizer_lib.apply(norm.back_target, batch.obs - carry * batch.next_obs)
    returned = network.apply(variables, inputs, context, method=CadmNetwork.back)
    backward = mean(jnp.square(returned - target))

    total = forward + config.back_weight * backward + penalty(config, weights)
    return total, {"forward": forward, "backward": backward}


def penalty(config: CadmConfig, weights: Any) -> jax.Array:
    """What a member's weights alone add to its loss, `[]`."""
    decays = (*config.context_decays, config.context_decays[-1])
    layers = (weights["encoder"][f"dense_{index}"]["kernel"] for index in range(len(decays)))
    encoder = sum(
        (0.5 * d * jnp.square(kernel).sum() for d, kernel in zip(decays, layers, strict=True)),
        jnp.zeros(()),
    )
    networks = [gaussian.decay(weights[name], config.decays) for name in ("forward", "backward")]
    bounds = gaussian.bound_penalty(weights["forward"], config.bound_weight)
    return encoder + networks[0] + networks[1] + bounds
