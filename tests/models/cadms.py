"""CaDM in numpy, and small ensembles and windows for its tests."""

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data.windows import WindowBatch
from persim_jax.models.base import History, ModelParams
from persim_jax.models.cadm import CadmConfig, cadm_model
from persim_jax.models.cadm_network import CadmNormalizer
from persim_jax.normalizer import Normalizer

HISTORY, FUTURE = 3, 2


def small(discrete=True, **fields):
    """Two members with two hidden layers, D = 3, A = 2; weights of decays that show."""
    sizes = {
        "features": (5, 4), "context_features": (6,), "context_size": 2, "ensemble_size": 2,
        "history_length": HISTORY, "future_length": FUTURE, "decays": (0.01, 0.02, 0.03),
        "context_decays": (0.04,), "activation": "tanh",
    }  # fmt: skip
    return CadmConfig(obs_size=3, action_size=2, discrete=discrete, **(sizes | fields))


def random_params(config, seed=0):
    """Random weights of the right sizes and a normalizer that scales and shifts everything."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(cadm_model(config).init, jax.random.key(0))
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32)  # noqa: E731
    weights = jax.tree.map(draw, shapes)
    if config.noisy:
        size = (config.ensemble_size, config.obs_size)
        weights["forward"]["max_log_var"] = jnp.asarray(rng.uniform(0, 1, size), jnp.float32)
        weights["forward"]["min_log_var"] = jnp.asarray(rng.uniform(-5, -4, size), jnp.float32)

    def scaling(size):
        return Normalizer(
            mean=jnp.asarray(rng.normal(size=size), jnp.float32),
            std=jnp.asarray(rng.uniform(0.3, 3.0, size), jnp.float32),
        )

    norm = CadmNormalizer(
        obs=scaling(config.input_size),
        actions=None if config.discrete else scaling(config.action_size),
        target=scaling(config.obs_size),
        back_target=scaling(config.obs_size),
        carry=jnp.ones(config.obs_size),
        context=scaling(config.obs_size),
        items_per_step=jnp.float32(1.5),
    )
    return ModelParams(weights, norm)


def random_history(config, lengths, slots=HISTORY, seed=1):
    """Histories `[B, slots, ...]` of some lengths, from the left, garbage after their ends."""
    rng, count = np.random.default_rng(seed), len(lengths)
    shape = (count, slots)
    actions = (
        rng.integers(config.action_size, size=shape).astype(np.int32)
        if config.discrete
        else rng.uniform(-1, 1, (*shape, config.action_size)).astype(np.float32)
    )
    obs, next_obs = rng.normal(size=(2, *shape, config.obs_size)).astype(np.float32)
    return History(obs, actions, next_obs, mask=np.arange(slots) < np.asarray(lengths)[:, None])


def random_batch(config, seed=2):
    """Windows of four base steps, `[B, ...]`; some have no past, some a short future."""
    future = random_history(config, (2, 1, 2, 1), FUTURE, seed)
    history = random_history(config, (0, 2, 3, 3), HISTORY, seed + 1)
    return WindowBatch(history, future.obs, future.actions, future.next_obs, future.mask)


def of_members(tree, count=2):
    """The same for each member, `[M, ...]`."""
    return jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * count), tree)


def scaled(normalizer, values):
    return (np.float64(values) - np.float64(normalizer.mean)) / np.float64(normalizer.std)


def layer(weights, x):
    return x @ np.float64(weights["kernel"]) + np.float64(weights["bias"])


def encoded_action(config, norm, action):
    if config.discrete:
        return np.eye(config.action_size)[action]
    return scaled(norm.actions, action)


def numpy_context(config, params, member, steps):
    """The context of at most H steps (obs, action, next_obs), oldest first."""
    norm, encoder = params.normalizer, member_of(params, member)["encoder"]
    states = np.zeros((config.history_length, config.obs_size))
    actions = np.zeros((config.history_length, config.action_size))
    for slot, (obs, action, next_obs) in enumerate(steps):
        delta = np.float64(next_obs) - np.float64(obs)
        states[slot] = scaled(norm.context, delta) if config.normalize_context else delta
        actions[slot] = encoded_action(config, norm, action)
    x = np.concatenate([states.ravel(), actions.ravel()])
    for index in range(len(config.context_features)):
        x = np.maximum(layer(encoder[f"dense_{index}"], x), 0.0)
    return layer(encoder[f"dense_{len(config.context_features)}"], x)


def numpy_network(config, weights, obs, action, context, norm):
    """Scaled mean, and log-variance or None, of a network of tanh layers."""
    x = np.concatenate([scaled(norm.obs, obs), encoded_action(config, norm, action), context])
    seen = x
    for index in range(len(config.features)):
        x = np.tanh(layer(weights["trunk"][f"dense_{index}"], x))
    x = np.concatenate([x, seen]) if config.skip else x
    mean = layer(weights["mean_head"]["dense_0"], x)
    if "log_var_head" not in weights:
        return mean, None
    raw = layer(weights["log_var_head"]["dense_0"], x)
    low, high = np.float64(weights["min_log_var"]), np.float64(weights["max_log_var"])
    softplus = lambda y: np.log1p(np.exp(y))  # noqa: E731
    below = high - softplus(high - raw)
    return mean, low + softplus(below - low)


def member_of(params, member):
    return jax.tree.map(lambda leaf: np.asarray(leaf[member]), params.weights)


def steps_of(history, item):
    """The steps of one history as (obs, action, next_obs)."""
    return [
        (history.obs[item, t], history.actions[item, t], history.next_obs[item, t])
        for t in np.flatnonzero(history.mask[item])
    ]
