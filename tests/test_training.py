"""Training against Adam in numpy and the closed form of least squares, and every way to cut it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import training
from persim_jax.models.base import DynamicsModel
from persim_jax.training import DivergedError, TrainConfig
from persim_jax.types import Transitions
from tests.toys import cache_size

MEMBERS = 3
SCALES = np.float32([1.0, 30.0, 0.1])
CONFIG = TrainConfig(num_epochs=3, batch_size=16, learning_rate=0.05, polish_rounds=2)


@functools.cache
def regression(num_members=MEMBERS):
    """Linear regression of rewards on observations, one weight vector for each member."""

    def init(key):
        keys = jax.vmap(lambda m: jax.random.fold_in(key, m))(jnp.arange(num_members))
        return {"w": jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)}

    def loss(params, batch, key):
        predicted = jnp.einsum("mbf,mf->mb", batch.obs, params.weights["w"])
        return jnp.square(predicted - batch.rewards).mean(axis=1), {}

    return DynamicsModel(
        num_members=num_members,
        init=init,
        fit_normalizer=lambda data: (),
        loss=loss,
        bind=None,
        encode_actions=None,
        start=None,
        step=None,
        observe=None,
    )


def make_data(size=50, scales=(1.0, 1.0, 1.0), bad_row=None):
    rng = np.random.default_rng(0)
    obs = (rng.normal(size=(size, 3)) * scales).astype(np.float32)
    rewards = (obs @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=size)).astype(np.float32)
    if bad_row is not None:
        rewards[bad_row] = np.nan
    zeros = np.zeros(size, np.int32)
    return Transitions(
        agent=zeros, obs=obs, actions=zeros, rewards=rewards, next_obs=obs, terminated=zeros > 0
    )


def start(config=CONFIG, data=None, members=MEMBERS):
    data = make_data() if data is None else data
    return training.init(jax.random.key(1), regression(members), data, config)


def numpy_adam(state, config, data, member):
    """One member trained alone: plain Adam on the minibatches of the keys that training names."""
    w = np.float64(state.params.weights["w"][member])
    m, v, size = np.zeros(3), np.zeros(3), len(data.agent)
    steps, t = size // config.batch_size, 0
    for epoch in range(config.num_epochs):
        key = jax.random.fold_in(jax.random.fold_in(state.key, epoch), member)
        order = np.asarray(jax.random.permutation(jax.random.split(key)[0], size))
        losses = []
        for rows in order[: steps * config.batch_size].reshape(steps, -1):
            x, y = np.float64(data.obs[rows]), np.float64(data.rewards[rows])
            losses.append(np.mean((x @ w - y) ** 2))
            gradient = 2 * x.T @ (x @ w - y) / len(rows)
            rate = config.learning_rate * 0.5
            rate *= 1 + np.cos(np.pi * t / (config.num_epochs * steps))
            t += 1
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, np.mean(losses)


@pytest.mark.parametrize("member_chunk", [1, 2])
def test_members_trained_together_are_each_trained_alone(member_chunk):
    # Two at a time leave one over; polishing need not be compiled for that as well.
    rounds = {1: CONFIG.polish_rounds, 2: 0}[member_chunk]
    config = dataclasses.replace(CONFIG, member_chunk=member_chunk, polish_rounds=rounds)
    data, epochs = make_data(), []
    state = start(config)
    final = training.train(regression(), config, state, data, lambda *epoch: epochs.append(epoch))
    assert len(epochs) == int(final.epoch) == 3 + rounds
    trained, losses = epochs[2]
    for member in range(MEMBERS):
        expected, loss = numpy_adam(state, config, data, member)
        np.testing.assert_allclose(trained.params.weights["w"][member], expected, rtol=1e-4)
        np.testing.assert_allclose(losses[member], loss, rtol=1e-3)


def test_a_member_does_not_depend_on_how_many_there_are():
    data = make_data()
    many, one = (
        training.run_epoch(regression(m), CONFIG, start(members=m), data)[0] for m in (3, 1)
    )
    alone = one.params.weights["w"][0]
    np.testing.assert_allclose(many.params.weights["w"][0], alone, rtol=1e-6)
    assert np.abs(many.params.weights["w"][1] - alone).max() > 1e-4


def test_a_run_that_is_cut_anywhere_goes_on_bit_for_bit():
    data, states = make_data(), []
    begin = start()
    final = training.train(regression(), CONFIG, begin, data, lambda s, _: states.append(s))
    assert [int(s.epoch) for s in states] == [1, 2, 3, 4, 5]
    for state in (begin, *states):
        # As a checkpoint would: off the device and back.
        copied = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state._replace(key=None))
        resumed = training.train(regression(), CONFIG, copied._replace(key=state.key), data)
        for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(final), strict=True):
            if not jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(ours, theirs)


def test_polishing_finds_the_closed_form_optimum_of_a_badly_scaled_problem():
    data = make_data(scales=SCALES)
    before = start(data=data)
    after, losses = training.polish(regression(), CONFIG, before, data)
    x, y = np.float64(data.obs), np.float64(data.rewards)
    optimum, (residual,), *_ = np.linalg.lstsq(x, y)
    for w, loss in zip(after.params.weights["w"], losses, strict=True):
        np.testing.assert_allclose(w, optimum, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(loss, residual / 50, rtol=1e-4)
    assert int(after.epoch) == 1
    for w in before.params.weights["w"]:
        assert np.mean((x @ np.asarray(w) - y) ** 2) > 10 * residual / 50


def test_each_member_polishes_on_its_own_draw():
    data = make_data(scales=SCALES)
    config = dataclasses.replace(CONFIG, polish_size=20)
    state = start(config, data)
    after, losses = training.polish(regression(), config, state, data)
    for member in range(MEMBERS):
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0), member)
        rows = np.asarray(jax.random.permutation(jax.random.split(key)[0], 50))[:20]
        x, y = np.float64(data.obs[rows]), np.float64(data.rewards[rows])
        optimum, (residual,), *_ = np.linalg.lstsq(x, y)
        w = after.params.weights["w"][member]
        np.testing.assert_allclose(w, optimum, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(losses[member], residual / 20, rtol=1e-3)


def test_the_members_with_the_lowest_losses_are_kept_in_their_order():
    data, state = make_data(), start()
    losses = training.member_losses(regression(), CONFIG, state.params, data)
    w = np.asarray(state.params.weights["w"])
    expected = [np.mean((data.obs @ row - data.rewards) ** 2) for row in w]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    kept = training.keep_best(state.params, jnp.asarray([2.0, 3.0, 1.0]), 2)
    np.testing.assert_array_equal(kept.weights["w"], w[[0, 2]])
    # One that left the finite numbers is never among the best.
    kept = training.keep_best(state.params, jnp.asarray([jnp.nan, 3.0, 1.0]), 2)
    np.testing.assert_array_equal(kept.weights["w"], w[[1, 2]])


def test_members_are_compared_on_evenly_spaced_items_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(training, "MAX_JUDGED", 17)
    data = make_data(53)  # no other test compiles this size
    state = start(data=data)
    losses = training.member_losses(regression(), CONFIG, state.params, data)
    # Every fourth: every third would be 18 of them.
    w, rows = np.asarray(state.params.weights["w"]), np.arange(0, 53, 4)
    expected = [np.mean((data.obs[rows] @ row - data.rewards[rows]) ** 2) for row in w]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("advance", [training.run_epoch, training.polish])
def test_a_number_that_is_not_finite_leaves_finite_weights_behind(advance):
    data = make_data(bad_row=7)
    state, losses = advance(regression(), CONFIG, start(), data)
    assert np.all(np.isnan(losses))
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        assert np.all(np.isfinite(leaf))
    if advance is training.polish:
        np.testing.assert_array_equal(state.params.weights["w"], start().params.weights["w"])


def test_divergence_names_members_and_epoch_and_the_last_good_state_was_handed_over():
    seen = []
    with pytest.raises(DivergedError, match=r"member\(s\) \[0, 1, 2\] .* epoch 1 .* rate of 0.05"):
        training.train(
            regression(), CONFIG, start(), make_data(bad_row=7), lambda *epoch: seen.append(epoch)
        )
    assert seen == []

    # One member of a good run is thrown out of the finite numbers after epoch 2.
    states = []
    collect = lambda state, losses: states.append(state)  # noqa: E731
    training.train(regression(), CONFIG, start(), make_data(), collect)
    state = states[1]
    spoilt = {"w": state.params.weights["w"].at[1].set(1e30)}
    state, states = state._replace(params=state.params._replace(weights=spoilt)), []
    told = r"member\(s\) \[1\] is not finite in epoch 3 from step 1 of 3 on"
    with pytest.raises(DivergedError, match=told):
        training.train(regression(), CONFIG, state, make_data(), collect)
    assert states == []


def test_divergence_names_the_first_step_that_met_the_bad_transition():
    state, data = start(), make_data(bad_row=7)
    key = jax.random.fold_in(state.key, 0)
    steps = []
    for member in range(MEMBERS):
        order = jax.random.permutation(jax.random.split(jax.random.fold_in(key, member))[0], 50)
        steps.append(int(np.flatnonzero(np.asarray(order) == 7)[0]) // 16 + 1)
    # Fifty transitions make three minibatches of 16; what is left is in none.
    with pytest.raises(DivergedError, match=f"from step {min(steps)} of 3 on"):
        training.train(regression(), CONFIG, state, data)
    values = np.isnan(training.step_losses(regression(), CONFIG, state, data))
    for member, step in enumerate(steps):
        np.testing.assert_array_equal(np.flatnonzero(values[member]) + 1, [step])


def test_a_batch_larger_than_the_data_is_all_of_the_data():
    data = make_data()
    large, exact = (
        training.run_epoch(regression(), TrainConfig(num_epochs=1, batch_size=b), start(), data)[
            0
        ].params.weights["w"]
        for b in (1000, 50)
    )
    np.testing.assert_array_equal(large, exact)


def test_a_bootstrap_is_one_sample_with_replacement_for_each_member():
    data = make_data(scales=SCALES)
    config = dataclasses.replace(CONFIG, bootstrap=True, polish_rounds=1)
    state, optima = start(config, data), []
    for epoch in (0, 7):
        late = state._replace(epoch=jnp.asarray(epoch, jnp.int32))
        after, losses = training.polish(regression(), config, late, data)
        for member in range(MEMBERS):
            # All of a round's data are the member's own sample, whatever its order.
            key = jax.random.fold_in(jax.random.fold_in(state.key, 2**31 - 1), member)
            rows = np.asarray(jax.random.randint(key, (50,), 0, 50))
            assert 20 < len(np.unique(rows)) < 45
            x, y = np.float64(data.obs[rows]), np.float64(data.rewards[rows])
            optimum, (residual,), *_ = np.linalg.lstsq(x, y)
            w = after.params.weights["w"][member]
            np.testing.assert_allclose(w, optimum, rtol=2e-3, atol=2e-3)
            np.testing.assert_allclose(losses[member], residual / 50, rtol=1e-3)
            optima.append(optimum)
    assert np.abs(optima[0] - optima[1]).max() > 1e-3
    # The same sample in an epoch of Adam, a part of the data this time.
    short = dataclasses.replace(config, max_epoch_steps=1, num_epochs=1)
    values = training.step_losses(regression(), short, state, data)
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), 1)
    order = jax.random.permutation(jax.random.split(key)[0], 50)[:16]
    key = jax.random.fold_in(jax.random.fold_in(state.key, 2**31 - 1), 1)
    rows = np.asarray(jax.random.randint(key, (50,), 0, 50)[order])
    errors = data.obs[rows] @ np.asarray(state.params.weights["w"][1]) - data.rewards[rows]
    assert values.shape == (MEMBERS, 1)
    np.testing.assert_allclose(values[1, 0], np.mean(errors**2), rtol=1e-4)


def test_epochs_are_compiled_once():
    data = make_data(size=37)
    before = cache_size(training.run_epoch), cache_size(training.polish)
    training.train(regression(), CONFIG, start(data=data), data)
    assert cache_size(training.run_epoch) == before[0] + 1
    assert cache_size(training.polish) == before[1] + 1
