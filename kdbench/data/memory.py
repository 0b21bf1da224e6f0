"""Where the images of a listing are decoded: in memory before training, once into a file on disk, or batch by batch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from kdbench.data.readers.listing import Listing
from kdbench.words import byte_size


class Placement(NamedTuple):
    """The choice for one listing.

    Attributes:
        where: "memory" (before training), "cache" (once, into a file on disk) or "stream" (batch by batch).
        sentence: the choice and its reason, for the plan.
    """

    where: Literal["memory", "cache", "stream"]
    sentence: str


def placement(listing: Listing, images: str, share: float, crops: bool) -> Placement:
    """Choose where the images of a listing are decoded.

    Args:
        images, share: `Machine.images` and `Machine.memory`.
        crops: random resized crops are cut from the files, which must therefore be decoded in every epoch.
    """
    needed, free = listing.decoded_bytes, available()
    size = f"{listing.decoded_shape[0]:,} images of {listing.size}x{listing.size}"
    if crops:
        return Placement(
            "stream", f"{size} are decoded in every epoch, because crops are cut from the files (ResizedCrop)"
        )
    take = f"{size} take {byte_size(needed)} of {byte_size(free)} free memory"
    if images == "memory":
        return Placement("memory", f"{take}; they are decoded into memory (Machine.images)")
    if images == "stream":
        return Placement("stream", f"{size} are decoded in every epoch (Machine.images)")
    if images == "cache":
        return Placement(
            "cache", f"{size} take {byte_size(needed)} on disk, where they are decoded once (Machine.images)"
        )
    if needed <= share * free:
        return Placement("memory", f"{take}; they are decoded into memory")
    return Placement(
        "stream", f"{take}, more than {100 * share:.3g} % (Machine.memory); they are decoded in every epoch"
    )


def available() -> int:
    """Free memory in bytes, of the machine or of this process's control group, whichever is less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    with suppress(OSError, ValueError, StopIteration):
        group = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        folder = Path("/sys/fs/cgroup") / group.removeprefix("0::/")
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    return free
