"""Newcomers: found again where the truth is known, and simulators as any other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.base import History
from persim_jax.models.factor import agent_factors
from persim_jax.models.factor_basis import factor_basis, with_factors
from persim_jax.personalization.newcomers import Newcomer, Newcomers
from persim_jax.personalization.prior import MIN_NOISE, population_prior, residual_noise
from persim_jax.planning.mpc import PlannerConfig
from persim_jax.rollout import unroll
from persim_jax.simulators import PersonalizedSimulators
from tests.oracles import bayesian_regression
from tests.personalization.toys import (
    CONTINUOUS,
    DISCRETE,
    NOISE,
    OBS,
    STEPS,
    dataset_of,
    make,
    of_factors,
)
from tests.toys import factor_params, line_env

both = pytest.mark.parametrize("config", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])


def part(transitions, *span):
    return jax.tree.map(lambda leaf: leaf[slice(*span)], transitions)


@both
def test_the_factors_of_a_linear_system_are_found_again(config):
    simulators, truth = make(config), np.float32([0.7, -1.3])
    data = of_factors(simulators, truth, noise=NOISE)
    newcomer = simulators.personalize(data)
    assert isinstance(newcomer, Newcomer)
    np.testing.assert_allclose(newcomer.mean[0], truth, atol=0.02)
    # By hand: the same regression in float64, in raw inputs, with the training agents' moments.
    prior = population_prior(config, simulators.params)
    basis = np.asarray(factor_basis(config, simulators.params, data.obs, data.actions))[0]
    norm = simulators.params.normalizer
    target = (data.next_obs - data.obs - norm.delta.mean[None]) / norm.delta.std[None]
    root = np.float64(prior.root[0])
    mean, covariance = bayesian_regression(
        prior.mean[0],
        root @ root.T,
        basis.reshape(-1, 2),
        target.ravel(),
        np.full(2 * STEPS, NOISE),
    )
    np.testing.assert_allclose(newcomer.mean[0], mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(newcomer.covariance[0], covariance, rtol=1e-2, atol=1e-8)


def test_the_prior_is_the_training_agents_first_two_moments():
    prior = population_prior(DISCRETE, make().params)
    factors = np.float64(agent_factors(DISCRETE, make().params))
    for member in range(2):
        sample = np.cov(factors[member].T) * 13 / 12
        expected = 10 / 12 * sample + 2 / 12 * np.diag(np.diag(sample))
        found = np.float64(prior.root[member]) @ np.float64(prior.root[member]).T
        np.testing.assert_allclose(prior.mean[member], factors[member].mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_where_training_left_no_factors_a_newcomer_has_none_either():
    simulators = make()
    data = of_factors(simulators, np.float32([0.7, -1.3]))
    nothing = jax.tree.map(jnp.zeros_like, simulators.params.weights)
    simulators = simulators.replace(params=simulators.params._replace(weights=nothing))
    newcomer = simulators.personalize(data)
    np.testing.assert_array_equal(newcomer.mean, 0)  # and no NaN, of a root of nothing
    np.testing.assert_allclose(newcomer.covariance, 0, atol=1e-30)


def test_a_trained_agent_met_again_gets_its_embedding_back():
    simulators = make(num_members=1)
    factors = agent_factors(simulators.config, simulators.params)[0]
    for row in (0, 7):
        found = simulators.personalize(of_factors(simulators, factors[row], seed=row))
        np.testing.assert_allclose(found.mean[0], factors[row], atol=5e-3)
        obs, actions = OBS, np.int32([0, 2, 1, 1])
        ours = found.rollout(obs, actions).mean
        np.testing.assert_allclose(
            ours, simulators.rollout(100 + row, obs, actions).mean, atol=5e-2
        )


def test_many_newcomers_are_each_as_if_alone():
    simulators = make()
    lone = [of_factors(simulators, u, seed=i) for i, u in enumerate([[0.5, 1.0], [-1.0, 0.2]])]
    chains = dataset_of([part(lone[0], 9), lone[1]], [31, 7])
    newcomers = simulators.personalize(chains)
    assert isinstance(newcomers, Newcomers)
    assert newcomers.num_agents == 2
    for row, agent_id in enumerate([31, 7]):
        alone = simulators.personalize(chains.for_agent(agent_id).transitions(), agent_id=agent_id)
        one = newcomers.for_agent(agent_id)
        assert one.agent_id == alone.agent_id == agent_id
        np.testing.assert_allclose(one.mean, alone.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(newcomers.mean()[:, row], alone.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.covariance, alone.covariance, rtol=1e-3, atol=1e-7)
        together = newcomers.simulators(4).rollout(agent_id, OBS, np.int32([0, 1])).mean
        np.testing.assert_allclose(one.rollout(OBS, np.int32([0, 1])).mean, together, atol=5e-3)
    with pytest.raises(KeyError, match="no agent has the id 8"):
        newcomers.for_agent(8)


def test_updates_are_the_same_as_all_at_once_and_leave_the_old_record():
    simulators, data = make(), of_factors(make(), [0.5, 1.0])
    together = simulators.personalize(data)
    newcomer = first = simulators.personalize(part(data, 1))
    before = np.asarray(first.mean)
    for t in range(1, STEPS):
        newcomer = newcomer.update(part(data, t, t + 1))
    np.testing.assert_allclose(newcomer.mean, together.mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(newcomer.covariance, together.covariance, rtol=1e-2, atol=1e-8)
    np.testing.assert_array_equal(first.mean, before)
    # Its simulator is not the one from before either.
    moved = newcomer.step(OBS, 1).mean - first.step(OBS, 1).mean
    assert np.abs(moved).max() > 1e-3


def test_a_simulator_of_a_newcomer_has_particles_that_spread_as_the_factors_do():
    simulators = make()
    newcomer = simulators.personalize(part(of_factors(simulators, [0.5, 1.0]), 1))
    rank, norm = simulators.config.rank, simulators.params.normalizer
    wide = newcomer.replace(num_particles=2 * rank)
    found = wide.step(OBS, 2).members
    assert found.shape == (2 * 2 * rank, 2)
    basis = np.asarray(factor_basis(DISCRETE, simulators.params, OBS, np.int32(2)))
    for member in range(2):
        own = (np.asarray(found)[member * 2 * rank :][: 2 * rank] - OBS) / np.asarray(
            norm.delta.std
        )
        own = own - np.asarray(norm.delta.mean / norm.delta.std)
        expected = basis[member] @ np.asarray(newcomer.mean[member])
        np.testing.assert_allclose(own.mean(axis=0), expected, rtol=1e-3, atol=1e-4)
        spread = basis[member] @ np.asarray(newcomer.covariance[member]) @ basis[member].T
        np.testing.assert_allclose(np.cov(own.T, bias=True), spread, rtol=1e-2, atol=1e-5)
    narrow = newcomer.replace(num_particles=1).step(OBS, 2)
    assert narrow.members.shape == (2, 2)
    np.testing.assert_allclose(narrow.mean, found.mean(axis=0), rtol=1e-4, atol=1e-4)


def test_members_of_other_agents_are_the_trained_members_with_other_rows():
    simulators = make()
    factors = agent_factors(DISCRETE, simulators.params)[:, [4, 2], None]  # [M, 2, P = 1, r]
    config, params = with_factors(DISCRETE, simulators.params, factors)
    swapped = simulators.replace(config=config, params=params, agent_ids=np.asarray([0, 1]))
    actions = np.int32([2, 0, 1])
    for ours, theirs in ((0, 104), (1, 102)):
        np.testing.assert_allclose(
            swapped.rollout(ours, OBS, actions).members,
            simulators.rollout(theirs, OBS, actions).members, rtol=1e-4, atol=1e-5,
        )  # fmt: skip


def going_right():
    return line_env()._replace(
        reward=lambda obs, action, next_obs: next_obs[0], terminated=lambda obs: obs[0] > 1e9
    )


def test_planners_and_rollouts_take_a_newcomer_as_they_take_an_agent(tmp_path):
    simulators, planner = make(task=going_right()), PlannerConfig(num_candidates=60, horizon=1)
    newcomer = simulators.personalize(of_factors(simulators, [0.5, 1.0]), agent_id=5)
    best = np.argmax([float(newcomer.step(OBS, a).mean[0]) for a in range(3)])
    assert int(newcomer.plan(jax.random.key(1), OBS, planner)) == best
    own = newcomer.simulator.simulators
    bound = own.model.bind(own.params, jnp.asarray(0), None)
    episode = unroll(
        jax.random.key(0), own.model, bound, own.task, newcomer.policy(planner), jnp.asarray(OBS), 2
    )
    assert int(episode.actions[0]) == best
    np.testing.assert_allclose(episode.obs[1], newcomer.step(OBS, best).mean, rtol=1e-4, atol=1e-5)
    own.save(tmp_path)
    again = PersonalizedSimulators.load(tmp_path)
    np.testing.assert_array_equal(again.step(5, OBS, 1).members, newcomer.step(OBS, 1).members)
    np.testing.assert_array_equal(again.noise, own.noise)


def test_residual_noise_is_that_of_the_data_and_jumps_do_not_move_it():
    simulators = make(num_members=1)
    factors = agent_factors(simulators.config, simulators.params)[0]
    parts = [of_factors(simulators, u, i, noise=0.05, steps=400) for i, u in enumerate(factors)]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    agent = np.repeat(np.arange(12, dtype=np.int32), 400)
    data = jax.tree.map(jnp.asarray, joined.replace(agent=agent))
    found = residual_noise(simulators.config, simulators.params, data)
    np.testing.assert_allclose(found, np.full((1, 2), 0.05), rtol=0.05)
    jumps = data.replace(next_obs=data.next_obs.at[::150].add(1e3))  # two in three hundred
    np.testing.assert_allclose(
        residual_noise(simulators.config, simulators.params, jumps), found, rtol=0.05
    )
    still = [of_factors(simulators, u, i, steps=50) for i, u in enumerate(factors)]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *still)
    exact = joined.replace(agent=jnp.repeat(jnp.arange(12), 50))
    np.testing.assert_array_equal(
        residual_noise(simulators.config, simulators.params, exact) >= np.float32(MIN_NOISE), True
    )


def test_lags_and_inputs_are_part_of_what_a_newcomer_shows():
    # A window of two values of two coordinates and the action vector between them, 2 * 2 + 3 + 1.
    config = dataclasses.replace(DISCRETE, obs_size=8, num_inputs=1, lags=2, normalize_actions=True)
    params, rng = factor_params(config), np.random.default_rng(0)
    simulators = make().replace(config=config, params=params)
    truth, steps = np.float32([0.4, -0.7]), 20
    obs = np.float32(rng.normal(size=(1, steps, 8)))
    actions = np.eye(3)[rng.integers(3, size=(1, steps))]
    joined = np.float32(np.concatenate([actions, rng.normal(size=(1, steps, 1))], axis=-1))
    basis, norm = factor_basis(config, params, obs, joined), params.normalizer
    moved = (basis[0] @ truth) * norm.delta.std[None, None] + norm.delta.mean[None, None]
    next_obs = np.float32(rng.normal(size=(1, steps, 8)))
    next_obs[..., :2] = obs[..., :2] + moved  # only the newest values are predicted
    shown = History(obs, joined, next_obs, np.ones((1, steps), bool))
    newcomers = simulators.personalize(agent_id="p9").newcomers.observe(shown)
    newcomer = newcomers.for_agent("p9")
    np.testing.assert_allclose(newcomer.mean[0], truth, atol=0.02)
    path = newcomer.rollout(obs[0, 0], np.int32([1, 2]), np.float32([[0.1], [0.2]]))
    assert path.mean.shape == (2, 2)
    with pytest.raises(ValueError, match="takes 1 inputs"):
        newcomer.rollout(obs[0, 0], np.int32([1, 2]))
    with pytest.raises(ValueError, match=r"actions of the transitions has shape \(20, 3\)"):
        newcomers.observe(shown._replace(actions=joined[..., :3]))


@pytest.mark.usefixtures("x64")
def test_double_precision_stays_double():
    with jax.enable_x64(False):
        simulators = make(num_members=1)
        data = of_factors(simulators, [0.5, 1.0])
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), simulators.params)
    simulators = simulators.replace(params=wide, noise=jnp.full((1, 2), NOISE))
    double = lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf  # noqa: E731
    found = simulators.personalize(jax.tree.map(double, data))
    assert found.mean.dtype == jnp.float64
    np.testing.assert_allclose(found.mean[0], [0.5, 1.0], atol=1e-2)


def test_no_data_is_the_population():
    simulators = make()
    newcomer = simulators.personalize()
    prior = population_prior(DISCRETE, simulators.params)
    np.testing.assert_allclose(newcomer.mean, prior.mean, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    simulators, data = make(), of_factors(make(), [0.5, 1.0])
    refused = [
        (data.replace(agent=np.arange(STEPS) % 2), {}, "are of 2 agents, 0, 1"),
        (data.replace(obs=data.obs[:, :1]), {}, r"obs of the transitions has shape \(15, 1\)"),
        (data.replace(actions=data.actions + 1), {}, "actions reach from 1 to 3: .* 0 to 2"),
        (data, {"forgetting": 0.0}, r"forgetting is 0\.0"),
        (data, {"forgetting": 1.5}, r"forgetting is 1\.5"),
        (data, {"covariates": [0.1, 0.2]}, r"covariates have shape \(1, 2\): \(1, 1\) is due"),
        (data, {"covariates": [np.nan]}, "must be finite"),
    ]
    for transitions, options, message in refused:
        with pytest.raises(ValueError, match=message):
            simulators.personalize(transitions, **options)
    broken = data.replace(next_obs=np.where(np.arange(STEPS)[:, None] == 3, np.nan, data.next_obs))
    with pytest.raises(ValueError, match="next_obs of transition 3 is not finite"):
        simulators.personalize(broken)
    with pytest.raises(ValueError, match=r"fit again, or simulators\.with_noise"):
        make(noise=None).personalize(data)
    with pytest.raises(ValueError, match="num_particles is 0"):
        simulators.personalize(data).replace(num_particles=0).step(OBS, 1)
    with pytest.raises(ValueError, match=r"num_particles is 2\.5: .* a whole number"):
        simulators.personalize(data).replace(num_particles=2.5).step(OBS, 1)
    lone = simulators.replace(config=dataclasses.replace(DISCRETE, num_agents=1))
    with pytest.raises(ValueError, match="fit to at least two agents"):
        lone.personalize(data)
    newcomers = simulators.personalize(dataset_of([data], [4]))
    with pytest.raises(ValueError, match="agents are 5, the newcomers are 4"):
        newcomers.update(dataset_of([data], [5]))


def test_a_second_batch_of_newcomers_compiles_nothing():
    from persim_jax.personalization import newcomers as module
    from tests.toys import cache_size

    simulators, data = make(), of_factors(make(), [0.5, 1.0])
    newcomers = simulators.personalize(dataset_of([data], [4]))
    before = cache_size(module._condition)
    other = of_factors(make(), [0.1, 1.0], seed=3)
    simulators.personalize(dataset_of([other], [9]))
    newcomers.update(dataset_of([other], [4]))
    assert cache_size(module._condition) == before
    assert isinstance(newcomers.posterior.shift, jax.Array)
    assert History  # the record that transitions come in
