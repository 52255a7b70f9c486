import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import records, stamps
from experiments.records import CorruptRowWarning, RowContext, append_rows, make_row, read_rows
from tests.experiments import synthetic


def test_a_row_says_what_the_protocol_asks_for(tmp_path: pathlib.Path) -> None:
    row = synthetic.row("rmse_mean", np.float32(0.5), agent=3, num_episodes=200, wall_s=1.5)
    expected = {
        "environment": "mountain_car",
        "behavior": "random",
        "method": "persim",
        "agent_id": 3,
        "covariates": {"gravity": 0.0025},
        "paper_label": "0.025",
        "trial": 0,
        "metric": "rmse_mean",
        "value": 0.5,
        "num_episodes": 200,
        "variant": "default",
        "seed": 0,
        "code_version": "abc123def0",
        "jax_version": "0.10.2",
        "device": "cpu",
        "wall_s": 1.5,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["config_digest"] == stamps.config_digest(synthetic.config())
    append_rows(tmp_path / "rows.jsonl", [row])
    assert read_rows(tmp_path / "rows.jsonl") == [row]


def test_the_true_environment_uses_no_data() -> None:
    assert synthetic.row("return_mean", 1.0, method="true_env")["behavior"] == "any"


def test_numbers_that_json_cannot_hold_become_null(tmp_path: pathlib.Path) -> None:
    values = jnp.array([1.0, jnp.nan, jnp.inf])
    row = synthetic.row("return_mean", np.nan, episode_values=values)
    append_rows(tmp_path / "rows.jsonl", [row])
    text = (tmp_path / "rows.jsonl").read_text()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert stored["value"] is None
    assert stored["episode_values"] == [1.0, None, None]


def test_measured_again_replaces_and_another_code_version_stands_beside(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    append_rows(path, [synthetic.row("rmse_mean", 1.0), synthetic.row("r2_median", 0.5)])
    append_rows(path, [synthetic.row("rmse_mean", 2.0)])
    assert [(r["metric"], r["value"]) for r in read_rows(path)] == [
        ("r2_median", 0.5),
        ("rmse_mean", 2.0),
    ]
    append_rows(path, [synthetic.row("rmse_mean", 3.0, code_version="fff")])
    assert [r["value"] for r in read_rows(path)] == [0.5, 2.0, 3.0]


@given(
    st.sampled_from(records.IDENTITY),
    st.sampled_from(["value", "wall_s", "device", "measured_at", "seed"]),
)
def test_only_the_identity_tells_rows_apart(identity: str, other: str) -> None:
    row = synthetic.row("rmse_mean", 1.0)
    assert len(records.merge_rows([row], [row | {identity: "changed"}])) == 2
    assert len(records.merge_rows([row], [row | {other: 2.0}])) == 1


def test_two_new_rows_of_one_identity_are_refused(tmp_path: pathlib.Path) -> None:
    row = synthetic.row("rmse_mean", 1.0)
    with pytest.raises(ValueError, match="two new rows share the identity"):
        append_rows(tmp_path / "rows.jsonl", [row, row | {"value": 2.0}])
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"environment": "cart', "line 2, is not a result row"),
        ("[1, 2]", "line 2, .*holds list instead of an object"),
        ('{"metric": "rmse_mean"}', "line 2, .*lacks environment, behavior"),
        ('{"metric": "\x00', "line 2, is not a result row"),
    ],
)
def test_a_corrupt_line_is_named_and_the_rest_is_used(
    tmp_path: pathlib.Path, line: str, message: str
) -> None:
    path = tmp_path / "results" / "cart_pole" / "pure.jsonl"
    append_rows(path, [synthetic.row("rmse_mean", 1.0)])
    with path.open("a") as file:
        file.write(f"{line}\n")
        file.write(json.dumps(synthetic.row("r2_mean", 2.0)) + "\n")
    with pytest.warns(CorruptRowWarning, match=rf"pure\.jsonl, {message}"):
        rows = read_rows(tmp_path / "results")
    assert [row["value"] for row in rows] == [1.0, 2.0]


def test_a_corrupt_line_stays_for_whoever_mends_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [synthetic.row("rmse_mean", 1.0)])
    broken = path.read_text()[:60]
    path.write_text(f"{path.read_text()}{broken}\n")
    append_rows(path, [synthetic.row("rmse_mean", 3.0), synthetic.row("r2_mean", 2.0)])
    assert path.read_text().splitlines()[0] == broken
    with pytest.warns(CorruptRowWarning, match="line 1, is not"):
        assert [row["value"] for row in read_rows(path)] == [3.0, 2.0]


def test_not_a_number_and_text_are_no_values(tmp_path: pathlib.Path) -> None:
    row = synthetic.row("rmse_mean", 1.0)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row).replace("1.0", "NaN") + "\n")
    with pytest.warns(
        CorruptRowWarning, match=r"NaN is not valid JSON; a number that is missing is null"
    ):
        assert read_rows(path) == []
    path.write_text(json.dumps(row | {"value": "low"}) + "\n")
    with pytest.warns(CorruptRowWarning, match="'low' is no number"):
        assert read_rows(path) == []
    with pytest.raises(FileNotFoundError, match="no rows at"):
        read_rows(tmp_path / "absent")


