"""Files are whole or not there."""

import hashlib
import json
import os
import stat
import threading

import pytest

from persim_jax.files import sha256_of, write_atomically, write_json_atomically


def test_bytes_arrive_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"\x00\xffdata")
    assert path.read_bytes() == b"\x00\xffdata"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def refuse(source, target):
        raise OSError("disk on fire")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk on fire"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_reader_never_sees_a_part(tmp_path):
    path, stop = tmp_path / "file", threading.Event()
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomically(path, contents[0])
    seen = set()

    def read():
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(20):
        write_atomically(path, contents[turn % 2])
    stop.set()
    reader.join()
    assert seen <= set(contents)


def test_other_users_may_read_as_far_as_the_umask_allows(tmp_path):
    path = tmp_path / "file"
    old = os.umask(0o022)
    try:
        write_atomically(path, b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_sha256_is_that_of_the_standard(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected == hashlib.sha256(b"abc").hexdigest()


def test_json_round_trip_and_what_json_has_no_form_for(tmp_path):
    path = tmp_path / "file.json"
    value = {"b": [1, 2.5, None, "ü"], "a": {"nested": True}}
    write_json_atomically(path, value)
    assert json.loads(path.read_text(encoding="utf8")) == value
    assert path.read_text(encoding="utf8").endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomically(path, float("nan"))
    with pytest.raises(TypeError):
        write_json_atomically(path, {1, 2})
    assert json.loads(path.read_text(encoding="utf8")) == value
