"""Files that are either whole or not there, and checksums that tell when they are neither."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


class CorruptFileError(ValueError):
    """A file is not what was written: it was cut short, altered, or lost its sidecar."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path`, so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, reach the disk, and then take the name of
    the file at once. Missing folders are made.

    Args:
      path: The file; replaced if it is there.
      data: Its content.

    Raises:
      OSError: The folder cannot be written to, or the disk is full; the old file is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A rename is atomic only within a file system, hence not in the system's temporary folder.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def write_json_atomically(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON to `path`, as `write_atomically` does.

    Raises:
      TypeError: The value holds something that JSON has no form for.
      ValueError: The value holds NaN or an infinity, which JSON has no form for either.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power failure, where the system can do so."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems refuse to sync a folder; the file itself is safe by then.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
