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
from tests.methods.test_methods import GAINS, TOY, make_dataset
from tests.toys import push_of

pytestmark = pytest.mark.optimizes

DATA = make_dataset()
EPOCHS = 40
LEARNER = NaturalGradientConfig(
    policy=PolicyConfig(hidden=(8,)), discount=0.8, max_kl=0.05, cg_steps=5, damping=1e-2,
    value_hidden=(8,), value_rate=0.01, value_steps=5, value_batch=32, clone_steps=5,
    clone_batch=16,
)  # fmt: skip
CONFIG = MorelConfig(
    train=TrainConfig(num_epochs=EPOCHS, batch_size=20, learning_rate=0.02), learner=LEARNER,
    ensemble_size=2, num_iterations=4, num_paths=32, horizon=12, chunk=2,
)  # fmt: skip
SETTINGS = MorelSettings(CONFIG, agents=(4, 1))


def run(name="morel_a", config=CONFIG, agents=(4, 1), data=DATA, **hooks):
    settings = MorelSettings(config, agents)
    return fit(jax.random.key(0), data, TOY, name, settings, Monitor(**hooks), DREAMING)


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


def dream_loss(params, batch, key):
    del key
    moves = (batch.next_obs - batch.obs)[..., 0]
    errors = moves - params.weights * push_of(batch.actions, 3)
    return 100.0 * jnp.square(errors).mean(axis=1), {}


def dream_step(key, gains, state, push):
    """Position and clock; past `BORDER` the second member dreams of a better world."""
    del key
    dream = jnp.where(state[:, :1] > BORDER, 0.1, 0.0) * jnp.asarray([[0.0], [1.0]])
    return state + jnp.concatenate([gains * push[None] + dream, jnp.ones((2, 1))], axis=-1)


BORDER = 0.75
"""Just beyond what the trajectory of the agent in row 4 reaches."""
DREAMING = DynamicsModel(
    num_members=2,
    init=lambda key: 0.1 * jax.random.normal(key, (2, 1)),
    fit_normalizer=lambda data: jnp.zeros(()),
    loss=dream_loss,
    bind=lambda params, agent, history: params.weights,
    encode_actions=lambda gains, actions: push_of(actions, 3)[..., None],
    start=lambda gains, obs: jnp.broadcast_to(obs, (2, 2)),
    step=dream_step,
    observe=lambda state: state,
)
"""Two members that learn a gain each, so that they agree where the data are, and only there."""


@functools.cache
def learned(coefficient):
    """After many updates."""
    return run(config=dataclasses.replace(CONFIG, pessimism_coef=coefficient, num_iterations=60))


def walk(fitted, row):
    """Positions that a policy passes in the truth from where the agent's trajectory began."""
    policy, obs = METHODS["morel_a"].policy(fitted, jnp.asarray(row), None), DATA.obs[row, 0]
    positions = []
    for _ in range(CONFIG.horizon):
        action, _ = policy.act(jax.random.key(0), policy.init(), jnp.asarray(obs))
        obs = obs + np.float32([GAINS[row] * (int(action) - 1), 1.0])
        positions.append(obs[0])
    return np.array(positions)


def test_pessimism_keeps_a_policy_where_the_members_agree():
    # The reward is the position. Past the border the members disagree: any step leads to HALT.
    bold, careful = learned(0.0), learned(1.0)
    assert walk(bold, 4).max() > BORDER + 0.2
    assert 0.55 < walk(careful, 4).max() < BORDER + 0.01
    assert float(bold.metrics["halted"][0]) == 0.0
    assert float(careful.metrics["halted"][0]) < 0.5


def test_each_agent_learns_its_own_best_push_from_its_own_trajectory():
    # Gains of opposite signs, and the reward is the position.
    fitted = learned(1.0)
    assert [act(fitted, row, position) for row, position in ((4, 0.4), (1, -0.3))] == [2, 0]
    np.testing.assert_array_equal(fitted.unknown, [0.0, 0.0])


def test_an_agents_policy_does_not_depend_on_the_agents_beside_it():
    other, together = run(agents=(1, 3)), plain()[0]
    same(
        jax.tree.map(lambda leaf: leaf[0], other.params),
        jax.tree.map(lambda leaf: leaf[1], together.params),
    )
    assert together.agents.tolist() == [4, 1]


