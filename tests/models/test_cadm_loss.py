"""CaDM's loss against numpy, one step at a time, and what must not leak into it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.data.windows import windows_of
from persim_jax.models import cadm_loss
from persim_jax.models.cadm import cadm_model
from persim_jax.models.cadm_network import visible
from tests.data.test_dataset import make_dataset
from tests.models.cadms import (
    FUTURE,
    member_of,
    numpy_context,
    numpy_network,
    of_members,
    random_batch,
    random_params,
    scaled,
    small,
    steps_of,
)


def numpy_loss(config, params, batch, member):
    """Forward and backward losses, and what weights cost, of one member."""
    weights, norm = member_of(params, member), params.normalizer
    ahead, back = [], []
    for item in range(len(batch.mask)):
        context = numpy_context(config, params, member, steps_of(batch.history, item))
        for t in np.flatnonzero(batch.mask[item]):
            obs, action, next_obs = (
                batch.obs[item, t],
                batch.actions[item, t],
                batch.next_obs[item, t],
            )
            delta = np.float64(next_obs) - np.float64(obs)
            mean, log_var = numpy_network(config, weights["forward"], obs, action, context, norm)
            squared = (mean - scaled(norm.target, delta)) ** 2
            ahead.append(
                np.mean(squared if log_var is None else squared / np.exp(log_var) + log_var)
            )
            mean, _ = numpy_network(config, weights["backward"], next_obs, action, context, norm)
            back.append(np.mean((mean - scaled(norm.back_target, -delta)) ** 2))
    return ahead, back


def numpy_penalty(config, weights):
    kernels = lambda *layers: [np.square(np.float64(x["kernel"])).sum() for x in layers]  # noqa: E731
    encoder, total = weights["encoder"], 0.0
    total += 0.5 * 0.04 * sum(kernels(encoder["dense_0"], encoder["dense_1"]))
    for name in ("forward", "backward"):
        own = weights[name]
        first, second = kernels(own["trunk"]["dense_0"], own["trunk"]["dense_1"])
        heads = kernels(*(own[head]["dense_0"] for head in own if head.endswith("head")))
        total += 0.5 * (0.01 * first + 0.02 * second + 0.03 * sum(heads))
    if config.noisy:
        bounds = weights["forward"]["max_log_var"] - weights["forward"]["min_log_var"]
        total += 0.01 * np.sum(np.float64(bounds))
    return total


loss = jax.jit(
    lambda config, *args: cadm_loss.loss(config, *args, jax.random.key(0)), static_argnums=0
)


@pytest.mark.parametrize(
    ("discrete", "noisy", "normalize_context"),
    [(True, True, False), (False, True, True), (True, False, True), (False, False, False)],
)
def test_each_members_loss_is_numpys(discrete, noisy, normalize_context):
    config = small(discrete, noisy=noisy, normalize_context=normalize_context, skip=discrete)
    params, batch = random_params(config), random_batch(config)
    losses, metrics = loss(config, params, of_members(batch))
    for member in range(2):
        ahead, back = numpy_loss(config, params, batch, member)
        # Four base steps, of which the data have 1.5 steps each.
        assert len(ahead) == batch.mask.sum() == 6
        forward, backward = sum(ahead) / (4 * 1.5), sum(back) / (4 * 1.5)
        np.testing.assert_allclose(metrics["forward"][member], forward, rtol=1e-4)
        np.testing.assert_allclose(metrics["backward"][member], backward, rtol=1e-4)
        total = forward + 0.5 * backward + numpy_penalty(config, member_of(params, member))
        np.testing.assert_allclose(losses[member], total, rtol=1e-4)


def test_a_single_member_is_computed_alone_and_the_same():
    config = small(noisy=True)
    params, batch = random_params(config), random_batch(config)
    both, _ = loss(config, params, of_members(batch))
    one = dataclasses.replace(config, ensemble_size=1)
    alone = params._replace(weights=jax.tree.map(lambda leaf: leaf[:1], params.weights))
    np.testing.assert_allclose(loss(one, alone, of_members(batch, 1))[0], both[:1], rtol=1e-6)


def test_members_do_not_meet():
    config = small(noisy=True)
    params, batch = random_params(config), of_members(random_batch(config))
    before, _ = loss(config, params, batch)
    slope = jax.jit(jax.grad(lambda w: loss(config, params._replace(weights=w), batch)[0][0]))
    for leaf in jax.tree.leaves(slope(params.weights)):
        assert np.any(leaf[0])
        assert not np.any(leaf[1])
    spoilt = jax.tree.map(lambda leaf: leaf.at[1].add(1.0), params.weights)
    after, _ = loss(config, params._replace(weights=spoilt), batch)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_what_is_masked_is_not_seen():
    config = small(noisy=True)
    params, batch = random_params(config), random_batch(config)
    before, _ = loss(config, params, of_members(batch))
    garbage = lambda values, mask: np.where(mask[..., None], values, 1e6)  # noqa: E731
    past = batch.history
    changed = batch._replace(
        obs=garbage(batch.obs, batch.mask),
        next_obs=garbage(batch.next_obs, batch.mask),
        actions=np.where(batch.mask, batch.actions, 0),
        history=past._replace(
            obs=garbage(past.obs, past.mask), actions=np.where(past.mask, past.actions, 1)
        ),
    )
    after, _ = loss(config, params, of_members(changed))
    np.testing.assert_array_equal(after, before)
    # And what is there is seen.
    moved = batch._replace(history=past._replace(obs=past.obs + np.float32(0.1)))
    assert np.all(loss(config, params, of_members(moved))[0] != before)


def test_the_loss_of_a_batch_is_the_mean_over_its_parts():
    config = small()
    params, batch = random_params(config), of_members(random_batch(config))
    whole, _ = loss(config, params, batch)
    parts = [jax.tree.map(lambda leaf, p=p: leaf[:, p : p + 2], batch) for p in (0, 2)]
    halves = [np.asarray(loss(config, params, part)[0]) for part in parts]
    np.testing.assert_allclose(whole, np.mean(halves, axis=0), rtol=1e-5)


def test_statistics_count_every_base_step_once():
    config = dataclasses.replace(small(), obs_size=2, action_size=3, absolute=(1,))
    dataset = make_dataset()
    windows = jax.tree.map(jnp.asarray, windows_of(dataset, config.history_length, FUTURE))
    norm = cadm_model(config).fit_normalizer(windows)
    flat = dataset.transitions()
    delta = flat.next_obs - flat.obs
    np.testing.assert_allclose(norm.obs.mean, flat.obs.mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(norm.carry, [1.0, 0.0])
    np.testing.assert_allclose(norm.target.mean[0], delta[:, 0].mean(), rtol=1e-4)
    np.testing.assert_allclose(norm.target.mean[1], flat.next_obs[:, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(norm.back_target.mean[0], -delta[:, 0].mean(), rtol=1e-4)
    np.testing.assert_allclose(norm.back_target.mean[1], flat.obs[:, 1].mean(), rtol=1e-5)
    # Trajectories of 2, 5, 1 and 4 steps: all but the last of each have two steps ahead.
    np.testing.assert_allclose(norm.items_per_step, (12 + 12 - 4) / 12, rtol=1e-6)
    assert norm.actions is None


def test_angles_are_turned_and_the_unseen_are_left_out():
    config = dataclasses.replace(small(), angles=(2,), unseen=(0,))
    assert config.input_size == 3
    obs = jnp.asarray([5.0, 0.3, -2.0])
    np.testing.assert_allclose(visible(config, obs), [0.3, np.sin(-2.0), np.cos(-2.0)], rtol=1e-6)
    turned = visible(config, obs + jnp.asarray([7.0, 0.0, 2 * np.pi]))
    np.testing.assert_allclose(turned, visible(config, obs), atol=1e-6)


def test_a_coordinate_that_does_not_carry_over_is_predicted_itself():
    config = dataclasses.replace(small(), obs_size=2, action_size=3, target="auto")
    windows = windows_of(make_dataset(), config.history_length, FUTURE)
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 12, 2)).astype(np.float32)
    next_obs[:, 0] = obs[:, 0] + 0.1 * next_obs[:, 0]
    windows = windows.replace(obs=jnp.asarray(obs), next_obs=jnp.asarray(next_obs))
    norm = cadm_model(config).fit_normalizer(jax.tree.map(jnp.asarray, windows))
    np.testing.assert_array_equal(norm.carry, [1.0, 0.0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "absolute"}, "target 'absolute' is unknown"),
        ({"history_length": 0}, "history_length is 0"),
        ({"decays": (0.1,)}, r"decays are \(0.1,\): there are 3 layers"),
        ({"context_features": (), "context_decays": ()}, "context_features is empty"),
        ({"angles": (3,)}, r"angles are \(3,\)"),
        ({"angles": (1,), "unseen": (1,)}, "what is not seen is no angle"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small(), **fields)
