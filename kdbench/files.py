"""Files shared with other processes and people: the one atomic write, the one lock, the one careful read, links that lead out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

AT_MOST = 4 << 20
"""Bytes that a JSON file or a configuration of a run folder may have; those that kdbench writes have a few thousand."""


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading; links, folders, pipes and devices are refused, and none of them is waited for.

    For files in folders that somebody else may have written.

    Raises:
        OSError: there is no such file, it is something else, or it may not be read; `strerror` is the reason.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a link", str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, at_most: int = AT_MOST) -> bytes:
    """The content of a regular file of at most `at_most` bytes.

    Raises:
        OSError: see `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise OSError(errno.EFBIG, f"it is larger than {at_most:,} bytes", str(path))
    return content


def read_object(path: Path, at_most: int = AT_MOST) -> dict[str, Any]:
    """The JSON object in a regular file.

    Raises:
        OSError: see `read_regular`.
        ValueError: it holds something else; the message is the reason.
    """
    content = read_regular(path, at_most)
    try:
        value = _DECODER.decode(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # made once: thousands of files are read with it


def write_atomically(
    path: Path, content: bytes, lasting: bool = True, before: Callable[[], None] = lambda: None
) -> None:
    """Write `content` to `path`; a reader sees either all of it or the previous file, even after a crash.

    Args:
        lasting: wait until the content is on the disk; otherwise a power cut may leave the file empty.
        before: called when all is written, at the last moment before it takes the place of the previous file; may raise.
    """
    with replacing(path, lasting, before) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, lasting: bool = True, before: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the block ends; an error in the block leaves `path` as it was.

    Its permissions are those of any new file: the umask counts. For content that is too large to hold in memory twice;
    see `write_atomically`.

    Raises:
        OSError: the file cannot be written; `filename` is `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        # tempfile.mkstemp would make it 0600, and Python cannot read the umask without changing it for all threads.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        before()
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the user knows
        temporary.unlink(missing_ok=True)
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
