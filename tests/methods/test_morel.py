"""MOReL on toys: what it learns, where it does not go, and what happens when something breaks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.learners.natural_gradient import NaturalGradientConfig
from persim_jax.learners.policies import PolicyConfig
from persim_jax.methods import METHODS, Monitor, find_method
from persim_jax.methods.morel import MorelConfig, MorelSettings, fit, make_lanes, morel_method
from persim_jax.methods.morel_records import GOOD
from persim_jax.models.base import DynamicsModel
from persim_jax.training import TrainConfig
from tests.methods.test_methods import TOY, make_dataset
from tests.toys import push_of

pytestmark = pytest.mark.optimizes

DATA = make_dataset()
LEARNER = NaturalGradientConfig(
    policy=PolicyConfig(hidden=(8,)), discount=0.8, max_kl=0.05, cg_steps=5, damping=1e-2,
    value_hidden=(8,), value_rate=0.01, value_steps=5, value_batch=32, clone_steps=5,
    clone_batch=16,
)  # fmt: skip
CONFIG = MorelConfig(
    train=TrainConfig(num_epochs=2, batch_size=20, learning_rate=0.01), learner=LEARNER,
    hidden=(8,), ensemble_size=2, num_iterations=4, num_paths=16, horizon=8, chunk=2,
)  # fmt: skip
SETTINGS = MorelSettings(CONFIG, agents=(4, 1))


def run(name="morel_a", config=CONFIG, agents=(4, 1), data=DATA, model=None, **hooks):
    settings = MorelSettings(config, agents)
    return fit(jax.random.key(0), data, TOY, name, settings, Monitor(**hooks), model)


@functools.cache
def plain():
    """An unbroken fit of two agents, and the states that it passed."""
    states = []
    return run(on_epoch=lambda state, losses: states.append((state, np.asarray(losses)))), states


def act(fitted, row, position):
    policy = METHODS["morel_a"].policy(fitted, jnp.asarray(row), None)
    return int(policy.act(jax.random.key(0), policy.init(), jnp.asarray([position, 3.0]))[0])


def same(first, second, rtol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, rtol), first, second)


def fantasy_init(key):
    return jax.random.normal(key, (2, 1))


def fantasy_step(key, bound, state, encoded):
    """Pushes of a quarter; past 1 the second member dreams of a leap."""
    del key, bound
    leap = jnp.where(state[:, :1] > 1.0, 0.5, 0.0) * jnp.asarray([[0.0], [1.0]])
    move = jnp.concatenate([0.25 * encoded[None] + leap, jnp.ones((2, 1))], axis=-1)
    return state + move


FANTASY = DynamicsModel(
    num_members=2,
    init=fantasy_init,
    fit_normalizer=lambda data: (),
    loss=lambda params, batch, key: (jnp.square(params.weights).sum(axis=1), {}),
    bind=lambda params, agent, history: params,
    encode_actions=lambda bound, actions: push_of(actions, 3)[..., None],
    start=lambda bound, obs: jnp.broadcast_to(obs, (2, 2)),
    step=fantasy_step,
    observe=lambda state: state,
)
"""Members that agree where the data are and only there."""


@functools.cache
def walked(coefficient):
    """Positions that the policy passes in the first member's dynamics, and what it has learned."""
    config = dataclasses.replace(
        CONFIG, pessimism_coef=coefficient, num_iterations=60, chunk=60, num_paths=64, horizon=12
    )
    # Trajectories within [-1, 1], where the members agree.
    inside = DATA.replace(obs=np.clip(DATA.obs, -1.0, 1.0))
    fitted = run("morel_p", config, data=inside, model=FANTASY)
    policy = METHODS["morel_p"].policy(fitted, jnp.asarray(0), None)
    obs, positions = jnp.zeros(2), []
    for _ in range(12):
        action, _ = policy.act(jax.random.key(0), policy.init(), obs)
        obs = obs + jnp.stack([0.25 * push_of(action, 3), jnp.ones(())])
        positions.append(float(obs[0]))
    return np.array(positions), fitted


def test_pessimism_keeps_a_policy_where_the_members_agree():
    # The reward is the position. Beyond 1.25 is unknown: a step from beyond 1 leads to HALT.
    (bold, trusting), (careful, pessimistic) = walked(0.0), walked(1.0)
    assert bold.max() >= 2.0
    assert 0.5 <= careful.max() <= 1.0
    assert float(trusting.metrics["halted"][0]) == 0.0
    # Untrained, half of the walks to the right would end there.
    assert float(pessimistic.metrics["halted"][0]) < 0.3
    assert float(pessimistic.unknown[0]) == 0.0


@pytest.mark.slow
def test_each_agent_learns_its_own_best_push_from_its_own_trajectory():
    train = TrainConfig(num_epochs=60, batch_size=20, learning_rate=0.01)
    config = dataclasses.replace(CONFIG, train=train, num_iterations=30, chunk=30)
    fitted = run(config=config)
    # Gains of opposite signs, and the reward is the position.
    assert [act(fitted, row, 0.0) for row in (4, 1)] == [2, 0]
    assert np.all(np.asarray(fitted.metrics["return"]) > 0)


def test_an_agents_policy_does_not_depend_on_the_agents_beside_it():
    alone, together = run(agents=(1,)), plain()[0]
    same(
        jax.tree.map(lambda leaf: leaf[0], alone.params),
        jax.tree.map(lambda leaf: leaf[1], together.params),
        rtol=1e-4,
    )
    assert together.agents.tolist() == [4, 1]
    wide = run(config=dataclasses.replace(CONFIG, width=0))
    same(wide.params, together.params, rtol=5e-3)


