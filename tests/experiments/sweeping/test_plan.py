"""From sweeps to jobs: configs, digests, folders, and what is refused."""

import dataclasses

import jax
import pytest

from configs.sweeps import Job
from experiments.stamps import ROOT, config_digest
from experiments.sweeping.launchers import RUN, UNSEEN, find_launcher
from experiments.sweeping.plan import (
    build_config,
    jobs_of,
    load_sweep,
    make_plan,
    make_request,
    parse_override,
)
from persim_jax.methods import METHODS
from tests.experiments.sweep_jobs import counting, counting_job, twins

JOB = Job("configs/mountain_car.py", (("behavior", "pure"), ("trial", 2)))


def one(job: Job = JOB, variant: str = "smoke", overrides=()):
    (planned,) = make_plan([job], variant, overrides)
    return planned


def test_a_config_is_the_files_with_the_overrides():
    job = dataclasses.replace(JOB, overrides=(*JOB.overrides, ("model.state_features", [4, 4])))
    config = build_config(job, "smoke")
    assert (config["behavior"], config["trial"], config["variant"]) == ("pure", 2, "smoke")
    assert config["model"]["state_features"] == [4, 4]
    plain = build_config(JOB, "smoke")
    assert config | {"model": plain["model"]} == plain


def test_the_command_line_has_the_last_word():
    planned = one(overrides=[("trial", 4), ("model.rank", 2)])
    assert (planned.trial, planned.config["model"]["rank"]) == (4, 2)
    assert planned.name == (
        "mountain_car, pure, trial 4, model.rank=2: prediction and returns of persim"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"overrides": (("behavior", "random"), ("trial", 2))},
        {"overrides": (("behavior", "pure"), ("trial", 3))},
        {"overrides": (*JOB.overrides, ("model.rank", 1))},
        {"overrides": (*JOB.overrides, ("baselines.normalize", False))},
        {"methods": ("persim", "true_env")},
        {"measures": ("returns",)},
        {"launcher": "experiments.sweeping.launchers:UNSEEN", "measures": ("unseen",)},
    ],
)
def test_a_digest_is_of_all_that_a_job_depends_on(changes):
    other = one(dataclasses.replace(JOB, **changes))
    assert other.key != one().key
    # The folder belongs to the config: with another one a workdir would be refused.
    assert (other.folder == one().folder) == ("overrides" not in changes)


def test_a_digest_is_of_nothing_else():
    assert one().key == one(dataclasses.replace(JOB, overrides=JOB.overrides[::-1])).key
    assert one().key == one(dataclasses.replace(JOB, methods=("persim",) * 1)).key
    both = ("persim", "true_env")
    assert (
        one(dataclasses.replace(JOB, methods=both)).key
        == one(dataclasses.replace(JOB, methods=both[::-1])).key
    )
    # The default, said.
    assert one(dataclasses.replace(JOB, overrides=(*JOB.overrides, ("seed", 0)))).key == one().key
    assert one(variant="default").key != one().key


def test_some_methods_of_a_job_keep_its_key_and_folder():
    planned = one(dataclasses.replace(JOB, methods=("persim", "true_env")))
    part = planned.only(["true_env"])
    assert part.job.methods == ("true_env",)
    assert (part.key, part.folder) == (planned.key, planned.folder)


def test_a_folder_says_what_it_holds():
    planned = one()
    name, _, digest = planned.folder.rpartition("-")
    assert name == "mountain_car-pure-t2"
    assert len(digest) == 10
    assert digest != config_digest(planned.config)[:10]


@pytest.mark.parametrize("measures", [("return",), ("prediction", "return"), ()])
def test_an_unknown_measure_is_refused_and_the_known_ones_are_named(measures):
    with pytest.raises(ValueError, match=r"measures \(.*has prediction, returns") as caught:
        one(dataclasses.replace(JOB, measures=measures))
    assert str(measures) in str(caught.value)
    with pytest.raises(ValueError, match="UNSEEN has unseen"):
        one(dataclasses.replace(JOB, launcher="experiments.sweeping.launchers:UNSEEN"))


def test_two_jobs_of_one_digest_are_named():
    with pytest.raises(ValueError, match="same digest") as caught:
        make_plan(twins(None), "smoke")
    for part in ("jobs 1 (", "and 2 (", "model.rank=3", "trial 0: steps"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.rank=2", ("model.rank", 2)),
        ("train.learning_rate=3e-4", ("train.learning_rate", 3e-4)),
        ("model.state_features=(8, 8)", ("model.state_features", (8, 8))),
        ("behavior=pure", ("behavior", "pure")),
        ("planner.sampler=a=b", ("planner.sampler", "a=b")),
    ],
)
def test_overrides_are_read_as_python_reads_them(text, expected):
    assert parse_override(text) == expected


def test_an_override_needs_a_field_and_a_value():
    with pytest.raises(ValueError, match="sets nothing"):
        parse_override("model.rank")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.ranks", 2, r"no field model.ranks; config.model has .*rank, "),
        ("models.rank", 2, r"no field models.rank; config has agents, .*model, "),
        ("seed.deep", 2, r"no field seed.deep; config.seed has no fields"),
        ("model.rank", "two", "override model.rank=two: "),
        # Rows would bear the name of settings that they do not have.
        ("variant", "paper", "override variant=paper: .* use --environments and --variant"),
        ("environment", "cart_pole", "override environment=cart_pole: .* use --environments"),
    ],
)
def test_an_unknown_override_names_those_that_there_are(field, value, message):
    with pytest.raises(ValueError, match=message):
        one(overrides=[(field, value)])


