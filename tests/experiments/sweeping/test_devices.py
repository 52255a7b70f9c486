"""No two workers on one device, unless asked for."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sweeping.devices import (
    SINGLE_THREAD,
    find_cores,
    find_gpus,
    share_out,
    single_thread,
)
from experiments.sweeping.ray_cluster import task_variables
from experiments.sweeping.worker import CACHE_VARIABLE


@given(st.integers(1, 64), st.integers(1, 64))
def test_cores_are_split_without_overlap_and_almost_equally(workers, cores):
    workers = min(workers, cores)
    parts = [share.cores for share in share_out(workers, range(cores), [], together=False)]
    assert sorted(core for part in parts for core in part) == list(range(cores))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_by_default_there_is_a_worker_for_each_device():
    assert [s.cores for s in share_out(0, [3, 5], [], together=False)] == [(3,), (5,)]
    shares = share_out(0, range(8), ["0", "1"], together=False)
    assert [(s.gpu, s.cores) for s in shares] == [("0", (0, 1, 2, 3)), ("1", (4, 5, 6, 7))]


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ([], "3 workers for 2 CPU cores: .*--workers=2, or for --share_devices"),
        (["0"], "3 workers for 1 GPU: .*--workers=1"),
    ],
)
def test_sharing_must_be_asked_for(gpus, message):
    with pytest.raises(ValueError, match=message):
        share_out(3, [0, 1], gpus, together=False)
    shares = share_out(3, [0, 1], gpus, together=True)
    assert len(shares) == 3
    assert not any(share.alone for share in shares)


def test_a_worker_sees_its_own_gpu_and_its_memory():
    one, two = share_out(2, range(4), ["GPU-a", "GPU-b"], together=False)
    assert one.variables({})["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert two.variables({})["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in one.variables({})
    shared = share_out(2, range(4), ["0"], together=True)
    assert [s.variables({})["CUDA_VISIBLE_DEVICES"] for s in shared] == ["0", "0"]
    assert {s.variables({})["XLA_PYTHON_CLIENT_PREALLOCATE"] for s in shared} == {"false"}


def test_one_core_means_one_thread_and_several_mean_several():
    one, _ = share_out(2, [0, 1], [], together=False)
    found = one.variables({"XLA_FLAGS": "--a=1"})
    assert found == {"OMP_NUM_THREADS": "1", "XLA_FLAGS": f"--a=1 {SINGLE_THREAD}"}
    (whole,) = share_out(1, [0, 1], [], together=False)
    assert "XLA_FLAGS" not in whole.variables({})
    mine = "--xla_cpu_multi_thread_eigen=true"
    assert single_thread(mine) == mine


def test_cores_are_those_that_this_process_may_use():
    assert len(find_cores()) >= 1
    assert find_cores() == sorted(set(find_cores()))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2, 3"}, ["2", "3"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}, []),
        ({}, ["0", "1"]),
    ],
)
def test_gpus_are_found_without_touching_them(tmp_path, monkeypatch, environment, expected):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus(environment) == expected
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert find_gpus({}) == []
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert find_gpus({}) == []


@pytest.mark.parametrize(
    ("gpus", "shared"), [(-1.0, False), (0.0, False), (0.5, True), (1.0, False)]
)
def test_jobs_that_share_a_gpu_on_a_cluster_leave_each_other_memory(gpus, shared):
    variables = task_variables(1.0, gpus, None)
    assert (variables.get("XLA_PYTHON_CLIENT_PREALLOCATE") == "false") == shared
    assert CACHE_VARIABLE not in variables
    assert SINGLE_THREAD in variables["XLA_FLAGS"]


def test_a_cluster_has_the_folder_for_compiled_programs_too():
    variables = task_variables(2.0, 1.0, "cache")
    assert variables[CACHE_VARIABLE] == os.path.abspath("cache")
    assert "XLA_FLAGS" not in variables
