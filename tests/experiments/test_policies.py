"""The shipped policies: what is read is what was written, and they earn what their sidecar says."""

import json

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import covariates
from experiments import policies
from experiments.policies import DQN_CONFIGS, SHIPPED, greedy_act, load_policies, save_policies
from persim_jax.learners.dqn import make_dqn, q_values

ENVIRONMENTS = sorted(DQN_CONFIGS)
TARGETS = {
    "mountain_car": {"pure": -200.0, "test": -150.0},
    "cart_pole": {"pure": 120, "test": 150},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_shipped_policies_are_those_of_the_protocol(environment):
    shipped, table = load_policies(environment), covariates.get(environment)
    np.testing.assert_allclose(shipped.pure_covariates, table.training_agents, rtol=1e-6)
    spec = envs.make(environment).spec
    fresh = make_dqn(spec, DQN_CONFIGS[environment]).init(jax.random.key(0)).params
    shapes = jax.tree.map(jnp.shape, fresh)
    assert jax.tree.map(jnp.shape, shipped.test) == shapes
    assert jax.tree.map(lambda leaf: leaf.shape[1:], shipped.pure) == shapes
    told = shipped.sidecar["policies"]
    assert [policy["behavior"] for policy in told] == ["pure"] * len(table.training_agents) + [
        "test"
    ]
    assert [tuple(policy["covariates"].values()) for policy in told] == [
        *table.training_agents,
        table.default,
    ]
    for policy in told:
        assert policy["target"] == TARGETS[environment][policy["behavior"]]
        assert policy["reached"]
        assert policy["return_at_stop"] >= policy["target"]
    assert len({policy["seed"] for policy in told}) == 2
    assert told[0]["seed"] != told[-1]["seed"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_shipped_files_are_small(environment):
    assert (SHIPPED / f"{environment}.npz").stat().st_size < 150_000


def physics_of(environment, own):
    """Gymnasium's environment, which shares no code with ours, with an agent's covariates."""
    if environment == "mountain_car":
        env = gymnasium.make("MountainCar-v0").unwrapped
        env.gravity = own["gravity"]
    else:
        env = gymnasium.make("CartPole-v1").unwrapped
        env.force_mag, env.length = own["force"], own["length"]
        env.polemass_length = env.masspole * env.length
    return env


def numpy_policy(environment, params):
    """The Q network in numpy: relu layers, then the best action."""
    layers = [jax.device_get(params["params"][name]) for name in sorted(params["params"])]
    scale = np.asarray(DQN_CONFIGS[environment].obs_scale or 1.0)

    def act(obs):
        x = obs * scale
        for layer in layers[:-1]:
            x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
        return int(np.argmax(x @ layers[-1]["kernel"] + layers[-1]["bias"]))

    return act


def episode_return(env, act, max_steps, seed):
    obs, total = env.reset(seed=seed)[0], 0.0
    for _ in range(max_steps):
        obs, reward, terminated, _, _ = env.step(act(obs))
        total += reward
        if terminated:
            break
    return total


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_shipped_policies_earn_in_gymnasium_what_their_sidecar_says(environment):
    shipped, spec = load_policies(environment), envs.make(environment).spec
    num_pure = shipped.pure_covariates.shape[0]
    pure = [jax.tree.map(lambda leaf, i=i: leaf[i], shipped.pure) for i in range(num_pure)]
    for params, told in zip([*pure, shipped.test], shipped.sidecar["policies"], strict=True):
        env = physics_of(environment, told["covariates"])
        act = numpy_policy(environment, params)
        returns = [episode_return(env, act, spec.max_steps, seed) for seed in range(60)]
        # Four standard errors of the difference of both means; gymnasium's reward of MountainCar
        # is -1 on the last step too, hence the one.
        error = told["return_std"] * np.sqrt(1.0 / 60 + 1.0 / told["num_episodes"])
        assert abs(np.mean(returns) - told["return_mean"]) < 4.0 * error + 1.5, told


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_greedy_act_takes_the_best_action_and_keeps_its_identity(environment, key):
    act, shipped = greedy_act(environment), load_policies(environment)
    assert act is greedy_act(environment)
    spec = envs.make(environment).spec
    for obs in 0.05 * jax.random.normal(key, (5, spec.obs_size)):
        values = q_values(spec, DQN_CONFIGS[environment], shipped.test, obs)
        action = act(key, shipped.test, obs)
        assert action.dtype == jnp.int32
        assert int(action) == int(np.argmax(values))
        assert int(action) == numpy_policy(environment, shipped.test)(np.asarray(obs))


def saved(tmp_path, key, environment="cart_pole"):
    init = make_dqn(envs.make(environment).spec, DQN_CONFIGS[environment]).init
    pure = jax.vmap(init)(jax.random.split(key, 2)).params
    test = init(jax.random.fold_in(key, 7)).params
    rows = jnp.array([[6.0, 0.5], [10.0, 0.325]])
    save_policies(tmp_path, environment, pure, rows, test, {"method": "dqn"})
    return pure, rows, test


def test_what_is_read_is_what_was_written(tmp_path, key):
    pure, rows, test = saved(tmp_path, key)
    read = load_policies("cart_pole", tmp_path)
    jax.tree.map(np.testing.assert_array_equal, read.pure, pure)
    jax.tree.map(np.testing.assert_array_equal, read.test, test)
    np.testing.assert_array_equal(read.pure_covariates, rows)
    assert read.sidecar["method"] == "dqn"


def test_the_same_policies_have_the_same_checksum(tmp_path, key):
    for name in ("a", "b"):
        saved(tmp_path / name, key)
    sums = [load_policies("cart_pole", tmp_path / name).sidecar["sha256"] for name in ("a", "b")]
    assert sums[0] == sums[1]


def test_a_changed_file_is_refused(tmp_path, key):
    saved(tmp_path, key)
    path = tmp_path / "cart_pole.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"cart_pole\.npz has the checksum .* restore both or train"
    ):
        load_policies("cart_pole", tmp_path)


def test_policies_of_another_network_are_refused(tmp_path, key, monkeypatch):
    saved(tmp_path, key)
    changed = DQN_CONFIGS | {"cart_pole": policies.DQNConfig(hidden=(7,))}
    monkeypatch.setattr(policies, "DQN_CONFIGS", changed)
    with pytest.raises(ValueError, match=r"hidden=\[32, 32\], the code now has \[7\]"):
        load_policies("cart_pole", tmp_path)


@pytest.mark.parametrize("absent", ["cart_pole.npz", "cart_pole.json"])
def test_absent_policies_say_how_to_make_them(tmp_path, key, absent):
    saved(tmp_path, key)
    (tmp_path / absent).unlink()
    with pytest.raises(FileNotFoundError, match=r"train_policies --environment=cart_pole"):
        load_policies("cart_pole", tmp_path)


def test_unknown_environments_are_refused():
    with pytest.raises(ValueError, match="no DQN settings for 'half_cheetah'"):
        policies.dqn_config("half_cheetah")


def test_the_sidecar_is_plain_json():
    for environment in ENVIRONMENTS:
        json.loads((SHIPPED / f"{environment}.json").read_text(encoding="utf8"))
