"""CaDM, the paper's strongest model-based rivals: Vanilla CaDM and PE-TS CaDM.

One model for all agents. What is particular to an agent is a context, which an encoder makes of
the agent's last steps; forward and backward dynamics are trained together under it. Vanilla CaDM is
one network without noise. PE-TS CaDM is an ensemble of Gaussian ones, followed by particles that
keep their member ("TS-infinity"); each member has an encoder of its own and meets no other's
contexts.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax import normalizer as normalizer_lib
from persim_jax.models import cadm_loss, gaussian
from persim_jax.models.base import DynamicsModel, History, ModelParams
from persim_jax.models.cadm_network import CadmConfig as CadmConfig
from persim_jax.models.cadm_network import (
    CadmNetwork,
    CadmNormalizer,
    encode_action,
    encode_history,
    forward_network,
    last_steps,
    no_steps,
    visible,
)
from persim_jax.precision import exact


class BoundCadm(NamedTuple):
    """The ensemble under the contexts of one history.

    Attributes:
      forward: Weights of the forward networks, the contexts folded into the first bias; leaves
        `[M, ...]`.
      normalizer: Scaling.
    """

    forward: Any
    normalizer: CadmNormalizer


@functools.cache
def cadm_model(config: CadmConfig) -> DynamicsModel:
    """CaDM as a `DynamicsModel`; the same record for the same config."""
    return DynamicsModel(
        num_members=config.ensemble_size,
        init=functools.partial(_init, config),
        fit_normalizer=functools.partial(cadm_loss.fit_normalizer, config),
        loss=functools.partial(cadm_loss.loss, config),
        bind=exact(functools.partial(_bind, config)),
        encode_actions=exact(functools.partial(_encode_actions, config)),
        start=functools.partial(_start, config),
        step=exact(functools.partial(_step, config)),
        observe=functools.partial(_observe, config),
        particles=config.particles,
        history_length=config.history_length,
    )


def contexts(config: CadmConfig, params: ModelParams, history: History | None) -> jax.Array:
    """The context that each member makes of a history, `[M, C]`.

    Args:
      config: Sizes.
      params: Ensemble.
      history: `[W, ...]`, of which the last `history_length` steps count; None or one without
        slots is the start of an episode.
    """
    dtype = params.normalizer.obs.mean.dtype
    if history is None or history.mask.shape[0] == 0:
        recent = no_steps(config, dtype)
    else:
        recent = last_steps(history, config.history_length)
    inputs, network = encode_history(config, params.normalizer, recent), CadmNetwork(config)

    def member(weights: Any) -> jax.Array:
        context: jax.Array = network.apply({"params": weights}, inputs, method=CadmNetwork.context)
        return context

    return jax.vmap(member)(params.weights)


def _init(config: CadmConfig, key: jax.Array) -> Any:
    network = CadmNetwork(config)
    history, inputs = (
        jnp.zeros(size) for size in (config.history_size, config.input_size + config.action_size)
    )

    def init_member(member: jax.Array) -> Any:
        return network.init(jax.random.fold_in(key, member), history, inputs)["params"]

    return jax.vmap(init_member)(jnp.arange(config.ensemble_size))


def _bind(
    config: CadmConfig, params: ModelParams, agent: jax.Array, history: History | None
) -> BoundCadm:
    del agent  # known by its history alone

    found = contexts(config, params, history)
    forward = jax.vmap(functools.partial(_fold, config))(params.weights["forward"], found)
    return BoundCadm(forward, params.normalizer)


def _fold(config: CadmConfig, weights: Any, context: jax.Array) -> Any:
    """Weights of one member's forward network `[I + A] -> [D]` under a context `[C]`."""

    def folded(layer: Any) -> Any:
        # Where a layer sees the context, it stands last.
        own, shared = jnp.split(layer["kernel"], [layer["kernel"].shape[0] - context.shape[0]])
        return {"kernel": own, "bias": layer["bias"] + context @ shared}

    trunk = weights["trunk"] | {"dense_0": folded(weights["trunk"]["dense_0"])}
    heads = [name for name in weights if name.endswith("_head")] if config.skip else []
    return (
        weights | {"trunk": trunk} | {n: {"dense_0": folded(weights[n]["dense_0"])} for n in heads}
    )


def _encode_actions(config: CadmConfig, bound: BoundCadm, actions: jax.Array) -> jax.Array:
    return encode_action(config, bound.normalizer.actions, actions, bound.normalizer.carry.dtype)


def _start(config: CadmConfig, bound: BoundCadm, obs: jax.Array) -> jax.Array:
    del bound
    return jnp.broadcast_to(obs, (config.ensemble_size, config.particles, *obs.shape))


def _step(
    config: CadmConfig, key: jax.Array, bound: BoundCadm, obs: jax.Array, encoded: jax.Array
) -> jax.Array:
    network, norm = forward_network(config), bound.normalizer
    states = normalizer_lib.apply(norm.obs, visible(config, obs))
    inputs = jnp.concatenate(
        [states, jnp.broadcast_to(encoded, (*obs.shape[:-1], *encoded.shape))], axis=-1
    )

    def member(weights: Any, inputs: jax.Array) -> gaussian.Gaussian:
        predicted: gaussian.Gaussian = network.apply({"params": weights}, inputs)
        return predicted

    # On a CPU one product for each member is faster than a batched one.
    each = [
        member(*jax.tree.map(lambda leaf, m=m: leaf[m], (bound.forward, inputs)))
        for m in range(config.ensemble_size)
    ]
    predicted = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    moved = normalizer_lib.invert(norm.target, gaussian.draw(key, predicted))
    return norm.carry[None, None] * obs + moved


def _observe(config: CadmConfig, model_state: jax.Array) -> jax.Array:
    return model_state.reshape(-1, config.obs_size)
