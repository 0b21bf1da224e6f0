"""Decoded arrays kept on disk next to the data, so that only the first of many runs decodes the images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import files

if TYPE_CHECKING:
    import numpy as np

FORMAT = "1"
"""Raised when the same files should give other arrays (order, layout), so that older caches are ignored."""

_KEY = "fingerprint"


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
        stat = path.stat()
        size = 0 if path.is_dir() else stat.st_size
        facts.append(f"{path.parent.name}/{path.name} {size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def load(path: Path, fingerprint: str) -> dict[str, np.ndarray] | None:
    """The arrays stored in `path` under `fingerprint`; None if the file is missing, damaged, or of another fingerprint."""
    import numpy as np

    # A torn or foreign file fails in a dozen ways (zip, checksum, header, memory); all of them mean "decode again".
    with suppress(Exception):
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            return None
        with archive:
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
