"""A policy training that is killed goes on with the same command, and only with the same one."""

import dataclasses
import functools
import io
import json
import types

import jax
import numpy as np
import pytest
import rich.console

from envs import covariates
from experiments import policy_checkpoints, policy_returns, train_policies
from experiments.policies import load_policies
from experiments.policy_checkpoints import TRAINING, PolicyCheckpoints
from experiments.policy_recipes import RECIPES, Recipe, make_lanes, settings_of
from experiments.records import read_rows
from experiments.train_policies import reporter, run
from persim_jax import checkpoints
from persim_jax.learners.base import Learner

SETTINGS = {"environment": "toy", "online": {"num_envs": 8, "hidden": (2, 3)}, "seeds": [0]}


def state(steps, reached=False):
    """What the folder looks at of an online state, as a pytree."""
    kept = {"reached": np.array([reached]), "value": np.full(3, float(steps))}
    return Toy(np.asarray(steps, np.int32), types.SimpleNamespace(**kept))


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass
class Toy:
    steps: np.ndarray
    kept: types.SimpleNamespace

    def tree_flatten_with_keys(self):
        named = {"steps": self.steps, **vars(self.kept)}
        return [(jax.tree_util.GetAttrKey(name), leaf) for name, leaf in named.items()], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        steps, reached, value = leaves
        return cls(steps, types.SimpleNamespace(reached=reached, value=value))


def opened(tmp_path, settings=SETTINGS, budget=100, every_seconds=0.0):
    return PolicyCheckpoints(tmp_path / "toy_checkpoints", settings, budget, every_seconds)


def test_an_empty_folder_starts_from_the_start(tmp_path):
    folder = opened(tmp_path)
    begin = state(0)
    assert folder.restore(begin) is begin
    assert folder.step is None
    assert folder.seconds_before == 0.0


def test_the_newest_checkpoint_comes_back_with_the_time_that_it_took(tmp_path):
    first = opened(tmp_path)
    for steps in (10, 20, 30):
        first.save(state(steps))
    path = tmp_path / "toy_checkpoints" / TRAINING
    content = json.loads(path.read_text("utf8"))
    assert sorted(content["seconds"]) == ["10", "20", "30"]
    content["seconds"] = {"10": 5.0, "20": 7.0, "30": 9.5, "40": 99.0}
    path.write_text(json.dumps(content), "utf8")
    second = opened(tmp_path)
    assert second.step == 30
    assert second.seconds_before == 9.5
    assert 9.5 <= second.seconds < 60.0
    restored = second.restore(state(0))
    np.testing.assert_array_equal(restored.kept.value, 30.0)


def test_checkpoints_come_now_and_then_and_always_at_the_end(tmp_path):
    folder = opened(tmp_path, budget=40, every_seconds=3600.0)
    for steps in (10, 20, 30):
        folder.save(state(steps))
    assert folder.step is None
    folder.save(state(40))
    assert folder.step == 40
    other = opened(tmp_path / "reached", budget=40, every_seconds=3600.0)
    other.save(state(10, reached=True))
    assert other.step == 10


def test_another_training_is_refused_by_what_differs(tmp_path):
    opened(tmp_path).save(state(10))
    changed = SETTINGS | {"online": {"num_envs": 16, "hidden": (2, 3)}, "backend": "mjx"}
    with pytest.raises(
        ValueError,
        match=r"other settings: online\.num_envs was 8 and is 16; backend was None and is mjx\. "
        "Restore them .* or delete the folder",
    ):
        opened(tmp_path, changed)
    opened(tmp_path).restore(state(0))


def test_a_larger_budget_goes_on(tmp_path):
    opened(tmp_path, budget=10).save(state(10))
    assert opened(tmp_path, budget=20).step == 10


def test_settings_may_change_where_nothing_was_saved(tmp_path):
    opened(tmp_path)
    opened(tmp_path, SETTINGS | {"seeds": [1]}).save(state(10))
    with pytest.raises(ValueError, match=r"seeds was \[1\] and is \[0\]"):
        opened(tmp_path)


def test_checkpoints_of_nobody_are_refused(tmp_path):
    opened(tmp_path).save(state(10))
    (tmp_path / "toy_checkpoints" / TRAINING).unlink()
    with pytest.raises(ValueError, match=r"no training\.json.* delete the folder"):
        opened(tmp_path)


@pytest.mark.parametrize("environment", sorted(RECIPES))
def test_settings_are_json_and_name_everything_but_the_budget(environment, tmp_path):
    recipe = RECIPES[environment]
    lanes = make_lanes(environment, recipe.targets, 0)
    first = settings_of(lanes, recipe.online)
    opened(tmp_path, first).save(state(10))
    opened(tmp_path, settings_of(lanes, dataclasses.replace(recipe.online, budget=1)))
    other = make_lanes(environment, recipe.targets, 1)
    with pytest.raises(ValueError, match=r"seeds was \[0, .* and is \[1, "):
        opened(tmp_path, settings_of(other, recipe.online))
    changed = dataclasses.replace(recipe.online, batch_size=2)
    with pytest.raises(ValueError, match=r"online\.batch_size was \d+ and is 2"):
        opened(tmp_path, settings_of(lanes, changed))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