def test_training_goes_on_from_either_of_its_parts():
    whole, states = plain()
    assert [int(state.step) for state, _ in states] == [1, 2, 4, 6]
    assert all(losses.shape == (2,) and np.isfinite(losses).all() for _, losses in states)
    assert states[1][1].mean() < states[0][1].mean()  # the members learn
    for state, _ in (states[0], states[2]):
        again = run(restore=lambda start, state=state: state)
        same(again.params, whole.params)
        same(again.metrics, whole.metrics)


def test_one_policy_is_for_all_and_sees_every_first_observation():
    lanes = make_lanes(jax.random.key(0), DATA, TOY, (-1,))
    np.testing.assert_array_equal(lanes.starts[0], DATA.obs[:, 0])
    assert int(lanes.size[0]) == DATA.mask.sum() == lanes.data.rewards.shape[1]
    assert np.all(np.asarray(lanes.data.agent) == 0)
    # The reward of a step is the position after it.
    positions = DATA.obs[:, 1:, 0][DATA.mask]
    np.testing.assert_allclose(lanes.lowest, positions.min(), rtol=1e-6)
    np.testing.assert_allclose(lanes.highest, positions.max(), rtol=1e-6)
    fitted = run("morel_p")
    assert fitted.agents.tolist() == [-1]
    assert len({act(fitted, row, 0.3) for row in range(6)}) == 1


def short(steps=3):
    data = DATA.replace(mask=np.broadcast_to(np.arange(40) < steps, DATA.mask.shape))
    return data.replace(rewards=np.where(data.mask, DATA.rewards, 0.0).astype(np.float32))


def test_a_trajectory_shorter_than_a_batch_is_repeated_in_turn():
    lanes = make_lanes(jax.random.key(0), short(), TOY, (4, 1))
    assert lanes.size.tolist() == [3, 3]
    np.testing.assert_array_equal(lanes.starts[:, 0], DATA.obs[[4, 1], 0])
    rows = np.arange(40) % 3
    np.testing.assert_array_equal(lanes.data.obs[1], DATA.obs[1, :-1][rows])
    fitted = run(data=short(), config=dataclasses.replace(CONFIG, buffer_share=1.0))
    assert fitted.diverged(4) is None
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))


def test_a_diverged_ensemble_is_named_and_the_others_go_on():
    # The square of such a move is no number.
    obs = np.array(DATA.obs)
    obs[1, ::2] = 3e30
    fitted = run(data=DATA.replace(obs=obs))
    assert (fitted.diverged(4), fitted.diverged(1)) == (None, 1)
    assert fitted.diverged_member.tolist() == [GOOD, 0]
    lane = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)  # noqa: E731
    same(lane(fitted.params), lane(plain()[0].params))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    with pytest.raises(KeyError, match=r"row 3 has no policy: rows \[4, 1\] have one"):
        fitted.diverged(3)


def test_a_diverged_policy_is_named_and_stays_as_it_was_before():
    def spoil(start):
        state = plain()[1][1][0]
        kernel = lambda leaf: leaf.at[1].set(jnp.nan)  # noqa: E731
        value_params = jax.tree.map(kernel, state.learner.value_params)
        return state._replace(learner=state.learner.replace(value_params=value_params))

    fitted = run(restore=spoil)
    # At step 4: two epochs, and the first two updates.
    assert (fitted.diverged(4), fitted.diverged(1)) == (None, 4)
    assert fitted.diverged_member.tolist() == [GOOD, GOOD]
    before = plain()[1][1][0].learner.params
    same(*(jax.tree.map(lambda leaf: leaf[1], tree) for tree in (fitted.params, before)))


def test_a_threshold_that_marks_everything_unknown_is_said_with_the_share():
    fitted, normal = run(config=dataclasses.replace(CONFIG, pessimism_coef=1e9)), plain()[0]
    assert float(fitted.unknown[0]) > 0.95
    assert float(fitted.metrics["halted"][0]) == 1.0
    assert "the threshold marks 100.0 % of the data unknown" in fitted.warning(4)
    assert normal.warning(4) is None
    assert float(normal.unknown[0]) == 0.0
    half = run(config=dataclasses.replace(CONFIG, pessimism_coef=2.0))
    np.testing.assert_allclose(half.thresholds, normal.thresholds / 2, rtol=1e-5)
    assert 0 < float(half.unknown[0]) < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_paths": 15}, "num_paths is 15: make it a multiple of ensemble_size, 2"),
        ({"num_iterations": 5}, "num_iterations is 5: make it a multiple of chunk, 2"),
        ({"pessimism_coef": -1.0}, r"pessimism_coef is -1\.0: it must be at least 0"),
        ({"buffer_share": 2.0}, r"buffer_share is 2\.0: it must lie in \[0, 1\]"),
        ({"ensemble_size": 0}, "ensemble_size is 0: it must be at least 1"),
        ({"train": dataclasses.replace(CONFIG.train, polish_rounds=1)},
         r"train\.polish_rounds is 1: MOReL's members are trained by epochs alone"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_names_and_agents_that_are_missing_are_told():
    for function in (lambda: run("morel"), lambda: morel_method("morel")):
        with pytest.raises(ValueError, match="'morel' is no form of MOReL: use one of morel_p"):
            function()
    with pytest.raises(ValueError, match="morel_a has no agents to learn for"):
        run(agents=())
    method = find_method("morel_p")
    assert (method.plans, method.model) == (False, None)
