"""MOReL in a run: its rows, what names them, kills, lanes that diverge or know nothing."""

import copy
import io

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs.morel import GRID, get_morel
from experiments import baselines, families, workdir
from experiments.baseline_settings import method_digest
from experiments.baselines import FOLDER
from experiments.morel import progress_note, share_rows, told_agents
from experiments.progress import Display
from experiments.records import read_rows
from experiments.run import run
from experiments.stages import make_world
from experiments.tune_morel import changed as at_point
from persim_jax.methods.morel import MorelConfig, MorelPolicies
from persim_jax.methods.morel_records import MorelState
from persim_jax.training import TrainConfig
from tests.experiments.jobs import rows_of, tiny
from tests.experiments.worlds import Killed
from tests.test_configs import config_of

# CartPole, whose episodes are short.
CONFIG = tiny("cart_pole")
SECTION = ("baselines", "morel")


def changed(config, *path, value):
    new = copy.deepcopy(config)
    section = new
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return new


@pytest.mark.parametrize(
    ("path", "value", "renamed"),
    [
        ((*SECTION, "p", "pessimism_coef"), 7.0, {"morel_p"}),
        ((*SECTION, "a", "num_epochs"), 7, {"morel_a"}),
        ((*SECTION, "learner", "discount"), 0.5, {"morel_p", "morel_a"}),
        ((*SECTION, "hidden"), (9,), {"morel_p", "morel_a"}),
        (("train", "num_epochs"), 77, {"persim"}),
        (("planner", "horizon"), 9, {"persim"}),
        (("baselines", "train", "batch_size"), 5, {"bcq_p"}),
        (("agents", "num_agents"), 9, {"persim", "bcq_p", "morel_p", "morel_a"}),
    ],
)
def test_a_setting_renames_the_rows_that_depend_on_it(path, value, renamed):
    new = changed(CONFIG, *path, value=value)
    methods = ("persim", "bcq_p", "morel_p", "morel_a")
    assert {m for m in methods if method_digest(CONFIG, m) != method_digest(new, m)} == renamed


@pytest.mark.parametrize("name", ["mountain_car", "cart_pole", "half_cheetah"])
@pytest.mark.parametrize("variant", ["smoke", "default", "paper"])
def test_every_variant_has_settings_of_both_views(name, variant):
    config = config_of(name, variant).to_dict()
    pooled, own = (
        families.method_settings(config, method, (3, 1)) for method in ("morel_p", "morel_a")
    )
    assert own.agents == (3, 1)
    for found, view in ((pooled, "p"), (own, "a")):
        section = config["baselines"]["morel"][view]
        assert found.config.pessimism_coef == section["pessimism_coef"]
        assert found.config.num_iterations == section["num_iterations"]
        assert found.config.train.num_epochs == section["num_epochs"]
    if variant == "default":  # chosen from what was searched
        for field, values in GRID.items():
            assert {getattr(found.config, field) for found in (pooled, own)} <= set(values)
    if variant == "paper":  # the authors' four members, 50 paths each, and 500 updates
        expected = (4, 200, 500, 3.0, (512, 512))
        c = pooled.config
        assert expected == (
            c.ensemble_size, c.num_paths, c.num_iterations, c.pessimism_coef, c.hidden
        )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((*SECTION, "pesimism"), 1, r"config\.baselines\.morel has no field pesimism"),
        ((*SECTION, "num_paths"), 3, r"config\.baselines\.morel: num_paths is 3: make it a multip"),
        ((*SECTION, "learner", "max_kl"), 0, r"morel\.learner: max_kl is 0: it must be positive"),
        ((*SECTION, "policy", "init_log_std"), 5, r"morel\.policy: init_log_std is 5: it must lie"),
        ((*SECTION, "train", "schedule"), "x", r"morel\.train: schedule 'x' is unknown"),
    ],
)
def test_settings_that_are_wrong_are_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        families.check(changed(CONFIG, *path, value=value), ("morel_p",))


def start(path, methods=("morel_a",), config=CONFIG):
    console = Console(file=io.StringIO(), width=200)
    run(config, path, methods, console, 0.0)
    return console.file.getvalue()


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_killed_run_ends_as_an_unbroken_one_and_measures_nothing_twice(tmp_path, monkeypatch):
    stamp = workdir.environment_stamp()  # somebody may commit while the test runs
    monkeypatch.setattr(workdir, "environment_stamp", lambda: stamp)
    start(tmp_path / "whole")
    rows = read_rows(tmp_path / "whole" / "rows.jsonl")
    mine = [r for r in rows if r["method"] == "morel_a"]
    assert {r["config_digest"] for r in mine} == {method_digest(CONFIG, "morel_a")}
    shares = ("unknown_data", "unknown_visited", "halted_episodes")
    for metric in ("return_mean", "return_std", *shares):
        found = [r for r in mine if r["metric"] == metric]
        assert {r["agent_id"] for r in found} == set(make_world(CONFIG).agents.test_ids)
        if metric in shares:
            assert all(0 <= r["value"] <= 1 for r in found)
        else:
            assert all(r["num_episodes"] == 2 for r in found)
    assert not [r for r in mine if r["metric"].startswith("rmse")]
    before = (tmp_path / "whole" / "rows.jsonl").read_bytes()
    assert "nothing to do" in start(tmp_path / "whole")
    assert (tmp_path / "whole" / "rows.jsonl").read_bytes() == before

    save, saves = baselines.checkpoints.save, []

    def save_and_die(folder, step, state):
        save(folder, step, state)
        saves.append(step)
        if len(saves) < 3:
            raise Killed

    monkeypatch.setattr(baselines.checkpoints, "save", save_and_die)
    for _ in range(2):  # after the epoch, then after the first update
        with pytest.raises(Killed):
            start(tmp_path / "broken")
    assert (tmp_path / "broken" / FOLDER / "morel_a" / "2.json").exists()
    start(tmp_path / "broken")
    assert saves == [1, 2, 3]
    assert rows_of(tmp_path / "broken") == rows_of(tmp_path / "whole")


