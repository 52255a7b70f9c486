"""Every row of Table 2 on a toy with two groups of agents, for whom the same push is opposite."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import collect
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.methods import METHODS, Monitor, persim
from persim_jax.methods.ablations import AblationSettings, ablation_settings
from persim_jax.methods.persim import PERSIM, PersimConfig, fit
from persim_jax.planning.mpc import PlannerConfig
from persim_jax.training import TrainConfig
from tests.toys import line_env, line_params

GAINS = np.float32([0.1, -0.1, 0.12, -0.12, 0.08, -0.08])
TOY = line_env(max_steps=40)._replace(reward=lambda obs, action, next_obs: next_obs[0])
SMALL = PersimConfig(
    rank=2,
    train=TrainConfig(num_epochs=100, batch_size=30, learning_rate=0.03),
    spare_members=0,
    state_features=(4,),
    ensemble_size=2,
)
OWN_NETWORKS = ablation_settings(AblationSettings(persim=SMALL, own_batch_size=10))
# What each method is fitted with; a new row of the table gets its line here.
CONFIGS = {
    "persim": SMALL,
    "true_env": None,
    "concat_mlp": OWN_NETWORKS,
    "pooled_mlp": OWN_NETWORKS,
    "per_agent_mlp": OWN_NETWORKS,
}
# The offline learners have tests of their own, with settings that name agents. Who is not told the
# agent cannot know which way it is pushed.
PLANNED = [name for name in METHODS if name in CONFIGS and name != "pooled_mlp"]


@functools.cache
def make_dataset(seed=0):
    """Random actions of six agents; ids in no order."""
    found = collect.collect_dataset(
        jax.random.key(seed), TOY, line_params(GAINS), lambda key, params, obs: jnp.asarray(1),
        (), collect.BEHAVIORS["random"],
    )  # fmt: skip
    return OfflineDataset(
        obs=np.asarray(found.obs),
        actions=np.asarray(found.actions),
        rewards=np.asarray(found.rewards),
        terminated=np.asarray(found.terminated),
        mask=np.asarray(found.mask),
        agent_ids=np.int32([5, 1, 9, 3, 70, 2]),
        covariates=GAINS[:, None],
        info=DatasetInfo("line", "random", TOY.spec.obs_names, ("gain",), 3, 3),
    )


@functools.cache
def fitted_by(name):
    key, params = jax.random.key(1), line_params(GAINS)
    return METHODS[name].fit(key, make_dataset(), TOY, params, CONFIGS[name], Monitor())


def one_step(method, fitted, transitions):
    """Predicted differences [B, D], the mean over members."""
    model, params = method.model(fitted)

    @jax.jit
    @jax.vmap
    def predict(agent, obs, action):
        bound = model.bind(params, agent, None)
        state = model.start(bound, obs)
        encoded = model.encode_actions(bound, action)
        state = model.step(jax.random.key(0), bound, state, encoded)
        return model.observe(state).mean(axis=0) - obs

    return np.asarray(predict(transitions.agent, transitions.obs, transitions.actions))


def test_names_are_those_of_the_rows():
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", PLANNED)
def test_every_method_pushes_each_group_its_own_way(name):
    method, fitted = METHODS[name], fitted_by(name)
    planner = PlannerConfig(num_candidates=80, horizon=3) if method.plans else None

    @jax.jit
    @jax.vmap
    def act(agent, key):
        policy = method.policy(fitted, agent, planner)
        return policy.act(key, policy.init(), jnp.asarray([0.1, 7.0]))[0]

    actions = act(jnp.arange(6), jax.random.split(jax.random.key(3), 6))
    np.testing.assert_array_equal(actions, np.where(GAINS > 0, 2, 0))


def errors_of(name):
    """Error of a method's pushes on fresh data, and of least squares over all agents together."""
    seen, fresh = make_dataset().transitions(), make_dataset(seed=8).transitions()
    truth = fresh.next_obs - fresh.obs
    features = lambda t: np.hstack([np.eye(3)[t.actions], t.obs])  # noqa: E731
    weights = np.linalg.lstsq(features(seen), seen.next_obs - seen.obs)[0]
    pooled = np.sqrt(np.mean((features(fresh) @ weights - truth)[:, 0] ** 2))
    own = np.sqrt(np.mean((one_step(METHODS[name], fitted_by(name), fresh) - truth)[:, 0] ** 2))
    return own, pooled


@pytest.mark.parametrize("name", PLANNED)
def test_every_model_beats_the_best_that_ignores_who_the_agent_is(name):
    own, pooled = errors_of(name)
    assert pooled > 0.06  # pushes of about 0.1 in both directions look like none
    assert own < pooled / 4


def test_a_model_that_is_not_told_the_agent_is_no_better_than_that():
    own, pooled = errors_of("pooled_mlp")
    assert own > 0.9 * pooled


class Poison:
    """Whoever so much as looks at it fails."""

    def __getattribute__(self, name):
        raise AssertionError(f"the truth was read: {name}")


