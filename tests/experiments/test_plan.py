"""The launcher `plan`: users' functions by name, what it writes, and what it refuses."""

import csv
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.plan import plan, planner_of
from persim_jax.data.lags import with_lags
from persim_jax.data.storage import save_dataset
from persim_jax.models.reward import learn_reward
from persim_jax.planning.config import PlannerConfig
from tests.data.segmented import make_segmented
from tests.users import recent, untrained

REWARDS = """
import jax.numpy as jnp

LIMIT = 3.0

def upwards(obs, action, next_obs):
    return next_obs[1]

def high(obs):
    return obs[1] > -3.0

def rooted(obs, action, next_obs):
    return jnp.sqrt(next_obs[1])

def wide(obs, action, next_obs):
    return next_obs
"""
STATE = "rows.csv"
FIELDS = {"num_candidates": 20, "horizon": 2}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with simulators, inputs and rewards, the current one; modules leave no trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    untrained().save(tmp_path / "run" / "simulators")
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "hungry.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "rows.csv").write_text("x,y,action,meal\n100,-4,low,3\n99.5,-3.8,,\n")
    (tmp_path / "high.csv").write_text("x,y,action,meal\n100,-3.6,low,3\n99.5,-3.3,,\n")
    (tmp_path / "meals.csv").write_text("meal\n3\n4\n5\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in {"my_rewards", "broken", "hungry"}:
            del sys.modules[name]


def planned(**changes):
    arguments = {
        "workdir": "run", "agent": "bob", "reward": "my_rewards:upwards", "steps": 3,
        "out": "plan.csv", "state": STATE, "inputs": "meals.csv", "planner": FIELDS,
    }  # fmt: skip
    return plan(**arguments | changes)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_plan_is_written_with_its_path_intervals_and_rewards(world):
    episode, notes = planned()
    rows = read("plan.csv")
    assert len(rows) == 3
    levels = ("none", "low", "high")
    actions = [levels.index(row["action"]) for row in rows]
    np.testing.assert_array_equal(actions, episode.actions)
    start = recent(untrained(), [[100, -4], [99.5, -3.8]])
    path = untrained().rollout("bob", start, actions, [[3], [4], [5]])
    np.testing.assert_allclose([float(r["y"]) for r in rows], path.mean[:, 1], rtol=1e-5)
    np.testing.assert_allclose([float(r["reward"]) for r in rows], path.mean[:, 1], rtol=1e-5)
    worst = np.asarray(path.members)[:, :, 1].min(axis=0)
    np.testing.assert_allclose([float(r["reward_worst_member"]) for r in rows], worst, rtol=1e-5)
    assert [row["meal"] for row in rows] == ["3", "4", "5"]
    assert all(float(r["y_lower_95"]) < float(r["y"]) < float(r["y_upper_95"]) for r in rows)
    assert any("nobody has checked" in note for note in notes)


def test_an_end_shortens_the_table_and_risk_is_the_planners(world):
    episode, _ = planned(terminated="my_rewards:high", steps=3, state="high.csv")
    steps = int(episode.mask.sum())
    assert 1 <= steps < 3
    assert len(read("plan.csv")) == steps
    with pytest.raises(ValueError, match="risk 'best' is unknown"):
        planned(out="other.csv", planner=FIELDS | {"risk": "best"})
    assert planner_of(True, {"risk": "cvar", "risk_level": None}) == PlannerConfig(risk="cvar")
    few = planner_of(False, {"horizon": 7, "num_candidates": 30, "sampler": None})
    assert (few.sampler, few.horizon, few.num_candidates, few.num_elites) == ("icem", 7, 30, 6)


def repeated(dataset, times):
    """The same records several times over, with a gap in time between them."""

    def steps(leaf):
        padded = np.concatenate([leaf, np.zeros_like(leaf[:, :1])], axis=1)
        return np.concatenate([padded] * times, axis=1)[:, :-1]

    names = ("actions", "rewards", "terminated", "mask", "inputs")
    more = {name: steps(np.asarray(getattr(dataset, name))) for name in names}
    return dataset.replace(obs=np.concatenate([dataset.obs] * times, axis=1), **more)


def test_a_reward_is_learned_from_the_data_of_the_workdir(world):
    with pytest.raises(FileNotFoundError, match="no data in run to learn a reward from: give --re"):
        planned(reward="learned")
    data = repeated(make_segmented(), 6)
    save_dataset(world / "run" / "dataset" / "dataset", data, {})
    with pytest.raises(ValueError, match=r"all 48 rewards in the data are 0\.0: there is nothing"):
        planned(reward="learned")
    after = np.where(data.mask, data.obs[:, 1:, 1], 0).astype(np.float32)
    save_dataset(world / "run" / "dataset" / "dataset", data.replace(rewards=after), {})
    episode, notes = planned(reward="learned")
    assert notes[0].startswith("learned reward, error")
    learned = jax.jit(learn_reward(jax.random.key(0), with_lags(data.replace(rewards=after), 2)))
    obs = episode.obs
    expected = [learned(obs[t], jnp.asarray(episode.actions[t]), obs[t + 1]) for t in range(3)]
    np.testing.assert_allclose(episode.rewards, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("upwards", "'upwards' names no function: write module:function"),
        ("my_rewards:", "names no function"),
        ("their_rewards:upwards", r"no module 'their_rewards': their_rewards\.py should lie in"),
        ("my_rewards.deep:upwards", r"no module 'my_rewards.deep'|is not a package"),
        ("hungry:upwards", "module 'hungry' needs 'nowhere_to_be_found', which is missing"),
        ("broken:upwards", "module 'broken' cannot be imported: ZeroDivisionError: division by"),
        ("my_rewards:upward", r"no function 'upward' \(did you mean 'upwards'\?\)"),
        ("my_rewards:LIMIT", "has no function 'LIMIT'"),
        ("my_rewards:wide", r"the reward function returns float32 of shape \(8,\)"),
        ("my_rewards:rooted", "the reward function gives nan"),
        ("my_rewards:high", "the reward function cannot be traced"),
    ],
)
def test_rewards_that_cannot_be_used_are_told_and_nothing_is_written(world, reward, message):
    with pytest.raises(ValueError, match=message):
        planned(reward=reward)
    assert not (world / "plan.csv").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": None}, ValueError, "have the inputs meal: give --inputs=FILE, a table"),
        ({"planner": {"risk_level": 0.4}}, ValueError, "risk_level 0.4 .*: give --risk=cvar, too"),
        ({"steps": 4}, ValueError, "inputs have 3 rows: 4 steps need as many"),
        ({"agent": "bop"}, KeyError, "no agent has the id bop"),
        ({"terminated": "my_rewards:wide"}, ValueError, "the terminated function cannot be tra"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(world, change, error, message):
    with pytest.raises(error, match=message):
        planned(**change)
    (world / "plan.csv").write_text("dear")
    with pytest.raises(ValueError, match="exists already"):
        planned()


def test_errors_and_warnings_take_a_line_each(capsys):
    def work():
        # Accelerators would round products elsewise, and answer for other simulators.
        assert str(jax.config.jax_default_matmul_precision) == "highest"
        warnings.warn("mind the gap", stacklevel=1)
        raise KeyError("no agent\n has the id 7")

    with pytest.raises(SystemExit, match="1"), cli.one_line_each():
        work()
    assert capsys.readouterr().err.splitlines() == [
        "warning: mind the gap", "error: no agent has the id 7",
    ]  # fmt: skip
