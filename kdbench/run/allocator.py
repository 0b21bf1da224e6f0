"""The allocator of the C library: the memory that one step frees is kept for the next step, and not for the next run."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of mallopt(3)."""


def keep_freed_memory() -> None:
    """Return what earlier runs have freed to the kernel, and have glibc keep what this process frees from now on.

    By default glibc returns large blocks at once. Each step of a training then gets its tensors as new pages, which the kernel
    clears first. Does nothing with another C library, or where the user has set one of its variables (`MALLOC_…`).
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
