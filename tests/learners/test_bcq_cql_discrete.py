"""Discrete BCQ and CQL by hand: masks, losses, targets, and the limits in which they are others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import half_cheetah
from persim_jax.learners import discrete
from persim_jax.learners.bcq_discrete import (
    DiscreteBCQConfig,
    allowed_actions,
    choose,
    discrete_bcq_loss,
    imitation_loss,
    make_discrete_bcq,
)
from persim_jax.learners.cql_discrete import (
    DiscreteCQLConfig,
    conservative_gap,
    discrete_cql_loss,
    make_discrete_cql,
)
from persim_jax.learners.discrete import DiscreteConfig, bootstrapped, of_actions
from persim_jax.learners.dqn import DQNConfig, make_dqn, q_values
from persim_jax.types import Transitions

SPEC = envs.make("mountain_car").spec
HIDDEN = (7,)
DQN = DQNConfig(hidden=HIDDEN, learning_rate=1e-2, double=True, target_rate=0.1)
SAME = {"hidden": HIDDEN, "learning_rate": 1e-2, "target_rate": 0.1}
CQL, BCQ = DiscreteCQLConfig(**SAME), DiscreteBCQConfig(**SAME)
NO_EXPLORATION = jnp.zeros(())


def transitions(batch_size=5, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    return Transitions(
        agent=jnp.zeros(batch_size, jnp.int32),
        obs=jax.random.normal(keys[0], (batch_size, 2)),
        actions=jax.random.randint(keys[1], (batch_size,), 0, 3, jnp.int32),
        rewards=3.0 * jax.random.normal(keys[2], (batch_size,)),
        next_obs=jax.random.normal(keys[3], (batch_size, 2)),
        terminated=jnp.arange(batch_size) % 3 == 0,
    )


def after(learner, steps=3):
    """The state after some gradient steps on different batches."""
    state = learner.init(jax.random.key(3))
    update = jax.jit(learner.update)
    for step in range(steps):
        state, metrics = update(jax.random.key(step), state, transitions(seed=step))
    return state, metrics


def near(first, second, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, 1e-6), first, second)


def test_a_time_limit_bootstraps_and_a_termination_does_not():
    batch = transitions(2).replace(
        rewards=jnp.array([1.0, 1.0]), terminated=jnp.array([True, False])
    )
    values = jnp.array([[5.0, 6.0, 7.0], [5.0, 6.0, 7.0]])
    targets = bootstrapped(batch, values, jnp.array([2, 0]), 0.5)
    np.testing.assert_allclose(targets, [1.0, 1.0 + 0.5 * 5.0])


def test_a_target_lets_no_gradient_through():
    batch = transitions(2)
    slope = jax.grad(lambda v: bootstrapped(batch, v, jnp.array([0, 1]), 0.9).sum())(
        jnp.ones((2, 3))
    )
    np.testing.assert_array_equal(slope, 0.0)


# Probabilities 0.6, 0.3, 0.1: ratios to the likeliest 1, 1/2, 1/6.
LOGITS = np.log(np.float32([0.6, 0.3, 0.1])) + 2.0


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, [1, 1, 1]), (0.1, [1, 1, 1]), (0.3, [1, 1, 0]), (0.6, [1, 0, 0]), (1.0, [1, 0, 0])],
)
def test_actions_are_allowed_by_their_ratio_to_the_likeliest(threshold, expected):
    np.testing.assert_array_equal(allowed_actions(jnp.asarray(LOGITS), threshold), expected)


@pytest.mark.parametrize(
    ("values", "threshold", "expected"),
    [
        # The best of all, of the first two, and the likeliest whatever its value.
        ([-3.0, -2.0, -1.0], 0.1, 2),
        ([-3.0, -2.0, -1.0], 0.3, 1),
        ([-3.0, -2.0, -1.0], 0.6, 0),
        # With a mask of zeros instead of minus infinity this would be action 2.
        ([-5.0, -6.0, -7.0], 0.3, 0),
    ],
)
def test_the_choice_is_the_best_allowed_action_also_where_all_values_are_negative(
    values, threshold, expected
):
    assert choose(jnp.asarray(values), jnp.asarray(LOGITS), threshold) == expected


def test_the_imitation_loss_by_hand():
    logits = np.float32([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    likelihood = [2.0 - np.log(1 + np.e + np.e**2), -np.log(3.0)]
    expected = -np.mean(likelihood) + 0.25 * np.mean(logits**2)
    found = imitation_loss(jnp.asarray(logits), jnp.array([2, 0]), 0.25)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_conservative_gap_by_hand_is_never_negative():
    values = np.float32([[1.0, 2.0, 0.0], [5.0, -5.0, -5.0]])
    soft = np.log(np.exp(values.astype(np.float64)).sum(axis=1))
    found = conservative_gap(jnp.asarray(values), jnp.array([0, 0]))
    np.testing.assert_allclose(found, np.mean(soft - values[:, 0]), rtol=1e-6)
    # Where the action of the data is far better than the others the gap closes.
    assert 0 <= conservative_gap(jnp.asarray(values[1:]), jnp.array([0])) < 1e-3


def numpy_huber_targets(config, state, batch, allowed):
    """Targets and values of double Q-learning in numpy, from the networks' outputs."""
    net = discrete.network(SPEC, config)
    out = lambda params, obs: np.asarray(net.apply(params, obs), np.float64)  # noqa: E731
    next_values = np.where(allowed, out(state.params["q"], batch.next_obs), -np.inf)
    following = out(state.target_params, batch.next_obs)[np.arange(5), next_values.argmax(1)]
    ends = np.asarray(batch.terminated)
    targets = np.asarray(batch.rewards) + config.discount * np.where(ends, 0.0, following)
    values = out(state.params["q"], batch.obs)
    error = np.abs(values[np.arange(5), batch.actions] - targets)
    return values, np.where(error < 1, error**2 / 2, error - 0.5).mean()


