"""What training leaves behind while it runs, and after a kill; what a person sees of it."""

import io
import itertools
import json
import re
import struct
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from experiments import workdir as workdir_module
from experiments.progress import Display, monitored_training
from experiments.workdir import Workdir
from persim_jax import checkpoints
from persim_jax.checkpoints import CorruptCheckpointError
from persim_jax.models.base import ModelParams
from persim_jax.training import DivergedError, TrainConfig, TrainState
from tests.experiments.jobs import curve_of, quiet_display, tiny

CONFIG = TrainConfig(num_epochs=4, batch_size=8, polish_rounds=2)


def state_at(epoch: int) -> TrainState:
    """A state whose numbers tell its epoch."""
    params = ModelParams({"w": jnp.full((2, 3), 10.0 + epoch)}, {"mean": jnp.ones(3)})
    opt_state = {"count": jnp.full(2, epoch, jnp.int32)}
    return TrainState(params, opt_state, jax.random.key(7), jnp.asarray(epoch, jnp.int32))


def losses_of(epoch: int) -> jax.Array:
    return jnp.asarray([1.0 / epoch, 3.0 / epoch])


def train(path: Path, until: int, seconds: float = 0.0) -> int:
    """Goes on from the last checkpoint to an epoch; returns where it started."""
    display = quiet_display()
    with (
        display.stage(Workdir(path, tiny()), "fit", CONFIG.num_rounds) as stage,
        monitored_training(path, CONFIG, stage, seconds) as monitor,
    ):
        start = int(monitor.restore(state_at(0)).epoch)
        for epoch in range(start + 1, until + 1):
            monitor.on_epoch(state_at(epoch), losses_of(epoch))
    return start


def test_every_epoch_is_a_line(tmp_path):
    train(tmp_path, 6)
    lines = curve_of(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["phase"] for line in lines] == ["adam"] * 4 + ["polish"] * 2
    np.testing.assert_allclose([x["loss"] for x in lines], [[1 / e, 3 / e] for e in range(1, 7)])
    times = [line["wall_s"] for line in lines]
    assert times == sorted(times)
    assert times[0] > 0


def test_checkpoints_are_rare_but_the_last_epoch_has_one(tmp_path):
    train(tmp_path, 5, seconds=1000.0)
    assert checkpoints.latest_step(tmp_path / "checkpoints") is None
    train(tmp_path, 6, seconds=1000.0)
    assert checkpoints.latest_step(tmp_path / "checkpoints") == 6


def test_a_checkpoint_holds_the_whole_state_of_its_epoch(tmp_path):
    train(tmp_path, 3)
    found = checkpoints.restore(tmp_path / "checkpoints", 3, state_at(0))
    expected = state_at(3)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, two = jax.random.key_data(one), jax.random.key_data(two)
        np.testing.assert_array_equal(one, two)


