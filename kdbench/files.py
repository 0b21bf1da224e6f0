"""Files that other processes read at the same time: the one atomic write, and the one file lock."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes, lasting: bool = True) -> None:
    """Put `content` at `path` so that a reader sees all of it or what was there before, also after a crash.

    Args:
        lasting: wait until it is on the disk; without, a power cut may leave the file empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