@pytest.mark.optimizes
def test_the_loss_of_cql_in_numpy():
    config = dataclasses.replace(CQL, weight=0.7)
    state, _ = after(make_discrete_cql(SPEC, config))
    batch = transitions(seed=9)
    values, huber = numpy_huber_targets(config, state, batch, np.ones((5, 3), bool))
    gap = np.log(np.exp(values).sum(axis=1)) - values[np.arange(5), batch.actions]
    loss, metrics = discrete_cql_loss(SPEC, config, state.params, state, batch)
    np.testing.assert_allclose(loss, huber + 0.7 * gap.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["gap"], gap.mean(), rtol=1e-5)


@pytest.mark.optimizes
def test_the_loss_of_bcq_in_numpy():
    config = dataclasses.replace(BCQ, threshold=0.9, logit_penalty=0.1)
    state, _ = after(make_discrete_bcq(SPEC, config))
    batch = transitions(seed=9)
    net = discrete.network(SPEC, config)
    next_logits = np.asarray(net.apply(state.params["imitation"], batch.next_obs), np.float64)
    odds = np.exp(next_logits - next_logits.max(axis=1, keepdims=True))
    assert not np.all(odds >= 0.9)  # or the mask would do nothing here
    _, huber = numpy_huber_targets(config, state, batch, odds >= 0.9)
    logits = np.asarray(net.apply(state.params["imitation"], batch.obs), np.float64)
    likelihood = logits[np.arange(5), batch.actions] - np.log(np.exp(logits).sum(axis=1))
    loss, _ = discrete_bcq_loss(SPEC, config, state.params, state, batch)
    np.testing.assert_allclose(
        loss, huber - likelihood.mean() + 0.1 * (logits**2).mean(), rtol=1e-5
    )


