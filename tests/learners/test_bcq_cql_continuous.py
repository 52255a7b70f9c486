"""Continuous BCQ, SAC and CQL by hand, and the limit in which CQL is SAC."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from persim_jax.learners import continuous, cql_continuous, sac
from persim_jax.learners.bcq_continuous import (
    ContinuousBCQConfig,
    bcq_targets,
    make_continuous_bcq,
    perturb,
    soft_clipped,
)
from persim_jax.learners.cql_continuous import (
    ContinuousCQLConfig,
    conservative_gap,
    drawn_actions,
    make_continuous_cql,
)
from persim_jax.learners.sac import SACConfig, make_sac, sac_targets, sample_actions
from tests.learners.test_td3 import SPEC, transitions

pytestmark = pytest.mark.optimizes

SMALL = {"hidden": (6,)}
BCQ = ContinuousBCQConfig(**SMALL, vae_hidden=(5,), num_target_actions=3, num_actions=7)
SAC = SACConfig(**SMALL, actor_rate=1e-2, critic_rate=1e-2)
CQL = ContinuousCQLConfig(**SMALL, actor_rate=1e-2, critic_rate=1e-2, num_samples=2)
GREEDY = jnp.zeros(())
KEY = jax.random.key(0)


def after(learner, steps=3):
    state, update = jax.jit(learner.init)(jax.random.key(3)), jax.jit(learner.update)
    for step in range(steps):
        key = jax.random.key(step)
        state, metrics = update(key, state, transitions(8, key))
    return state, metrics


def near(first, second):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), first, second)


def test_unit_actions_are_the_bounds_at_their_ends():
    actions = jnp.asarray([[-1.0, 0.0], [3.0, 0.5], [1.0, 0.25]])
    unit = continuous.to_unit(SPEC, actions)
    np.testing.assert_allclose(unit, [[-1, -1], [1, 1], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(continuous.from_unit(SPEC, unit), actions, atol=1e-6)
    np.testing.assert_allclose(continuous.from_unit(SPEC, 9.0 * unit[:2]), actions[:2], atol=1e-6)


def test_an_action_that_data_never_vary_is_the_middle_of_its_bounds():
    # The range of a user's data, where an action was the same throughout.
    spec = dataclasses.replace(SPEC, action_low=(-1.0, 0.3), action_high=(3.0, 0.3))
    unit = continuous.to_unit(spec, jnp.asarray([[3.0, 0.3]]))
    np.testing.assert_allclose(unit, [[1.0, 0.0]])
    np.testing.assert_allclose(continuous.from_unit(spec, unit + 0.5), [[3.0, 0.3]])


def test_soft_clipping_by_hand():
    values = jnp.asarray([[1.0, 5.0], [3.0, 1.0]])
    np.testing.assert_allclose(soft_clipped(values, 0.75), [1.5, 2.0])


def test_a_squashed_gaussian_has_the_density_that_it_says():
    actor = jax.jit(lambda key: sac.init_sac(SPEC, SAC, key).actor)(KEY)
    obs = jnp.zeros((20_000, 3))
    actions, log_density = sample_actions(KEY, SPEC, SAC, actor, obs)
    assert bool((jnp.abs(actions) <= 1).all())
    # The mean of 1 / p over a region, 0 elsewhere, is the volume of the region.
    inside = jnp.all(jnp.abs(actions) < 0.9, axis=1)
    volume = jnp.where(inside, jnp.exp(-log_density), 0.0).mean()
    np.testing.assert_allclose(volume, 1.8**2, rtol=0.05)


def test_the_gap_estimates_the_integral_of_the_exponential():
    # Q(a) = a on [-1, 1], by uniform actions whose density is 1/2: log(e - 1/e).
    actions = np.linspace(-1, 1, 20_001)
    drawn = jnp.asarray(np.tile(actions, (2, 1, 1)), jnp.float32)
    densities = jnp.full((1, actions.size), np.log(0.5), jnp.float32)
    found = conservative_gap(jnp.asarray([[0.25], [0.0]]), drawn, densities)
    np.testing.assert_allclose(found, 2 * np.log(np.e - 1 / np.e) - 0.25, rtol=1e-3)


def test_drawn_actions_are_of_three_kinds_with_their_densities():
    batch = transitions(4, KEY)
    actor = jax.jit(lambda key: sac.init_sac(SPEC, CQL, key).actor)(KEY)
    actions, densities = drawn_actions(KEY, SPEC, CQL, actor, batch)
    assert actions.shape == (4, 6, 2)
    np.testing.assert_allclose(densities[:, 4:], 2 * np.log(0.5), rtol=1e-6)
    slope = jax.grad(lambda p: drawn_actions(KEY, SPEC, CQL, p, batch)[0].sum())(actor)
    assert all(not leaf.any() for leaf in jax.tree.leaves(slope))


def test_cql_without_weight_is_sac():
    ours, _ = after(make_continuous_cql(SPEC, dataclasses.replace(CQL, weight=0.0)))
    theirs, _ = after(make_sac(SPEC, SAC))
    near(ours.sac.critics, theirs.critics)
    near(ours.sac.actor, theirs.actor)
    near(ours.sac.log_temperature, theirs.log_temperature)


def test_the_multiplier_rises_where_the_gap_is_above_the_threshold():
    rises, falls = (
        after(make_continuous_cql(SPEC, dataclasses.replace(CQL, threshold=t)))[0].log_multiplier
        for t in (0.0, 1e3)
    )
    assert rises > 0 > falls
    fixed, _ = after(make_continuous_cql(SPEC, CQL))
    assert fixed.log_multiplier == 0


def test_a_temperature_without_a_logarithm_is_refused():
    with pytest.raises(ValueError, match=r"temperature is 0\.0: it must be positive"):
        ContinuousCQLConfig(temperature=0.0)


@pytest.mark.parametrize("kind", ["bcq", "sac"])
def test_a_termination_leaves_the_reward_and_a_time_limit_does_not(kind):
    batch = transitions(6, KEY)
    if kind == "bcq":
        state, _ = after(make_continuous_bcq(SPEC, BCQ), 1)
        targets = bcq_targets(KEY, SPEC, BCQ, state, batch)
    else:
        state, _ = after(make_sac(SPEC, SAC), 1)
        targets = sac_targets(KEY, SPEC, SAC, state, batch)
    same = np.asarray(targets) == np.asarray(batch.rewards)
    np.testing.assert_array_equal(same, batch.terminated)


def test_targets_ask_the_slow_networks_and_acting_the_learned_ones():
    spoiled = lambda tree: jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree)  # noqa: E731
    learner, batch = make_continuous_bcq(SPEC, BCQ), transitions(6, KEY)
    state = jax.jit(learner.init)(KEY)
    fast = state.replace(actor=spoiled(state.actor), critics=spoiled(state.critics))
    targets = jax.jit(bcq_targets, static_argnums=(1, 2))(KEY, SPEC, BCQ, fast, batch)
    slow = state.replace(
        target_actor=spoiled(state.target_actor), target_critics=spoiled(state.target_critics)
    )
    action = jax.jit(learner.act)(KEY, slow, jnp.ones(3), GREEDY)
    assert np.isfinite(targets).all()
    assert np.isfinite(action).all()


def test_a_perturbation_is_small_and_stays_in_bounds():
    state, _ = after(make_continuous_bcq(SPEC, BCQ), 1)
    obs, actions = jnp.ones((50, 3)), jax.random.uniform(KEY, (50, 2), minval=-1.0, maxval=1.0)
    moved = perturb(SPEC, BCQ, jax.tree.map(lambda x: 9.0 * x, state.actor), obs, actions)
    assert float(jnp.abs(moved - actions).max()) <= BCQ.perturbation + 1e-6
    assert float(jnp.abs(moved).max()) <= 1.0


@pytest.mark.parametrize(
    ("make", "config"),
    [(make_continuous_bcq, BCQ), (make_sac, SAC), (make_continuous_cql, CQL)],
    ids=["bcq", "sac", "cql"],
)
def test_acting_greedily_is_deterministic_and_discrete_actions_are_refused(make, config):
    learner = make(SPEC, config)
    state, _ = after(learner, 1)
    actions = [learner.act(jax.random.key(i), state, jnp.ones(3), GREEDY) for i in (0, 1)]
    np.testing.assert_array_equal(actions[0], actions[1])
    with pytest.raises(ValueError, match=r"mountain_car has discrete actions: .* use "):
        make(envs.make("mountain_car").spec, config)


def test_actions_are_drawn_with_a_key_that_neither_targets_nor_actor_have(monkeypatch):
    def told(key, *rest):
        raise StopIteration(key)

    monkeypatch.setattr(sac, "sac_targets", lambda *rest: None)
    monkeypatch.setattr(cql_continuous, "drawn_actions", told)
    # A config of its own, as learners are kept by theirs.
    learner = make_continuous_cql(SPEC, dataclasses.replace(CQL, weight=3.0))
    state = jax.jit(learner.init)(KEY)
    with pytest.raises(StopIteration) as drawn:
        learner.update(KEY, state, transitions(4, KEY))
    # split(key) is fold_in(key, 0) and fold_in(key, 1): a third fold must not be one of them.
    others = jax.random.key_data(jax.random.split(KEY)).tolist()
    assert jax.random.key_data(drawn.value.value).tolist() not in others
