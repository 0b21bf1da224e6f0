"""Files shared with other processes and people: the one atomic write, the one file lock, and links that lead elsewhere."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes, lasting: bool = True) -> None:
    """Write `content` to `path`; a reader sees either all of it or the previous file, even after a crash.

    Args:
        lasting: wait until the content is on the disk; otherwise a power cut may leave the file empty.
    """
    with replacing(path, lasting) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, lasting: bool = True) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block ends; an error in the block leaves `path` as it was.

    For content that is too large to hold in memory twice; see `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would shut out others who share the folder
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def links(folder: Path) -> list[Path]:
    """The symbolic links in a folder and its subfolders, by name; none of them is followed."""
    entries = (Path(root) / name for root, folders, files in os.walk(folder) for name in (*folders, *files))
    return sorted(path for path in entries if path.is_symlink())


def leads_out(path: Path, folder: Path) -> bool:
    """True if `path` is a link, or lies behind one, that leads out of `folder`; the folder itself may be a link."""
    inside = os.path.realpath(folder)
    return os.path.commonpath([inside, os.path.realpath(path)]) != inside


@contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of the file `path`, which is created if it is missing; the lock ends with the process at the latest.

    Args:
        wait: wait until the lock is free.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is false.
        OSError: `path` cannot be written, or its file system has no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
