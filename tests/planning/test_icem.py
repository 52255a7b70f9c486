"""iCEM: what it keeps, what it puts among the candidates, and what it executes."""

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.planning.icem import icem
from tests.planning.continuous import spec_of

ARM = spec_of((-1.0,), (1.0,))
NAN = float("nan")


def tiny(num_candidates=5, num_rounds=3, num_elites=4, keep_fraction=0.5, noise_beta=0.0):
    return icem(
        ARM, num_candidates, 2, num_rounds, num_elites, 0.1, (0.3, 0.6), noise_beta, keep_fraction
    )


def plans(*pairs):
    return jnp.asarray(pairs)[:, :, None]


ACTIONS = plans((0.1, 0.0), (0.5, -0.2), (-0.2, 0.3), (0.9, 0.4), (-1.0, -1.0))
SCORES = jnp.asarray([1.0, 4, 2, 3, NAN])


def updated(sampler, **changes):
    state = sampler.init(ARM)._replace(std=jnp.full((2, 1), 0.5), **changes)
    return sampler.update(state, ACTIONS, SCORES)


def test_a_round_by_hand():
    state = updated(tiny(), mean=jnp.asarray([[0.5], [-0.5]]))
    # All but the lost candidate are elites; every round keeps a tenth of the old.
    first, second = np.array([0.1, 0.5, -0.2, 0.9]), np.array([0.0, -0.2, 0.3, 0.4])
    mean = [0.05 + 0.9 * first.mean(), -0.05 + 0.9 * second.mean()]
    np.testing.assert_allclose(state.mean[:, 0], mean, rtol=1e-6)
    std = [0.05 + 0.9 * np.sqrt(np.mean((x - x.mean()) ** 2)) for x in (first, second)]
    np.testing.assert_allclose(state.std[:, 0], std, rtol=1e-6)
    # Half of four elites are kept, the best first, and the best one's action is executed.
    np.testing.assert_array_equal(state.kept[..., 0], np.float32([[0.5, -0.2], [0.9, 0.4]]))
    np.testing.assert_array_equal(tiny().best(state), np.float32([0.5]))


def test_kept_plans_compete_again_in_the_next_round(key):
    sampler = tiny()
    actions, _ = sampler.sample(key, updated(sampler))
    np.testing.assert_array_equal(actions[:2, :, 0], np.float32([[0.5, -0.2], [0.9, 0.4]]))
    assert len(np.unique(actions)) == actions.size


def test_in_the_next_decision_kept_plans_are_one_step_on_with_a_fresh_last_action(key):
    sampler = tiny()
    state = sampler.shift(updated(sampler))
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(key, state)[0][..., 0]))
    actions = np.asarray(draw(jax.random.split(key, 500)))
    np.testing.assert_array_equal(
        actions[:, :2, 0], np.broadcast_to(np.float32([-0.2, 0.4]), (500, 2))
    )
    last = actions[:, :2, 1]
    assert last.std() > 0.2
    # It has the distribution of the last action of a fresh candidate.
    assert abs(last.mean() - actions[:, 2:, 1].mean()) < 0.1
    assert len(np.unique(last)) > 900  # the rest is clipped to a bound


def test_the_shifted_mean_repeats_its_last_action_and_rounds_begin_again():
    state = updated(tiny())
    shifted = tiny().shift(state)
    np.testing.assert_array_equal(shifted.mean, np.asarray(state.mean)[[1, 1]])
    assert (int(state.round), int(shifted.round)) == (1, 0)


def test_the_mean_is_the_last_candidate_of_the_last_round_only(key):
    sampler, mean = tiny(), jnp.asarray([[0.25], [-0.75]])
    for played, expected in ((0, False), (1, False), (2, True)):
        state = sampler.init(ARM)._replace(mean=mean, round=jnp.asarray(played))
        actions, _ = sampler.sample(key, state._replace(std=jnp.full((2, 1), 0.3)))
        assert np.array_equal(actions[-1], mean) is expected
        assert not (np.asarray(actions[:-1]) == np.asarray(mean)).all(axis=(1, 2)).any()


def test_an_episode_begins_without_kept_plans(key):
    sampler = tiny(num_candidates=400, num_elites=100, keep_fraction=1.0)
    actions, _ = sampler.sample(key, sampler.init(ARM))
    assert len(np.unique(actions)) > 700  # the rest is clipped to a bound


def test_nothing_is_kept_where_nothing_is_to_be_kept(key):
    sampler = tiny(keep_fraction=0.0)
    state = updated(sampler)
    assert state.kept.shape == (0, 2, 1)
    actions, _ = sampler.sample(key, sampler.shift(state))
    assert not np.isin(actions, ACTIONS[:4]).any()


def test_ties_fall_to_kept_and_to_drawn_plans_alike(key):
    sampler = tiny()
    state = updated(sampler)

    def winner(key):
        actions, after = sampler.sample(key, state)
        best = sampler.best(sampler.update(after, actions, jnp.zeros(5)))
        return jnp.argmax(actions[:, 0, 0] == best[0])

    winners = np.asarray(jax.jit(jax.vmap(winner))(jax.random.split(key, 1000)))
    counts = np.bincount(winners, minlength=5)
    assert ((counts - 200) ** 2 / 200).sum() < 13.28  # chi-square, four degrees, 1 %


def test_noise_is_clipped_to_the_bounds_so_that_they_are_reached(key):
    sampler = tiny(num_candidates=2000, num_elites=100)
    state = sampler.init(ARM)._replace(std=jnp.ones((2, 1)), round=jnp.asarray(1))
    actions = np.asarray(sampler.sample(key, state)[0])
    # A standard normal is beyond 1 with probability 0.1587.
    np.testing.assert_allclose((actions == 1).mean(), 0.1587, atol=0.02)
    np.testing.assert_allclose((actions == -1).mean(), 0.1587, atol=0.02)
    assert np.abs(actions).max() == 1


def test_the_noise_has_the_colour_that_is_asked_for(key):
    def agreement(beta):
        sampler = icem(ARM, 500, 30, 3, 100, 0.1, (0.3, 0.3), beta, 0.0)
        actions = np.asarray(sampler.sample(key, sampler.init(ARM))[0])[..., 0]
        return np.corrcoef(actions[:, 1:].ravel(), actions[:, :-1].ravel())[0, 1]

    assert abs(agreement(0.0)) < 0.05
    assert agreement(2.0) > 0.8