def fitted_of(world, **changes):
    """What five lanes might have learned."""
    lanes = len(world.test_rows())
    fields = {
        "diverged_at": np.full(lanes, -1),
        "diverged_member": np.full(lanes, -1),
        "unknown": np.zeros(lanes),
    } | changes
    return MorelPolicies(
        params=None, normalizers=None, agents=jnp.asarray(world.test_rows(), jnp.int32),
        thresholds=jnp.linspace(0.0, 0.4, lanes), policy=None,
        metrics={name: jnp.full(lanes, 0.25) for name in ("return", "unknown", "halted")},
        **{name: jnp.asarray(value) for name, value in fields.items()},
    )  # fmt: skip


def test_who_diverged_and_who_knows_nothing_is_told_with_trial_and_iteration(tmp_path):
    config = changed(CONFIG, "trial", value=3)
    where, world = workdir.Workdir(tmp_path, config), make_world(config)
    epochs = config["baselines"]["morel"]["a"]["num_epochs"]
    fitted = fitted_of(
        world, diverged_at=[-1, epochs, -1, -1, epochs + 4], diverged_member=[-1, 2, -1, -1, -1],
        unknown=[0.97, 0.0, 0.5, 0.0, 0.0],
    )  # fmt: skip
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as display:
        lost = told_agents("morel_a", where, world, fitted, display)
    first, second, _, _, last = world.agents.test_ids
    assert lost == [second, last]
    text = out.getvalue()
    assert f"morel_a of agent {first} " in text
    assert "the threshold marks 97.0 % of the data unknown" in text
    assert "member 2 of its ensemble left the finite numbers in trial 3 at epoch 1" in text
    assert "its policy or values left the finite numbers in trial 3 at iteration 4" in text
    assert text.count("morel_a of agent") == 3


def test_shares_are_of_the_lane_of_each_agent(tmp_path):
    where, world = workdir.Workdir(tmp_path, CONFIG), make_world(CONFIG)
    rows = share_rows("morel_a", where, world, fitted_of(world, unknown=[0.1, 0.2, 0.3, 0.4, 0.5]))
    data = {r["agent_id"]: r for r in rows if r["metric"] == "unknown_data"}
    for index, agent_id in enumerate(world.agents.test_ids):
        np.testing.assert_allclose(data[agent_id]["value"], 0.1 * (index + 1), rtol=1e-5)
        np.testing.assert_allclose(data[agent_id]["threshold"], 0.1 * index, atol=1e-6)
    assert {r["value"] for r in rows if r["metric"] != "unknown_data"} == {0.25}
    # Who diverged has learned nothing that its numbers could be of.
    lost = fitted_of(world, diverged_at=[-1, 2, -1, -1, -1])
    left = {r["agent_id"] for r in share_rows("morel_a", where, world, lost)}
    assert left == {*world.agents.test_ids} - {world.agents.test_ids[1]}
    pooled = fitted_of(world, unknown=[0.1] * 5).replace(agents=jnp.full(5, -1))
    rows = share_rows("morel_p", where, world, pooled)
    assert [(r["agent_id"], r["metric"]) for r in rows] == [
        (None, "unknown_data"), (None, "unknown_visited"), (None, "halted_episodes"),
    ]  # fmt: skip


def test_progress_is_that_of_the_lanes_that_go_on():
    config = MorelConfig(train=TrainConfig(num_epochs=3, batch_size=2))
    metrics = {"return": jnp.asarray([10.0, jnp.nan]), "halted": jnp.asarray([0.5, jnp.nan])}
    state = MorelState(
        step=jnp.asarray(2), models=None, learner=None, metrics=metrics,
        diverged_at=jnp.asarray([-1, 1]), diverged_member=None,
    )  # fmt: skip
    assert progress_note(config, state, jnp.asarray([0.5, 9.0])) == "epoch 2, loss 0.5"
    later = progress_note(config, state._replace(step=jnp.asarray(13)), jnp.zeros(2))
    assert later == "update 10, imagined return 10, 50 % of episodes into the unknown"
    gone = state._replace(diverged_at=jnp.asarray([1, 1]))
    assert progress_note(config, gone, jnp.zeros(2)) == "all diverged"


def test_a_point_of_the_grid_changes_one_view_and_the_config_stays():
    before = copy.deepcopy(CONFIG)
    new = at_point(CONFIG, "morel_a", 3.0, 50)
    assert before == CONFIG
    section = new["baselines"]["morel"]
    assert (section["a"]["pessimism_coef"], section["a"]["num_iterations"]) == (3.0, 50)
    assert section["p"] == CONFIG["baselines"]["morel"]["p"]
    assert get_morel("cart_pole", "smoke")["p"]["num_iterations"] == 2
