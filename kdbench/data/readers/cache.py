"""Decoded arrays kept on disk, so that only the first of many runs decodes the images.

They are kept next to the data, in DIR/.kdbench, or where that cannot be written in the user's own cache,
~/.cache/kdbench (XDG_CACHE_HOME), a folder that only its owner may write. Both may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import files

if TYPE_CHECKING:
    import numpy as np

FORMAT = "2"
"""Raised when the same files should give other arrays (order, layout), so that older caches are ignored."""

_KEY = "fingerprint"


def folders(data: Path) -> list[Path]:
    """The folders in which the decoded images of a data folder may be kept: next to it, and of the user's own."""
    own = _own(data)
    return [data / ".kdbench", *([own] if own else [])]


def writable(data: Path) -> list[Path]:
    """Those of `folders` in which this process can write; they are created."""
    usable = []
    for folder in folders(data):
        with suppress(OSError):
            if folder.parent == data:
                folder.mkdir(exist_ok=True)
            else:
                folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK) and is_trusted(folder, data):
                usable.append(folder)
    return usable


def is_trusted(folder: Path, data: Path) -> bool:
    """True for the folder next to the data, which is trusted as they are, and for one that only this user may write."""
    if folder.parent == data:
        return True
    try:
        return all(_is_private(path) for path in (folder.parent, folder))
    except OSError:
        return False


def _is_private(path: Path) -> bool:
    facts = path.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def _own(data: Path) -> Path | None:
    """The user's own cache for a data folder; None for a user without a home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "kdbench" / hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]


def fingerprint(paths: Iterable[Path], *kind: str) -> str:
    """sha256 (hex) of the names, modification times and (of files) sizes of `paths`, which are cheap to read.

    A folder's modification time changes when a file in it is added, removed or renamed, not when one is overwritten in place.

    Args:
        kind: further words that distinguish the arrays, such as the name of the source.

    Raises:
        OSError: a path does not exist.
    """
    facts = [FORMAT, *kind]
    for path in paths:
        status = path.stat()
        size = 0 if path.is_dir() else status.st_size
        facts.append(f"{path.parent.name}/{path.name} {size} {status.st_mtime_ns}")
    return hashlib.sha256(os.fsencode("\n".join(facts))).hexdigest()


def load(path: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """The arrays stored in `path` under `fingerprint`; None if the file is missing, damaged, or of another fingerprint."""
    import numpy as np

    # A torn or foreign file fails in a dozen ways (zip, checksum, header, memory); all of them mean "decode again".
    with suppress(Exception):
        if not path.is_file():  # opening a pipe would wait for ever
            return None
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            return None
        with archive:
            # `store` packs without compression: what would unpack to more than the file has is not of it.
            with zipfile.ZipFile(path) as members:
                if sum(member.file_size for member in members.infolist()) > path.stat().st_size:
                    return None
            if str(archive[_KEY]) == fingerprint:
                return {name: archive[name] for name in archive.files if name != _KEY}
    return None


def store(path: Path, fingerprint: str, arrays: Mapping[str, np.ndarray]) -> bool:
    """Write `arrays` to `path` atomically; False if that is impossible (a read-only folder, a full disk).

    `path.parent` is created if its own parent exists.
    """
    import numpy as np

    try:
        path.parent.mkdir(exist_ok=True)
        # Not lasting: a cache lost to a power cut is only decoded again.
        with files.replacing(path, lasting=False) as file:
            np.savez(file, **{_KEY: np.array(fingerprint)}, **arrays)  # type: ignore[arg-type]
    except OSError:
        return False
    return True


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block, of all that use `folder`.

    Many jobs that start at once then download, unpack and decode once instead of over each other. Where the file system
    has no locks or the folder cannot be written, the block runs without one.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            stack.enter_context(files.lock(folder / "lock"))
        yield