def test_a_sweep_is_found_by_file_and_name():
    found = load_sweep("configs/sweeps.py:table_1")
    assert len(list(found(make_request("smoke", ("mountain_car", "cart_pole"), (0,))))) == 8
    assert load_sweep(f"{ROOT}/tests/experiments/sweep_jobs.py:counting") is counting


def test_a_sweep_may_lie_in_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs.sweeps import Job\n"
        "def two(request):\n"
        "    for rank in (1, 2):\n"
        "        yield Job('configs/cart_pole.py', (('model.rank', rank),))\n"
    )
    plan = make_plan(load_sweep(f"{path}:two")(make_request("smoke", (), (0,))), "smoke")
    assert [planned.config["model"]["rank"] for planned in plan] == [1, 2]
    with pytest.raises(ValueError, match=r"no sweep 'three': it has two$"):
        load_sweep(f"{path}:three")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/cartpole.py", "no file .*configs/cartpole.py: use configs/cart_pole.py, for exa"),
        ("configs/baselines.py", r"configs/baselines.py has no get_config\(variant\)"),
    ],
)
def test_what_is_no_config_is_told(config, message):
    with pytest.raises(ValueError, match=message):
        one(Job(config))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("configs/sweeps.py:table_9", r"no sweep 'table_9' \(did you mean 'table_.'\?\): it has "),
        ("configs/sweeps.py:Job", "has no sweep 'Job'"),
        ("configs/sweeps.py", "names no sweep: write configs/sweeps.py:table_1"),
        ("configs/none.py:table_1", "no file configs/none.py"),
    ],
)
def test_an_unknown_sweep_names_those_that_there_are(reference, message):
    with pytest.raises(ValueError, match=message):
        load_sweep(reference)


def test_a_request_knows_what_has_landed():
    request = make_request("smoke", ("cart_pole",), (0,))
    assert request.methods == tuple(METHODS)
    assert "true_env" not in request.predictors
    assert {"persim"} <= set(request.predictors) <= set(METHODS)
    assert set(request.simulating) == {"persim_bcq_5", "persim_cql_5"}


def test_launchers_are_found_by_name():
    assert find_launcher("experiments.sweeping.launchers:RUN") is RUN
    assert find_launcher("experiments.sweeping.launchers:UNSEEN") is UNSEEN
    assert find_launcher(counting_job().launcher).numbers({}, "any", ())
    for wrong in ("experiments.none:RUN", "experiments.run:run", "experiments.run:NONE", "RUN", ""):
        with pytest.raises(ValueError, match="is no launcher"):
            find_launcher(wrong)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import nothing_here", "cannot be imported: ModuleNotFoundError: No module named 'noth"),
        ("def mine(:", "cannot be imported: SyntaxError: "),
        ("def mine(request):\n    yield {}['rank']", ":mine raises KeyError: 'rank'"),
        ("def mine(request):\n    return None", ":mine raises TypeError: 'NoneType' object is not"),
        ("def mine(request):\n    yield 3", ":mine yields 3: a sweep yields configs.sweeps.Job"),
    ],
)
def test_what_is_wrong_with_a_sweep_of_ones_own_is_told_each_time(tmp_path, body, message):
    path = tmp_path / "mine.py"
    path.write_text(body, "utf8")
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            jobs_of(f"{path}:mine", make_request("smoke", ("cart_pole",), (0,)))


@pytest.mark.parametrize("methods", [(), "persim"])
def test_a_job_has_methods(methods):
    with pytest.raises(ValueError, match=r"has the methods .*: give a tuple of their names"):
        one(Job("configs/cart_pole.py", methods=methods))


def test_a_text_is_no_sweep():
    with pytest.raises(ValueError, match=r"README.md is no Python file"):
        load_sweep(f"{ROOT}/README.md:table_1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("behavior", "noisy", "config.behavior is 'noisy': use one of"),
        ("train.num_epochs", -5, "num_epochs is -5"),
        ("planner.horizon", 0, "horizon 0 must be positive"),
        ("seed", -1, "config.seed is -1"),
    ],
)
def test_a_job_that_cannot_run_is_told_before_any_runs(field, value, message):
    with pytest.raises(ValueError, match=rf"mountain_car.py with .*{field}={value} cannot run: "):
        one(overrides=[(field, value)])
    with pytest.raises(ValueError, match=message):
        one(overrides=[(field, value)])


def test_planning_takes_no_device(monkeypatch):
    """A GPU that the planning process holds is none that its workers can have."""

    def refuse(*_, **__):
        raise AssertionError("a backend was asked for")

    for name in ("default_backend", "device_count", "local_device_count", "devices"):
        monkeypatch.setattr(jax, name, refuse)
    # Where arrays are put, too, wherever this version of JAX keeps that.
    monkeypatch.setattr("jax._src.xla_bridge.get_backend", refuse, raising=False)
    request = make_request("default", ("mountain_car", "cart_pole", "half_cheetah"), range(1))
    assert make_plan(jobs_of("configs/sweeps.py:paper", request), "default")
