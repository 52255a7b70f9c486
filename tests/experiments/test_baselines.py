"""The offline baselines in a run: their rows, what names them, kills, learners that diverge."""

import copy
import hashlib
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import baselines, workdir
from experiments.baseline_settings import method_digest, offline_settings
from experiments.baselines import FOLDER, lost_agents
from experiments.progress import Display
from experiments.records import read_rows
from experiments.run import run
from experiments.stages import make_world
from experiments.stamps import config_digest
from persim_jax.learners.bcq_continuous import ContinuousBCQConfig
from persim_jax.learners.bcq_discrete import DiscreteBCQConfig
from persim_jax.methods.offline import OfflinePolicies
from tests.experiments.jobs import quiet_display, rows_of, tiny
from tests.experiments.worlds import Killed
from tests.test_configs import config_of

BASELINES = ("bcq_p", "bcq_a", "cql_p", "cql_a", "persim_bcq_5")


def changed(config, *path, value):
    new = copy.deepcopy(config)
    section = new
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return new


@pytest.mark.parametrize("name", ["mountain_car", "cart_pole", "half_cheetah"])
def test_rows_of_other_methods_are_named_as_before_there_were_baselines(name):
    config = config_of(name, "").to_dict()
    before = {k: v for k, v in config.items() if k not in ("baselines", "trial")}
    text = json.dumps(before, sort_keys=True, separators=(",", ":"))
    expected = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert config_digest(config) == method_digest(config, "persim") == expected


CONFIG = tiny()
OWN = ("baselines", "bcq", "a", "threshold")


@pytest.mark.parametrize(
    ("path", "value", "renamed"),
    [
        (OWN, 0.7, {"bcq_a"}),
        (("baselines", "bcq", "p", "num_steps"), 30, {"bcq_p"}),
        (("baselines", "cql", "shared", "learning_rate"), 0.1, {"cql_p", "cql_a"}),
        (("baselines", "train", "batch_size"), 5, set(BASELINES)),
        (("train", "num_epochs"), 77, {"persim", "persim_bcq_5"}),
        (("planner", "horizon"), 9, {"persim"}),
        (("agents", "num_agents"), 9, {"persim", *BASELINES}),
        (("trial",), 3, set()),
    ],
)
def test_a_setting_renames_the_rows_that_depend_on_it(path, value, renamed):
    new = changed(CONFIG, *path, value=value)
    methods = ("persim", *BASELINES)
    found = {m for m in methods if method_digest(CONFIG, m) != method_digest(new, m)}
    assert found == renamed


def test_the_number_of_trajectories_is_in_the_name_and_the_learner_in_the_digest():
    assert method_digest(CONFIG, "persim_bcq_5") == method_digest(CONFIG, "persim_bcq_20")
    assert method_digest(CONFIG, "persim_bcq_5") != method_digest(CONFIG, "persim_cql_5")


