"""A rollout as a file: the same numbers in a process that has nothing but jax."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from packaging.requirements import Requirement

from tests.test_simulators import ACTIONS, CONTINUOUS, DISCRETE, IDS, OBS, make
from tests.users import actions_of, inputs_of, untrained, window

# What reads the file: jax, flatbuffers, with which jax reads it, and what these depend on.
READERS = ("jax", "flatbuffers")
SCRIPT = """
import importlib.util, json, sys
sys.path.append(sys.argv[1])
for name in ("persim_jax", "envs", "flax", "optax", "chex", "gymnasium"):
    assert importlib.util.find_spec(name) is None, name
import numpy as np
from jax import export

rollout = export.deserialize(bytearray(open(sys.argv[2], "rb").read())).call
arguments = np.load(sys.argv[3])
mean, members = rollout(*(arguments[name] for name in sorted(arguments.files)))
np.savez(sys.argv[4], mean=mean, members=members)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def distributions(names):
    """These distributions and all that they need."""
    found, due = set(), list(names)
    while due:
        name = due.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, importlib.metadata.requires(name) or [])
            due += [need.name for need in needs if need.marker is None or need.marker.evaluate()]
    return found


def make_site(folder):
    """A folder of links to the modules of the readers and to nothing else."""
    folder.mkdir()
    for name in distributions(READERS):
        distribution = importlib.metadata.distribution(name)
        for top in {path.parts[0] for path in distribution.files or [] if path.parts[0] != ".."}:
            (folder / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    return folder


def run_elsewhere(tmp_path, file, arguments):
    """Runs the file where only jax is installed; returns its results and the modules imported."""
    np.savez(tmp_path / "arguments.npz", **{f"{i}": a for i, a in enumerate(arguments)})
    paths = [make_site(tmp_path / "site"), file, tmp_path / "arguments.npz", tmp_path / "out.npz"]
    # Isolated and without site-packages: what is not in the folder cannot be imported.
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, *map(str, paths)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "out.npz"), set(json.loads(done.stdout))


def test_a_file_of_all_agents_gives_the_same_numbers_where_only_jax_is(tmp_path):
    simulators, file = untrained(discrete=False), tmp_path / "agents.stablehlo"
    simulators.export_rollout(file)
    rows = [[[3, -2]] * 2, [[9, -4], [9, -3]], [[100, -3]] * 2, [[5, -2]] * 2]
    history = np.stack([window(simulators, row) for row in rows])
    actions = np.stack([actions_of(False, 6, seed) for seed in range(4)])
    inputs = np.stack([inputs_of(6, seed) for seed in range(4)])
    ids = np.int32([2, 0, 1, 99])
    found, modules = run_elsewhere(tmp_path, file, (ids, history, actions, inputs))
    for lane, name in enumerate(("cy", "ann", "bob")):
        expected = simulators.rollout(name, history[lane], actions[lane], inputs[lane])
        np.testing.assert_allclose(found["members"][lane], expected.members, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["mean"][lane], expected.mean, rtol=1e-5, atol=1e-5)
    # Nobody has the id 99.
    assert np.isnan(found["mean"][3]).all()
    assert "jax" in modules
    assert not modules & {"persim_jax", "flax", "optax", "envs"}


@pytest.mark.parametrize("config", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_batches_and_lengths_are_open_or_the_length_is_fixed(tmp_path, config):
    simulators, actions = make(config), ACTIONS[config]
    simulators.export_rollout(tmp_path / "open")
    simulators.export_rollout(tmp_path / "fixed", num_steps=3)
    calls = {
        name: export.deserialize(bytearray((tmp_path / name).read_bytes())).call
        for name in ("open", "fixed")
    }
    for count, steps in ((1, 3), (2, 3), (2, 5)):
        arguments = (
            np.resize(IDS, count), np.stack([OBS] * count), np.stack([actions[:steps]] * count)
        )  # fmt: skip
        mean, members = calls["open"](*arguments)
        assert members.shape == (count, 2, steps, 2)
        for lane, agent_id in enumerate(np.resize(IDS, count).tolist()):
            expected = simulators.rollout(agent_id, OBS, actions[:steps])
            np.testing.assert_allclose(mean[lane], expected.mean, rtol=1e-5, atol=1e-6)
        if steps == 3:
            np.testing.assert_allclose(calls["fixed"](*arguments)[1], members, rtol=1e-6)
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        calls["fixed"](*arguments)


def test_a_file_of_one_agent_holds_no_other(tmp_path):
    simulators, actions = make(), ACTIONS[DISCRETE]
    simulators.export_rollout(tmp_path / "one", agent_id=300)
    simulators.export_rollout(tmp_path / "all")
    call = export.deserialize(bytearray((tmp_path / "one").read_bytes())).call
    mean, _ = call(np.int32([300, 40]), np.stack([OBS] * 2), np.stack([actions] * 2))
    np.testing.assert_allclose(mean[0], simulators.rollout(300, OBS, actions).mean, rtol=1e-5)
    assert np.isnan(mean[1]).all()
    found = export.deserialize(bytearray((tmp_path / "all").read_bytes()))
    assert set(found.platforms) == {"cpu", "cuda", "tpu"}
    assert found.in_avals[0].dtype == jax.numpy.int32


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    simulators, file = make(), tmp_path / "file"
    with pytest.raises(ValueError, match="num_steps is 0"):
        simulators.export_rollout(file, num_steps=0)
    with pytest.raises(KeyError, match="no agent has the id 8"):
        simulators.export_rollout(file, agent_id=8)
    # As numbers of 32 bits these are 40, 7 and 300 again.
    large = simulators.replace(agent_ids=IDS.astype(np.int64) + 2**32)
    with pytest.raises(ValueError, match=r"from 4294967303 to 4294967596.*number them"):
        large.export_rollout(file)

    def serialize(self):
        raise ImportError("Please install 'flatbuffers'")

    monkeypatch.setattr(export.Exported, "serialize", serialize)
    with pytest.raises(ModuleNotFoundError, match=r"pip install flatbuffers, or persim_jax\[exp"):
        simulators.export_rollout(file)
    assert not file.exists()
