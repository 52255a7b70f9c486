"""The prediction test against numpy, scikit-learn, and models whose scores are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import r2_score

from persim_jax.evaluation.prediction import (
    OpenLoop,
    combine_mean,
    combine_median,
    error_per_step,
    open_loop,
    score,
    true_episodes,
)
from persim_jax.models.true_env import true_dynamics
from persim_jax.types import Trajectory
from tests import oracles
from tests.toys import gains_model, line_env, line_params, tilted_act

LENGTHS = (8, 5, 2, 1, 0)


def random_paths(seed=0, steps=8, size=3):
    """Random truth and predictions of episodes of `LENGTHS`, garbage where the mask is false."""
    rng = np.random.default_rng(seed)
    true = rng.normal(3.0, [0.1, 1.0, 20.0], (len(LENGTHS), steps + 1, size))
    predicted = true + rng.normal(0, [0.05, 0.5, 5.0], true.shape)
    mask = np.arange(steps) < np.asarray(LENGTHS)[:, None]
    predicted[:, 1:][~mask] = np.nan
    true[:, 1:][~mask] = 1e6
    return true, predicted, mask


def scored(true, predicted, mask):
    true, predicted = (jnp.asarray(x, jnp.float32) for x in (true, predicted))
    found = score(OpenLoop(true=true, predicted=predicted, mask=jnp.asarray(mask)))
    return np.asarray(found.rmse), np.asarray(found.r2)


def test_scores_equal_numpy_and_scikit_learn():
    true, predicted, mask = random_paths()
    rmse, r2 = scored(true, predicted, mask)
    for e in range(3):
        t, p, m = true[e, 1:], predicted[e, 1:], mask[e]
        np.testing.assert_allclose(rmse[e], oracles.rmse(t, p, m), rtol=1e-5)
        np.testing.assert_allclose(r2[e], oracles.r2(t, p, m), rtol=1e-4)
        sklearn = r2_score(t[m], p[m], multioutput="variance_weighted")
        np.testing.assert_allclose(r2[e], sklearn, rtol=1e-4)


def test_fewer_than_two_scored_steps_are_no_score():
    rmse, r2 = scored(*random_paths())
    np.testing.assert_array_equal(np.isnan(rmse), [False, False, False, True, True])
    np.testing.assert_array_equal(np.isnan(r2), np.isnan(rmse))


def test_scores_by_hand():
    # Errors 3 and 4 in one of two coordinates over two steps: 25 / 4. The truth moves by 2 and 0
    # around its mean, 1 + 1 in all, so R^2 = 1 - 25 / 2.
    true = np.zeros((1, 3, 2))
    true[0, 2, 0] = 2.0
    predicted = true.copy()
    predicted[0, 1:, 1] = [3.0, -4.0]
    rmse, r2 = scored(true, predicted, [[True, True]])
    np.testing.assert_allclose(rmse, 2.5)
    np.testing.assert_allclose(r2, 1 - 12.5)


def test_the_state_that_the_prediction_starts_from_is_not_scored():
    true, predicted, mask = random_paths()
    changed = predicted.copy()
    changed[:, 0] += 100.0
    np.testing.assert_array_equal(scored(true, predicted, mask), scored(true, changed, mask))


def test_predicting_the_mean_of_the_episode_explains_nothing():
    true, _, mask = random_paths()
    means = np.stack([t[1:][m].mean(axis=0) for t, m in zip(true[:3], mask[:3], strict=True)])
    predicted = np.broadcast_to(means[:, None], true[:3].shape)
    np.testing.assert_allclose(scored(true[:3], predicted, mask[:3])[1], 0.0, atol=1e-4)


def test_a_state_that_never_moves_has_an_error_and_no_share_explained():
    rmse, r2 = scored(np.ones((1, 4, 1)), np.full((1, 4, 1), 1.5), np.ones((1, 3), bool))
    np.testing.assert_allclose(rmse, 0.5)
    assert np.isnan(r2)


def test_error_per_step_is_the_error_of_each_step_alone():
    true, predicted, mask = random_paths()
    found = error_per_step(OpenLoop(true=true, predicted=predicted, mask=mask))
    np.testing.assert_array_equal(np.isnan(found), ~mask)
    for e, s in ((0, 0), (0, 7), (1, 3)):
        expected = oracles.rmse(true[e, s + 1 : s + 2], predicted[e, s + 1 : s + 2], [True])
        np.testing.assert_allclose(found[e, s], expected, rtol=1e-5)


@pytest.fixture(scope="module")
def episodes():
    """Six noise-free true episodes of the agent with gain 0.5; some end at position 2."""
    params = line_params(0.5)
    obs = jnp.stack([jnp.linspace(-1.0, 1.6, 6), jnp.zeros(6)], axis=1)
    found = true_episodes(
        jax.random.key(2), line_env(), params, tilted_act, jnp.asarray(2.0), obs, 8
    )
    assert 1 < found.terminated.any(axis=1).sum() < 6
    return found


@pytest.mark.parametrize("warm_up", [0, 3])
def test_a_perfect_model_has_no_error(episodes, warm_up):
    params = line_params([9.0, 0.5])
    paths = open_loop(
        jax.random.key(0), true_dynamics(line_env()), params, jnp.asarray(1), episodes, warm_up
    )
    found = score(paths)
    steps = np.asarray(episodes.mask)[:, warm_up:].sum(axis=1)
    assert (steps >= 2).any()
    np.testing.assert_array_equal(found.rmse, np.where(steps >= 2, 0.0, np.nan))
    np.testing.assert_array_equal(found.r2, np.where(steps >= 2, 1.0, np.nan))
    np.testing.assert_array_equal(paths.mask, episodes.mask[:, warm_up:])
    np.testing.assert_array_equal(paths.true, episodes.obs[:, warm_up:])


def test_each_member_goes_on_from_its_own_predictions_and_members_meet_afterwards():
    # Member m squares its position and adds the action; 0.5 and 2 grow apart at once.
    model = gains_model(2)._replace(
        start=lambda bound, obs: obs[None] * bound[:, None],
        step=lambda key, bound, state, encoded: jnp.square(state) + encoded[0],
    )
    actions = np.int32([[0, 1, 2, 2]])
    obs = np.float32([[[9.0], [9.0], [1.0], [5.0], [5.0]]])
    episode = Trajectory(
        obs=obs,
        actions=actions,
        rewards=np.zeros((1, 4)),
        terminated=np.zeros((1, 4), bool),
        mask=np.ones((1, 4), bool),
    )
    params = jnp.asarray([[7.0, 7.0], [0.5, 2.0]])
    paths = open_loop(jax.random.key(0), model, params, jnp.asarray(1), episode, 2)
    # From the true state 1 after the warm-up, with the pushes +1 and +1 that follow it:
    # members 0.5^2 + 1 = 1.25 and 2^2 + 1 = 5; then 1.25^2 + 1 = 2.5625 and 26.
    np.testing.assert_allclose(paths.predicted[0, :, 0], [1.0, 3.125, (2.5625 + 26) / 2])
    np.testing.assert_array_equal(paths.true[0, :, 0], [1.0, 5.0, 5.0])


def test_ways_to_combine_members():
    members = jnp.asarray([[[1.0]], [[2.0]], [[9.0]]])
    assert float(combine_mean(members)[0, 0]) == 4.0
    assert float(combine_median(members)[0, 0]) == 2.0


def test_combine_is_chosen_by_name(episodes):
    model, gains = gains_model(3), jnp.asarray([[0.5, 0.5, 5.0]])
    arguments = (jax.random.key(0), model, gains, jnp.asarray(0), episodes, 2)
    mean, median = (score(open_loop(*arguments, combine)).rmse for combine in ("mean", "median"))
    whole = np.asarray(episodes.mask[:, 2:].sum(axis=1) >= 2)
    np.testing.assert_allclose(np.asarray(median)[whole], 0.0, atol=1e-6)
    assert np.asarray(mean)[whole].max() > 0.1
    with pytest.raises(KeyError):
        open_loop(*arguments, "mode")


def test_episodes_differ_by_their_key_and_more_of_them_begin_with_the_fewer():
    params = line_params(0.5, noise=0.1)
    obs = jnp.zeros((5, 2))
    arguments = (line_env(), params, tilted_act, jnp.asarray(1.0))
    few, many = (
        true_episodes(jax.random.key(4), *arguments, obs[:count], 6).obs for count in (3, 5)
    )
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(np.asarray(many[:, 1, 0]))) == 5