def test_a_folder_gives_all_rows_but_no_training_curves(tmp_path: pathlib.Path) -> None:
    append_rows(tmp_path / "b" / "rows.jsonl", [synthetic.row("rmse_mean", 2.0)])
    append_rows(tmp_path / "a" / "any.jsonl", [synthetic.row("rmse_mean", 1.0)])
    (tmp_path / "a" / "metrics.jsonl").write_text('{"epoch": 0, "loss": [1.0]}\n')
    assert [row["value"] for row in read_rows(tmp_path)] == [1.0, 2.0]


def test_text_of_any_kind_survives_line_by_line(tmp_path: pathlib.Path) -> None:
    # U+2028 ends a line for str.splitlines, but not for JSON lines.
    row = synthetic.row("rmse_mean", 1.0, note="a\u2028b\nc ε")
    append_rows(tmp_path / "rows.jsonl", [row])
    assert read_rows(tmp_path / "rows.jsonl")[0]["note"] == "a\u2028b\nc ε"


_WRITER = """
import sys
from experiments.records import append_rows
from tests.experiments import synthetic
for number in range(10_000):
    fields = {"value": float(number), "episode_values": [0.0] * 500}
    append_rows(sys.argv[1], [synthetic.row("rmse_mean", agent=a, **fields) for a in range(5)])
    print(number, flush=True)
"""


def test_killed_while_writing_the_file_is_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rows.jsonl"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=stamps.ROOT,
        env=os.environ | {"PYTHONPATH": str(stamps.ROOT)},
    )
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 3:
        pass
    time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    last = int(["3", *writer.stdout.read().split()][-1])
    writer.wait()
    writer.stdout.close()
    values = {row["value"] for row in read_rows(path)}
    # All five rows of one round: of the last one reported or of the one being written.
    assert len(read_rows(path)) == 5
    assert values in ({float(last)}, {float(last + 1)})


def _append_own(path: str, method: str) -> None:
    for trial in range(10):
        append_rows(path, [synthetic.row("rmse_mean", 1.0, method=method, trial=trial)])


def test_two_processes_lose_no_rows(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "rows.jsonl")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_own, args=(path, m)) for m in ("persim", "cql_p")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(read_rows(path)) == 20


def test_digest_is_of_content_not_of_order_or_type() -> None:
    digest = stamps.config_digest({"a": 1, "b": {"c": (1, 2), "d": np.float64(0.5)}})
    assert digest == stamps.config_digest({"b": {"d": 0.5, "c": [1, 2]}, "a": 1})
    assert digest == stamps.config_digest({"a": 1, "b": {"c": [1, 2], "d": 0.5}, "trial": 3})
    assert digest != stamps.config_digest({"a": 1, "b": {"c": [2, 1], "d": 0.5}})
    assert len(digest) == 12
    assert set(digest) <= set("0123456789abcdef")
    with pytest.raises(TypeError, match="of type function cannot be written as JSON"):
        stamps.config_digest({"loss": test_digest_is_of_content_not_of_order_or_type})


def test_stamp_names_versions_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--flag=1")
    stamp = stamps.environment_stamp()
    assert stamp["numpy"] == np.__version__
    assert stamp["python"] == ".".join(map(str, sys.version_info[:3]))
    assert stamp["xla_flags"] == "--flag=1"
    assert stamp["device_count"] >= 1
    assert stamp["cpu_count"] == os.cpu_count()
    assert stamp["command"].startswith("python ")
    json.dumps(stamp)


def _repository(path: pathlib.Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", str(path), *who, *arguments], check=True, capture_output=True)

    (path / "code.py").write_text("x = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")


def test_code_version_is_the_commit_and_tells_changed_code(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path.resolve()
    _repository(root)
    monkeypatch.setattr(stamps, "ROOT", root)
    version = stamps.code_version.__wrapped__
    clean = version()
    assert len(clean) == 10
    # Accepted results and prose are not code.
    (root / "results").mkdir()
    (root / "results" / "pure.jsonl").write_text("{}")
    (root / "README.md").write_text("numbers")
    assert version() == clean
    (root / "new.py").write_text("")
    assert version() == f"{clean}-dirty"
    (root / "new.py").unlink()
    (root / "code.py").write_text("x = 2\n")
    assert version() == f"{clean}-dirty"


def test_code_version_outside_git_is_the_packages(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "ROOT", tmp_path)
    monkeypatch.setattr(stamps, "_version", lambda package: "0.1.0")
    assert stamps.code_version.__wrapped__() == "0.1.0"


def test_a_context_needs_its_fields_and_keeps_them() -> None:
    with pytest.raises(ValueError, match="config lacks trial, seed"):
        RowContext.from_config({"environment": "a", "behavior": "b", "variant": "c"}, {})
    stamp = synthetic.STAMP | {"device": "gpu", "device_kind": "NVIDIA H200"}
    assert RowContext.from_config(synthetic.config(), stamp).device == "NVIDIA H200"
    with pytest.raises(ValueError, match="trial are set by the row's context"):
        make_row(synthetic.context(), method="persim", metric="m", value=1.0, trial=2)