def test_a_resumed_curve_is_that_of_an_unbroken_run(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(whole, 6) == 0
    assert train(broken, 2) == 0
    # Two more epochs without a checkpoint, and a third line that was cut short.
    assert train(broken, 4, seconds=1000.0) == 2
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "loss": [0.2')
    assert len((broken / "metrics.jsonl").read_text().splitlines()) == 5
    assert train(broken, 6) == 2
    assert [x | {"wall_s": 0} for x in curve_of(broken)] == [
        x | {"wall_s": 0} for x in curve_of(whole)
    ]


def test_times_go_on_from_the_last_epoch_that_is_kept(tmp_path, monkeypatch):
    now = itertools.count(1000.0, 1.0)
    clock = types.SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr(workdir_module, "time", clock)
    train(tmp_path, 2)
    train(tmp_path, 4, seconds=1000.0)
    # Every look at this clock takes a second, and a stage looks when it starts and at every epoch.
    assert [line["wall_s"] for line in curve_of(tmp_path)] == [1, 2, 3, 4]
    train(tmp_path, 6)
    # The two epochs that were lost do not count.
    assert [line["wall_s"] for line in curve_of(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "timings.json").read_text()) == {"fit": 7}


def test_without_a_checkpoint_the_curve_starts_anew(tmp_path):
    train(tmp_path, 3, seconds=1000.0)
    assert train(tmp_path, 2, seconds=1000.0) == 0
    assert [line["epoch"] for line in curve_of(tmp_path)] == [1, 2]


def test_an_altered_checkpoint_is_refused_by_name_and_the_one_before_it_serves(tmp_path):
    train(tmp_path, 4)
    folder = tmp_path / "checkpoints" / "4"
    victim = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match=re.escape(str(folder))):
        train(tmp_path, 6)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    assert train(tmp_path, 6) == 3
    assert [line["epoch"] for line in curve_of(tmp_path)] == [1, 2, 3, 4, 5, 6]


def diverge(path: Path, after: int, seconds: float) -> str:
    """What a training says that leaves the finite numbers after some good epochs."""

    def run() -> None:
        with (
            quiet_display().stage(Workdir(path, tiny()), "fit", CONFIG.num_rounds) as stage,
            monitored_training(path, CONFIG, stage, seconds) as monitor,
        ):
            start = int(monitor.restore(state_at(0)).epoch)
            for epoch in range(start + 1, after + 1):
                monitor.on_epoch(state_at(epoch), losses_of(epoch))
            raise DivergedError("member 3 is lost")

    with pytest.raises(DivergedError) as told:
        run()
    return str(told.value)


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_divergence_names_the_last_good_checkpoint_which_can_be_used(tmp_path, seconds):
    folder = tmp_path / "checkpoints"
    expected = f"member 3 is lost. The last good checkpoint, of epoch 3, is {folder / '3'}"
    assert diverge(tmp_path, 3, seconds) == expected
    found = checkpoints.restore(folder, 3, state_at(0))
    np.testing.assert_array_equal(found.params.weights["w"], state_at(3).params.weights["w"])
    # A second try starts there and says the same.
    assert diverge(tmp_path, 3, seconds) == expected


def test_divergence_in_the_first_epoch_leaves_no_checkpoint(tmp_path):
    assert diverge(tmp_path, 0, 0.0).endswith("There is no checkpoint: no epoch ended well")
    assert checkpoints.latest_step(tmp_path / "checkpoints") is None


def events(path: Path) -> list[event_pb2.Event]:
    """Reads TensorBoard's files: length, its checksum, content, its checksum."""
    found = []
    for file in sorted(path.glob("events.*"), key=lambda p: p.stat().st_mtime_ns):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_tensorboard_drops_what_will_be_run_again(tmp_path):
    train(tmp_path, 2)
    train(tmp_path, 4, seconds=1000.0)
    time.sleep(1.1)  # event files are named by the second
    train(tmp_path, 6)
    found = events(tmp_path / "tensorboard")
    scalars = [
        (event.step, value.tag, round(value.simple_value, 5))
        for event in found
        for value in event.summary.value
    ]
    assert scalars[-1] == (6, "loss/mean", round(2 / 6, 5))
    starts = [event.step for event in found if event.HasField("session_log")]
    # From epoch 3 on what the second process wrote is void.
    assert starts[-1] == 3


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_a_stage_is_one_line_however_long(tmp_path):
    console = Console(file=io.StringIO(), width=80)
    note = "a long story " * 12
    with Display(console) as display, display.stage(Workdir(tmp_path, tiny()), "data", 3) as stage:
        for done in (1, 2, 3):
            stage.step(done, note)
    lines = shown(console).splitlines()
    assert len(lines) == 1
    assert re.fullmatch(rf"data: {note.strip()} +\(0\.\d s\)", lines[0])
    assert display.num_stages == 1


def test_without_a_terminal_a_slow_stage_says_now_and_then_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.progress.QUIET_SECONDS", 0.05)
    console = Console(file=io.StringIO(), width=80)
    with Display(console) as display, display.stage(Workdir(tmp_path, tiny()), "fit", 9) as stage:
        stage.step(1, "[odd] loss 1")
        time.sleep(0.1)
        stage.step(2, "[odd] loss 0.5")
        stage.step(3, "[odd] loss 0.25")
    first, last = shown(console).splitlines()
    assert re.fullmatch(r"  fit 2/9: \[odd\] loss 0\.5 \(\d+ s\)", first)
    assert last.startswith("fit: [odd] loss 0.25 (")


def test_a_terminal_shows_running_stages_with_their_times(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    where = Workdir(tmp_path, tiny())
    with Display(console) as display:
        with display.stage(where, "data") as stage:
            stage.step(1, "99 steps")
        with display.stage(where, "planning true_env", 5) as stage:
            stage.step(2, "2 agents")
            display._progress.refresh()
            middle = shown(console)
    end = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(console)).splitlines()
    assert "planning true env" in middle
    assert "2 agents" in middle
    done = [line for line in end if "✓" in line][-2:]
    assert re.search(r"✓ data +━+ 0:00:0\d 99 steps", done[0])
    assert re.search(r"✓ planning true env +━+ 0:00:0\d 2 agents", done[1])


def test_a_stage_that_fails_is_not_counted(tmp_path):
    display = Display(Console(file=io.StringIO()))
    where = Workdir(tmp_path, tiny())
    with pytest.raises(RuntimeError), display, display.stage(where, "data"):
        raise RuntimeError
    assert display.num_stages == 0
    assert shown(display.console) == ""