ONLINE = dataclasses.replace(
    RECIPES["cart_pole"].online, evaluate_every=400, budget=2000, capacity=1000, episodes=3
)
# The pure policies reach their target at once, the test policy never does.
RECIPE = Recipe((5.0, 1000.0), ONLINE, episodes=1)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs the launcher on a few steps of CartPole in a folder of that name."""
    monkeypatch.setattr(train_policies, "EPISODES", 2)
    few = functools.partial(covariates.make_agents, num_agents=10)
    monkeypatch.setattr(policy_returns.covariates, "make_agents", few)

    def start(name, recipe=RECIPE):
        lanes = make_lanes("cart_pole", recipe.targets, seed=0)
        out = tmp_path / name
        return json.loads(run(lanes, recipe, out, out / "rows.jsonl", 0.0).read_text("utf8"))

    return start


def values(path):
    return [(row["metric"], row["value"], row.get("steps")) for row in read_rows(path)]


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_killed_launcher_ends_as_an_unbroken_one(train, tmp_path, monkeypatch, capsys):
    unbroken = train("unbroken")
    assert "checkpoints go to" in capsys.readouterr().out
    save = checkpoints.save

    def killed_before(steps):
        def guarded(folder, step, state):
            if step == steps:
                raise Killed
            save(folder, step, state)

        return guarded

    monkeypatch.setattr(policy_checkpoints.checkpoints, "save", killed_before(1200))
    with pytest.raises(Killed):
        train("killed")
    monkeypatch.setattr(policy_checkpoints.checkpoints, "save", save)
    capsys.readouterr()
    resumed = train("killed")
    assert "training goes on from step 800 of" in capsys.readouterr().out
    timed = ("train_seconds",)
    assert {k: v for k, v in resumed.items() if k not in timed} == {
        k: v for k, v in unbroken.items() if k not in timed
    }
    assert values(tmp_path / "killed" / "rows.jsonl") == values(
        tmp_path / "unbroken" / "rows.jsonl"
    )
    # The test policy missed its target: with a larger budget the same folder goes on.
    assert not resumed["policies"][-1]["reached"]
    longer = RECIPE._replace(online=dataclasses.replace(ONLINE, budget=2400))
    train("killed", longer)
    assert "training goes on from step 2000 of" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"targets was \[5\.0, .* and is \[6\.0, "):
        train("killed", RECIPE._replace(targets=(6.0, 1000.0)))
    assert load_policies("cart_pole", tmp_path / "killed").sidecar["sha256"]


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_diverged_training_names_its_last_good_checkpoint(train, tmp_path, monkeypatch):
    algorithm = train_policies.algorithm("cart_pole")

    def make(spec, config):
        learner = algorithm.make(spec, config)

        def update(key, state, batch):
            # Adam counts the gradient steps: after a hundred of them the network is lost.
            scale = 1.0 + 1e38 * (state.opt_state[0].count > 100)
            params = jax.tree.map(lambda leaf: leaf * scale * scale, state.params)
            return learner.update(key, dataclasses.replace(state, params=params), batch)

        return Learner(learner.init, update, learner.act)

    broken = algorithm._replace(make=make)
    monkeypatch.setattr(train_policies, "algorithm", lambda environment: broken)
    with pytest.raises(
        FloatingPointError, match=r"steps 1600 and 2000: .* checkpoint: step 1600 in .*cart_pole"
    ):
        train("diverged")
    folder = tmp_path / "diverged" / "cart_pole_checkpoints"
    assert checkpoints.latest_step(folder) == 1600


def test_evaluations_are_lines_where_there_is_no_terminal():
    written, lanes = io.StringIO(), make_lanes("cart_pole", (120.0, 150.0), 0)
    console, clock = rich.console.Console(file=written, width=200), iter([0.0, 1.0, 100.0])
    report = reporter(console, console.status(""), lanes, lambda: next(clock))
    for steps, best in ((64, 80.0), (128, 90.0), (192, 130.0)):
        kept = types.SimpleNamespace(
            reached=np.full(6, best > 120.0) & (np.arange(6) == 2),
            mean_return=np.full(6, best),
            steps=np.full(6, steps),
        )
        report(types.SimpleNamespace(steps=steps, mean_returns=np.full(6, best), kept=kept))
    lines = written.getvalue().splitlines()
    # The second comes a second after the first: too soon for a line of its own.
    assert lines[0] == "64 steps, 0 s, returns 80 80 80 80 80 80"
    assert lines[1] == "192 steps, 100 s, returns 130 130 130 130 130 130"
    assert lines[2] == (
        "pure {'force': 10.0, 'length': 0.5}: 130.0 (target 120) after 192 steps, 100 s"
    )
    assert len(lines) == 3