@pytest.mark.optimizes
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: make_discrete_cql(SPEC, dataclasses.replace(CQL, weight=0.0)), id="cql 0"
        ),
        pytest.param(
            lambda: make_discrete_bcq(SPEC, dataclasses.replace(BCQ, threshold=0.0)), id="bcq 0"
        ),
    ],
)
def test_at_zero_both_are_double_dqn(make):
    learner, reference = make(), make_dqn(SPEC, DQN)
    ours, _ = after(learner)
    theirs, _ = after(reference)
    near(ours.params["q"], theirs.params)
    near(ours.target_params, theirs.target_params)
    for seed in range(5):
        obs = 3.0 * jax.random.normal(jax.random.key(seed), (2,))
        actions = [
            one.act(jax.random.key(0), state, obs, NO_EXPLORATION)
            for one, state in ((learner, ours), (reference, theirs))
        ]
        assert actions[0] == actions[1] == jnp.argmax(q_values(SPEC, DQN, theirs.params, obs))


@pytest.mark.optimizes
def test_bcq_at_one_is_imitation():
    config = dataclasses.replace(BCQ, threshold=1.0)
    learner = make_discrete_bcq(SPEC, config)
    state, _ = after(learner)
    net, found = discrete.network(SPEC, config), set()
    for seed in range(20):
        obs = 3.0 * jax.random.normal(jax.random.key(seed), (2,))
        action = learner.act(jax.random.key(0), state, obs, NO_EXPLORATION)
        assert action == jnp.argmax(net.apply(state.params["imitation"], obs))
        found.add((int(action), int(jnp.argmax(net.apply(state.params["q"], obs)))))
    assert any(own != best for own, best in found)


@pytest.mark.optimizes
def test_a_larger_weight_lowers_the_values_of_actions_that_the_data_lack():
    batch = transitions(64).replace(actions=jnp.zeros(64, jnp.int32))
    gaps = []
    for weight in (0.0, 1.0, 5.0):
        learner = make_discrete_cql(SPEC, dataclasses.replace(CQL, weight=weight))
        state = learner.init(jax.random.key(0))
        update = jax.jit(learner.update)
        for _ in range(100):
            state, metrics = update(jax.random.key(0), state, batch)
        gaps.append(float(metrics["gap"]))
    assert gaps[0] > gaps[1] > gaps[2]


@pytest.mark.optimizes
def test_the_target_is_copied_every_so_often_and_stays_meanwhile():
    config = dataclasses.replace(CQL, target_rate=1.0, target_every=3)
    learner = make_discrete_cql(SPEC, config)
    begin = learner.init(jax.random.key(3))
    two, _ = after(learner, 2)
    near(two.target_params, begin.params["q"], rtol=0)
    three, _ = after(learner, 3)
    near(three.target_params, three.params["q"], rtol=0)


def test_exploring_acts_at_random_among_all_actions():
    learner = make_discrete_bcq(SPEC, dataclasses.replace(BCQ, threshold=1.0))
    state, obs = learner.init(jax.random.key(0)), jnp.zeros(2)
    keys = jax.random.split(jax.random.key(1), 300)
    act = jax.vmap(lambda key, explore: learner.act(key, state, obs, explore), (0, None))
    counts = np.bincount(np.asarray(act(keys, jnp.ones(()))), minlength=3)
    # Three standard deviations of a binomial with 300 draws.
    assert np.all(np.abs(counts - 100) < 25)
    assert len(set(np.asarray(act(keys, NO_EXPLORATION)).tolist())) == 1


@pytest.mark.parametrize("make", [make_discrete_bcq, make_discrete_cql])
def test_continuous_actions_are_refused(make):
    config = BCQ if make is make_discrete_bcq else CQL
    with pytest.raises(ValueError, match=r"half_cheetah has continuous actions: discrete .* use"):
        make(half_cheetah.SPEC, config)


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_that_is_no_share_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"threshold is {threshold}: .* in \[0, 1\]"):
        make_discrete_bcq(SPEC, dataclasses.replace(BCQ, threshold=threshold))


def test_values_of_actions_are_picked_by_row():
    values = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(of_actions(values, jnp.array([1, 0])), [2.0, 3.0])
    assert DiscreteConfig().target_every == 1
