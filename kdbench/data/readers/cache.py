"""Arrays kept on disk beside the data, so that only the first run of many decodes the images."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FORMAT = "1"
"""Goes up when the same files on disk should give other arrays (order, layout): older caches are then refused."""

_KEY = "fingerprint"


def fingerprint(paths: Iterable[Path], *kind: str) -> str:
    """sha256 (hex) of what is cheap to know about `paths`: name, time of change, and size where it is a file.

    A folder's time changes when a file in it is added, removed or renamed, not when one is overwritten in place.

    Args:
        kind: what else tells the arrays apart, such as the name of the source.

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
    """The arrays stored in `path` under `fingerprint`; None if there are none, others, or the file is damaged."""
    import numpy as np

    # A torn or foreign file fails in a dozen ways (zip, checksum, header, memory); all of them mean "decode anew".
    with suppress(Exception):
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return None
        with found:
            if str(found[_KEY]) == fingerprint:
                return {name: found[name] for name in found.files if name != _KEY}
    return None


def store(path: Path, fingerprint: str, arrays: Mapping[str, np.ndarray]) -> bool:
    """Write `arrays` to `path`, all or nothing, and say whether that was possible (a read-only folder, a full disk)."""
    import numpy as np

    temporary = None
    try:
        path.parent.mkdir(exist_ok=True)
        # A name of its own for each process; the last one to finish wins, with the same content.
        handle, temporary = tempfile.mkstemp(prefix=path.stem + "-", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{_KEY: np.array(fingerprint)}, **arrays)  # type: ignore[arg-type]
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would shut out others who share the data
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        return False
    return True


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One process at a time inside the block, for all that use `folder`; freed when the process ends, however it ends.

    Many jobs that start at once then download, unpack and decode once instead of over each other. Where the file system
    knows no locks or the folder cannot be written, the block runs without.
    """
    handle = None
    try:
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