def test_settings_are_those_of_the_view_and_of_the_kind_of_action():
    config = changed(CONFIG, *OWN, value=0.7)
    own, pooled = (offline_settings(config, name) for name in ("bcq_a", "bcq_p"))
    assert isinstance(own.learner, DiscreteBCQConfig)
    assert (own.learner.threshold, pooled.learner.threshold) != (pooled.learner.threshold, 0.7)
    assert own.learner.threshold == 0.7
    assert own.train.num_steps == CONFIG["baselines"]["bcq"]["a"]["num_steps"]
    cheetah = config_of("half_cheetah").to_dict()
    assert isinstance(offline_settings(cheetah, "persim_bcq_5").learner, ContinuousBCQConfig)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(CONFIG, "baselines", "bcq", "a", value={"treshold": 1, "num_steps": 10}),
         r"config\.baselines\.bcq has no field treshold: it has .*threshold"),
        (changed(CONFIG, "baselines", "train", "chunk", value=7),
         r"config\.baselines\.train: num_steps is 20: make it a multiple of chunk, 7"),
        ({k: v for k, v in CONFIG.items() if k != "baselines"},
         "config lacks baselines, which bcq_a needs"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        offline_settings(config, "bcq_a")


def start(path, methods=("bcq_a",), config=CONFIG, checkpoint_seconds=0.0):
    console = Console(file=io.StringIO(), width=200)
    run(config, path, methods, console, checkpoint_seconds)
    return console.file.getvalue()


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_run_measures_its_baselines_and_nothing_twice(tmp_path, monkeypatch):
    stamp = workdir.environment_stamp()  # somebody may commit while the test runs
    monkeypatch.setattr(workdir, "environment_stamp", lambda: stamp)
    methods = ("bcq_p", "cql_a", "persim_bcq_2")
    start(tmp_path, methods)
    rows = read_rows(tmp_path / "rows.jsonl")
    for name in methods:
        mine = [r for r in rows if r["method"] == name and r["metric"] == "return_mean"]
        assert {r["agent_id"] for r in mine} == set(make_world(CONFIG).agents.test_ids)
        assert {r["config_digest"] for r in mine} == {method_digest(CONFIG, name)}
        assert all(r["num_episodes"] == CONFIG["evaluation"]["policy_episodes"] for r in mine)
        speed = next(r for r in rows if (r["method"], r["metric"]) == (name, "train_seconds"))
        assert speed["value"] > 0
    before = (tmp_path / "rows.jsonl").read_bytes()
    assert "nothing to do" in start(tmp_path, methods)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_run_that_is_killed_between_chunks_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    start(tmp_path / "whole")
    save, saves = baselines.checkpoints.save, []

    def save_and_die(folder, step, state):
        save(folder, step, state)
        saves.append(step)
        if len(saves) == 1:
            raise Killed

    monkeypatch.setattr(baselines.checkpoints, "save", save_and_die)
    with pytest.raises(Killed):
        start(tmp_path / "broken")
    assert [p.name for p in (tmp_path / "broken" / FOLDER / "bcq_a").glob("*.json")] == ["10.json"]
    start(tmp_path / "broken")
    # The second process took the second chunk only.
    assert saves == [10, 20]
    whole, broken = rows_of(tmp_path / "whole"), rows_of(tmp_path / "broken")
    drop = lambda rows: {  # noqa: E731
        k: v for k, v in rows.items() if v["metric"] != "gradient_steps_per_second"
    }
    assert drop(whole) == drop(broken)


def test_an_older_workdir_without_baselines_goes_on(tmp_path):
    old = {k: v for k, v in CONFIG.items() if k != "baselines"}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert workdir.Workdir(tmp_path, CONFIG).config == json.loads(json.dumps(CONFIG))
    assert "baselines" in json.loads((tmp_path / "config.json").read_text("utf8"))
    with pytest.raises(ValueError, match=r"made with another config.*baselines\.bcq\.a\.threshold"):
        workdir.Workdir(tmp_path, changed(CONFIG, *OWN, value=0.9))


def test_a_diverged_learner_is_named_with_trial_and_step_or_its_simulator(tmp_path):
    config = changed(CONFIG, "trial", value=3)
    where, world = workdir.Workdir(tmp_path, config), make_world(config)
    rows = world.test_rows()
    fitted = OfflinePolicies(
        states=None, normalizers=None, agents=jnp.asarray(rows, jnp.int32),
        diverged_at=jnp.asarray([-1, 17, -1, -1, 4], jnp.int32), learner=None,
        is_spoiled=jnp.arange(5) == 4,
    )  # fmt: skip
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as display:
        lost = lost_agents("cql_a", where, world, fitted, display)
    second, last = world.agents.test_ids[1], world.agents.test_ids[4]
    assert lost == [second, last]
    assert f"cql_a of agent {second} " in out.getvalue()
    assert "diverged in trial 3 at gradient step 17" in out.getvalue()
    # A learner that could not but diverge is not told to have done so.
    assert f"cql_a of agent {last} " in out.getvalue()
    assert "its simulator left the finite numbers in a synthetic" in out.getvalue()
    assert "gradient step 4" not in out.getvalue()
    pooled = fitted.replace(agents=jnp.asarray([-1]), diverged_at=jnp.asarray([-1]))
    assert lost_agents("cql_p", where, world, pooled, quiet_display()) == []


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_run_goes_on_where_a_learner_diverges(tmp_path):
    # Values below 1e-6 there are none, so that every learner diverges at once.
    config = changed(CONFIG, "baselines", "train", "max_value", value=1e-6)
    text = start(tmp_path, ("cql_a", "bcq_p"), config)
    assert text.count("diverged in trial 0 at gradient step 1:") == 10
    rows = read_rows(tmp_path / "rows.jsonl")
    assert not [row for row in rows if row["metric"] == "return_mean"]
    assert (tmp_path / "report.html").exists()
    assert np.isfinite([row["value"] for row in rows]).all()
