"""CaDM's rollouts: contexts, members and particles against numpy, and agents told apart."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import training
from persim_jax.data.windows import Windows
from persim_jax.models.base import History
from persim_jax.models.cadm import CadmConfig, cadm_model, contexts
from persim_jax.training import TrainConfig
from tests.models.cadms import (
    HISTORY,
    member_of,
    numpy_context,
    numpy_network,
    random_history,
    random_params,
    small,
    steps_of,
)

contexts_of = functools.partial(jax.jit, static_argnums=0)(contexts)


@functools.partial(jax.jit, static_argnums=0)
def predict(model, params, history, obs, actions, key):
    """What a model shows after each of some actions `[T]`, `[T, M P, D]`."""
    bound = model.bind(params, jnp.asarray(0), history)
    encoded, state, seen = model.encode_actions(bound, actions), model.start(bound, obs), []
    for t in range(len(actions)):
        state = model.step(jax.random.fold_in(key, t), bound, state, encoded[t])
        seen.append(model.observe(state))
    return jnp.stack(seen)


def one_history(config, length, slots):
    return jax.tree.map(lambda leaf: leaf[0], random_history(config, (length,), slots))


def test_the_context_of_a_longer_history_is_that_of_its_last_steps():
    config = small()
    params, long = random_params(config), one_history(small(), 7, 7)
    last = jax.tree.map(lambda leaf: leaf[-HISTORY:], long)
    found = contexts_of(config, params, long)
    np.testing.assert_array_equal(found, contexts_of(config, params, last))
    earlier = long._replace(obs=np.concatenate([long.obs[:-HISTORY] + 1, long.obs[-HISTORY:]]))
    np.testing.assert_array_equal(found, contexts_of(config, params, earlier))
    for member in range(2):
        own = random_history(config, (7,), 7)
        expected = numpy_context(config, params, member, steps_of(own, 0)[-HISTORY:])
        np.testing.assert_allclose(found[member], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_short_history_stands_on_the_left_wherever_its_steps_were(discrete):
    config = small(discrete, normalize_context=True)
    params, history = random_params(config), one_history(config, 2, 5)
    found = contexts_of(config, params, history)
    # A policy's memory has its steps at the end.
    right = jax.tree.map(lambda leaf: np.roll(leaf, 3, axis=0), history)
    np.testing.assert_array_equal(contexts_of(config, params, right), found)
    garbage = history._replace(next_obs=np.where(history.mask[:, None], history.next_obs, np.nan))
    np.testing.assert_array_equal(contexts_of(config, params, garbage), found)
    for member in range(2):
        steps = steps_of(random_history(config, (2,), 5), 0)
        expected = numpy_context(config, params, member, steps)
        np.testing.assert_allclose(found[member], expected, rtol=1e-4, atol=1e-5)


def test_no_history_is_one_without_steps():
    config = small()
    params, nothing = random_params(config), one_history(config, 0, 4)
    empty = jax.tree.map(lambda leaf: leaf[:0], nothing)
    found = contexts_of(config, params, None)
    for history in (nothing, empty):
        np.testing.assert_array_equal(contexts_of(config, params, history), found)
    np.testing.assert_allclose(found[0], numpy_context(config, params, 0, []), rtol=1e-5)


@pytest.mark.parametrize("discrete", [True, False])
def test_rollouts_are_numpys_with_each_member_under_its_own_context(discrete):
    config = small(discrete, skip=discrete)
    params, history = random_params(config), one_history(config, 3, 3)
    norm = params.normalizer._replace(carry=jnp.asarray([1.0, 0.0, 1.0]))
    params = params._replace(normalizer=norm)
    actions = random_history(config, (3,), 3, seed=5).actions[0]
    start = np.float32([0.3, -0.2, 0.1])
    found = predict(cadm_model(config), params, history, start, actions, jax.random.key(0))
    for member in range(2):
        weights, obs = member_of(params, member)["forward"], np.float64(start)
        context = numpy_context(
            config, params, member, steps_of(random_history(config, (3,), 3), 0)
        )
        for t, action in enumerate(actions):
            mean, _ = numpy_network(config, weights, obs, action, context, norm)
            moved = mean * np.float64(norm.target.std) + np.float64(norm.target.mean)
            obs = np.float64([1, 0, 1]) * obs + moved
            np.testing.assert_allclose(found[t, member], obs, rtol=1e-4, atol=1e-4)


def test_another_members_encoder_changes_nothing():
    config = small()
    params, history = random_params(config), one_history(small(), 3, 3)
    arguments = (history, jnp.zeros(3), np.int32([0, 1]), jax.random.key(0))
    before = predict(cadm_model(config), params, *arguments)
    encoder = jax.tree.map(lambda leaf: leaf.at[1].add(1.0), params.weights["encoder"])
    other = params._replace(weights=params.weights | {"encoder": encoder})
    after = predict(cadm_model(config), other, *arguments)
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    assert np.all(np.abs(after[:, 1] - before[:, 1]).max(axis=-1) > 1e-3)


def test_particles_have_the_mean_and_the_spread_of_their_member():
    count = 4000
    config = small(noisy=True, particles=count)
    params, history = random_params(config), one_history(config, 3, 3)
    norm, start = params.normalizer, np.float32([0.3, -0.2, 0.1])
    model = cadm_model(config)
    assert (model.num_members, model.num_paths) == (2, 2 * count)
    shown = predict(model, params, history, start, np.int32([1, 0]), jax.random.key(4))
    first, second = np.asarray(shown).reshape(2, 2, count, 3)
    for member in range(2):
        context = numpy_context(
            config, params, member, steps_of(random_history(config, (3,), 3), 0)
        )
        forward = member_of(params, member)["forward"]
        mean, log_var = numpy_network(config, forward, start, 1, context, norm)
        std = np.exp(0.5 * log_var) * np.asarray(norm.target.std)
        expected = start + mean * np.asarray(norm.target.std) + np.asarray(norm.target.mean)
        np.testing.assert_allclose(
            (first[member].mean(axis=0) - expected) / std, 0.0, atol=5 / np.sqrt(count)
        )
        np.testing.assert_allclose(first[member].std(axis=0), std, rtol=0.08)
        # A particle goes on from its own state, under its own member, with fresh noise.
        for particle in (0, 7):
            at = first[member, particle]
            mean, log_var = numpy_network(config, forward, at, 0, context, norm)
            moved = mean * np.asarray(norm.target.std) + np.asarray(norm.target.mean)
            std = np.exp(0.5 * log_var) * np.asarray(norm.target.std)
            noise = (second[member, particle] - at - moved) / std
            assert np.abs(noise).max() < 5
            before = (at - expected) / np.exp(0.5 * log_var)
            assert np.abs(noise - before).max() > 1e-3


def test_without_noise_the_key_and_the_number_of_particles_do_not_matter():
    config = small()
    params, history = random_params(config), one_history(config, 3, 3)
    arguments = (params, history, jnp.zeros(3), np.int32([0, 1]))
    one = predict(cadm_model(config), *arguments, jax.random.key(0))
    np.testing.assert_array_equal(predict(cadm_model(config), *arguments, jax.random.key(1)), one)
    many = predict(
        cadm_model(dataclasses.replace(config, particles=3)), *arguments, jax.random.key(0)
    )
    np.testing.assert_allclose(many, jnp.repeat(one, 3, axis=1), rtol=1e-5, atol=1e-6)


def opposite_agents(steps=20, agents=40, seed=0):
    """Points on a line that action 1 moves by an agent's gain, +1 or -1; flat steps in order.

    They start far apart, so that where a point is says nothing of its gain.
    """
    rng = np.random.default_rng(seed)
    gains = np.where(np.arange(agents) % 2, 1.0, -1.0)
    actions = rng.integers(2, size=(agents, steps)).astype(np.int32)
    path = np.cumsum(gains[:, None] * actions, axis=1)
    path = np.concatenate([np.zeros((agents, 1)), path], axis=1)
    obs = (path + rng.uniform(-20, 20, (agents, 1)))[..., None].astype(np.float32)
    flat = lambda x: jnp.asarray(x.reshape(agents * steps, *x.shape[2:]))  # noqa: E731
    before = np.broadcast_to(np.arange(steps, dtype=np.int32), (agents, steps))
    data = Windows(
        flat(obs[:, :-1]), flat(actions), flat(obs[:, 1:]), flat(before), flat(steps - before),
        history_length=4, future_length=3,
    )  # fmt: skip
    return data, obs, actions, gains


def test_agents_with_opposite_gains_are_told_apart_by_their_history():
    config = CadmConfig(
        obs_size=1, action_size=2, discrete=True, noisy=True, features=(16,), context_size=3,
        context_features=(16,), history_length=4, future_length=3, decays=(0.0, 0.0),
        context_decays=(0.0,), activation="tanh",
        variance_power=0.5,
    )  # fmt: skip
    model, (data, obs, actions, gains) = cadm_model(config), opposite_agents()
    train = TrainConfig(num_epochs=30, batch_size=32, learning_rate=2e-2)
    state = training.init(jax.random.key(0), model, data, train)
    params = training.train(model, train, state, data).params
    # From a step after a full history, what the push will do; the mean of many draws.
    shown = cadm_model(dataclasses.replace(config, particles=50))
    step, errors, blind = 5, [], []
    for agent in np.flatnonzero(actions[:, step - 4 : step].any(axis=1))[:6]:
        history = History(
            obs[agent, :step], actions[agent, :step], obs[agent, 1 : step + 1],
            mask=np.ones(step, bool),
        )  # fmt: skip
        for given, found in ((history, errors), (None, blind)):
            arguments = (params, given, obs[agent, step], np.int32([1]), jax.random.key(1))
            moved = predict(shown, *arguments)[0].mean() - obs[agent, step, 0]
            found.append(float(jnp.abs(moved - gains[agent])))
    # Whoever does not know the agent errs by 1 on average, whatever it predicts.
    assert np.mean(errors) < 0.2
    assert np.mean(blind) > 0.9