@pytest.mark.slow
def test_lanes_side_by_side_are_those_one_after_the_other():
    # One after the other each runs alone. Over many epochs rounding would grow.
    whole, states = plain()
    found = []
    wide = run(
        config=dataclasses.replace(CONFIG, width=0),
        restore=lambda start: states[EPOCHS - 2][0],
        on_epoch=lambda state, losses: found.append(state),
    )
    weights = lambda state: state.models.params.weights  # noqa: E731
    same(weights(found[0]), weights(states[EPOCHS - 1][0]), rtol=1e-4)
    same(wide.thresholds, whole.thresholds, rtol=1e-3)
    same(wide.params, whole.params, rtol=5e-3)


def test_training_goes_on_from_either_of_its_parts():
    whole, states = plain()
    steps = [*range(1, EPOCHS + 1), EPOCHS + 2, EPOCHS + 4]
    assert [int(state.step) for state, _ in states] == steps
    assert all(losses.shape == (2,) and np.isfinite(losses).all() for _, losses in states)
    assert states[EPOCHS - 1][1].mean() < 0.5 * states[0][1].mean()  # the members learn
    for state, _ in (states[0], states[EPOCHS]):
        found = []
        again = run(
            restore=lambda start, state=state: state,
            on_epoch=lambda later, losses, found=found: found.append(int(later.step)),
        )
        assert found == [step for step in steps if step > int(state.step)]
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
    own = learned(1.0)
    pooled = jax.tree.map(lambda leaf: leaf[:1], own).replace(agents=jnp.asarray([-1]))
    found = [act(pooled, row, 0.4) for row in range(6)]
    assert found == [act(own, 4, 0.4)] * 6 != [act(own, 1, 0.4)] * 6


def test_imagined_episodes_begin_where_a_record_does_and_not_in_a_gap_before_it():
    mask = np.array(DATA.mask)
    mask[4, :2] = mask[1, :1] = False
    gaps = DATA.replace(mask=mask, info=dataclasses.replace(DATA.info, segmented=True))
    lanes = make_lanes(jax.random.key(0), gaps, TOY, (4, 1))
    np.testing.assert_array_equal(lanes.starts[:, 0], [DATA.obs[4, 2], DATA.obs[1, 1]])


def test_a_reward_that_is_no_number_is_told_before_anything_is_trained():
    task = TOY._replace(reward=lambda obs, action, next_obs: jnp.log(next_obs[0] + 0.5))
    with pytest.raises(ValueError, match=r"the reward function gives nan at obs \["):
        make_lanes(jax.random.key(0), DATA, task, (-1,))


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
    absent = pytest.raises(KeyError, match=r"row 3 has no policy: rows \[4, 1\] have one")
    with absent:
        fitted.diverged(3)
    with absent:
        METHODS["morel_a"].policy(fitted, jnp.asarray(3), None)


def test_a_diverged_policy_is_named_and_stays_as_it_was_before():
    def spoil(start):
        state = plain()[1][EPOCHS - 1][0]
        kernel = lambda leaf: leaf.at[1].set(jnp.nan)  # noqa: E731
        value_params = jax.tree.map(kernel, state.learner.value_params)
        return state._replace(learner=state.learner.replace(value_params=value_params))

    fitted = run(restore=spoil)
    # The first of the two updates that are one program.
    assert (fitted.diverged(4), fitted.diverged(1)) == (None, EPOCHS + 1)
    assert fitted.diverged_member.tolist() == [GOOD, GOOD]
    before = plain()[1][EPOCHS - 1][0].learner.params
    same(*(jax.tree.map(lambda leaf: leaf[1], tree) for tree in (fitted.params, before)))


def test_a_threshold_that_marks_everything_unknown_is_said_with_the_share():
    # Without a push there is nothing to disagree about: data that push at every step.
    pushing = DATA.replace(actions=np.where(DATA.actions == 1, 2, DATA.actions))
    config = dataclasses.replace(CONFIG, pessimism_coef=1e9)
    fitted, normal = run(config=config, data=pushing), plain()[0]
    assert float(fitted.unknown[0]) == 1.0
    assert float(fitted.metrics["halted"][0]) > 0.9
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
        ({"distance": "l2"}, "distance 'l2' is unknown: use one of raw, scaled"),
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
    with pytest.raises(ValueError, match=r"morel_a is to learn for the agents in rows \[-1, 9\]"):
        run(agents=(-1, 1, 9))
    other = DATA.replace(info=dataclasses.replace(DATA.info, num_actions=4, action_size=4))
    with pytest.raises(ValueError, match="discrete actions: line has 3, the data have 4"):
        run(data=other)
    with pytest.raises(ValueError, match="model has 2 members and the settings ensemble_size 4"):
        run(config=dataclasses.replace(CONFIG, ensemble_size=4))
    method = find_method("morel_p")
    assert (method.plans, method.model) == (False, None)