def test_persim_never_reads_the_truth_and_so_fits_the_same():
    blind = PERSIM.fit(jax.random.key(1), make_dataset(), TOY, Poison(), SMALL, Monitor())
    for ours, theirs in zip(
        jax.tree.leaves(blind.params), jax.tree.leaves(fitted_by("persim").params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(blind.agent_ids, make_dataset().agent_ids)


def test_covariates_are_carried_along_and_change_nothing():
    dataset = make_dataset()
    other = fit(jax.random.key(1), dataset.replace(covariates=GAINS[::-1, None]), TOY, SMALL)
    model = fitted_by("persim")
    np.testing.assert_array_equal(other.covariates[:, 0], GAINS[::-1])
    jax.tree.map(np.testing.assert_array_equal, other.params, model.params)
    # A user asks by id, a method by row: the agent 9 stands in row 2.
    step = model.step(9, dataset.obs[2, 0], 2)
    assert step.mean[0] - dataset.obs[2, 0, 0] == pytest.approx(0.12, abs=0.01)


def test_a_monitor_sees_every_epoch_and_a_restored_fit_ends_where_the_whole_one_does():
    states, handed = [], []

    def restore(state):
        handed.append(state)
        return states[12] if states else state

    monitor = Monitor(restore, lambda state, losses: states.append(state))
    whole = fit(jax.random.key(1), make_dataset(), TOY, SMALL, monitor)
    assert [int(s.epoch) for s in states] == list(range(1, SMALL.train.num_rounds + 1))
    assert int(handed[0].epoch) == 0
    seen = len(states)
    again = fit(jax.random.key(1), make_dataset(), TOY, SMALL, monitor)
    assert len(states) - seen == SMALL.train.num_rounds - 13
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)


def test_data_that_are_not_valid_are_refused_before_anything_is_trained():
    dataset = make_dataset()
    obs = dataset.obs.copy()
    obs[4, 3, 0] = np.nan
    with pytest.raises(ValueError, match="agent 70 at step 3, position"):
        fit(jax.random.key(0), dataset.replace(obs=obs), config=SMALL)


def test_sizes_follow_from_the_data_and_settings_from_the_config():
    config = SMALL.factor(make_dataset())
    sizes = (config.num_agents, config.obs_size, config.action_size, config.discrete)
    assert sizes == (6, 2, 3, True)
    for name in ("rank", "state_features", "ensemble_size", "skip", "agent_start", "activation"):
        assert getattr(config, name) == getattr(SMALL, name)


@pytest.mark.slow
def test_polished_members_fit_the_data_and_the_best_of_them_are_kept():
    epochs = []
    monitor = Monitor(on_epoch=lambda *epoch: epochs.append(epoch))
    train = dataclasses.replace(SMALL.train, num_epochs=10, polish_rounds=1, polish_steps=300)
    config = dataclasses.replace(SMALL, train=train, spare_members=2)
    fitted = fit(jax.random.key(1), make_dataset(), TOY, config, monitor)
    state, losses = epochs[-1]
    before = np.asarray(epochs[-2][1])
    assert losses.shape == (4,)
    assert np.all(losses < 0.5 * before)
    # A round of polishing sees all of these data, so its losses say who is best.
    best = np.sort(np.argsort(losses)[:2])
    assert fitted.config.ensemble_size == 2
    jax.tree.map(
        lambda kept, trained: np.testing.assert_array_equal(kept, np.asarray(trained)[best]),
        fitted.params.weights,
        state.params.weights,
    )
    fresh = make_dataset(seed=8).transitions()
    error = one_step(PERSIM, fitted, fresh) - (fresh.next_obs - fresh.obs)
    assert np.sqrt(np.mean(error[:, 0] ** 2)) < 0.005


@pytest.mark.slow
@pytest.mark.optimizes
@pytest.mark.parametrize(("name", "polish_rounds"), [("persim", 1), ("concat_mlp", 0)])
def test_where_jax_knows_64_bits_the_same_is_learned(name, polish_rounds):
    train = TrainConfig(3, batch_size=30, polish_rounds=polish_rounds, polish_steps=3)
    config = dataclasses.replace(SMALL, train=train, spare_members=1)
    config = config if name == "persim" else ablation_settings(AblationSettings(persim=config))
    wide = {k: np.float64(getattr(make_dataset(), k)) for k in ("obs", "rewards", "covariates")}
    found = []
    for x64, data in (
        (False, make_dataset()), (True, make_dataset()), (True, make_dataset().replace(**wide))
    ):  # fmt: skip
        with jax.enable_x64(x64):
            fitted = METHODS[name].fit(jax.random.key(1), data, TOY, None, config, Monitor())
            model, params = METHODS[name].model(fitted)
            bound = model.bind(params, jnp.asarray(0), None)
            start = model.start(bound, jnp.asarray(data.obs[0, 0]))
            encoded = model.encode_actions(bound, jnp.asarray(2, jnp.int32))
            after = model.step(jax.random.key(0), bound, start, encoded)
            # A rollout carries the one on to the other.
            assert after.dtype == start.dtype == data.obs.dtype
            found.append(np.asarray(after))
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    np.testing.assert_allclose(found[2], found[0], atol=1e-3)


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_actions_in_a_unit_that_the_model_cannot_learn_from_are_warned_about(unit, monkeypatch):
    # What is warned about is known before anything is trained.
    monkeypatch.setattr(persim, "fit_model", lambda *args: (None, None))
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 40, 1)).astype(np.float32)
    dataset = make_dataset().replace(
        actions=actions * np.float32(unit),
        info=DatasetInfo("line", "random", TOY.spec.obs_names, ("gain",), 0, 1),
    )
    # The root mean square of uniform numbers in [-1, 1] is 0.577.
    size = r"actions of the dataset are of the size of (5\.[5-9]|6)e[+-]0[57] in coordinate 0"
    with pytest.warns(UserWarning, match=size + ".*normalize_actions=True"):
        fit(jax.random.key(0), dataset, config=SMALL)
    # Of the order of 1, or scaled by the model: no warning, which here would be an error.
    fit(jax.random.key(0), dataset.replace(actions=actions), config=SMALL)
    fit(jax.random.key(0), dataset, config=dataclasses.replace(SMALL, normalize_actions=True))
