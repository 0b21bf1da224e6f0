"""Decoded images of a listing in one file on disk, which is mapped into memory: each image is decoded once for all runs.

The file lies where other decoded images are kept (`readers.cache`). Its name has the fingerprint of its listing, which changes
with any of the image files.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers import cache, inspection, photographs
from kdbench.data.readers.listing import Listing
from kdbench.errors import RunError, UserError
from kdbench.words import byte_size

if TYPE_CHECKING:
    import numpy as np


def path(listing: Listing, data: Path) -> Path:
    """The file with the decoded images of a listing; it may not exist yet.

    Raises:
        UserError: it does not exist, and no folder for it can be written or none has the space.
    """
    name = f"decoded-{photographs.VERSION}-{inspection.fingerprint(listing)}.npy"
    for folder in cache.folders(data):
        if cache.is_trusted(folder, data) and (folder / name).is_file():
            return folder / name
    needed, free = listing.decoded_bytes, {folder: shutil.disk_usage(folder).free for folder in cache.writable(data)}
    if not free:
        places = " nor ".join(str(folder) for folder in cache.folders(data))
        raise UserError(f"Machine.images='cache' needs a folder to write to, but neither {places} can be written")
    for folder in free:
        if free[folder] > needed:
            return folder / name
    folder = max(free, key=lambda each: free[each])
    raise UserError(
        f"Machine.images='cache' takes {byte_size(needed)}, but {folder} has {byte_size(free[folder])} free; "
        "pass Machine.images=stream"
    )


def pixels(listing: Listing, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training and test images of a listing, (N, size, size, 3) uint8 on disk; they are decoded if they are not there yet.

    One process decodes, and others that need the same file wait for it.

    Raises:
        UserError: see `path`.
        RunError: an image cannot be read, or the file of decoded images is damaged.
    """
    import numpy as np

    file = path(listing, data)
    if not file.is_file():
        with cache.lock(file.parent):
            if not file.is_file():
                _write(listing, file)
    count = len(listing.train.paths)
    try:
        both = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a torn or foreign file fails in many ways
        raise RunError(f"{file} is damaged; delete it, and it is written again") from error
    if both.shape != listing.decoded_shape or both.dtype != "uint8":
        raise RunError(f"{file} holds other images than those of {listing.root}; delete it, and it is written again")
    return both[:count], both[count:]


def _write(listing: Listing, file: Path) -> None:
    import numpy as np

    # One name, whichever process writes: what a process that was killed left is overwritten, and does not fill the disk.
    partial = file.with_suffix(".partial")
    try:
        with open(partial, "wb") as out:
            np.lib.format.write_array_header_1_0(
                out, {"descr": "|u1", "fortran_order": False, "shape": listing.decoded_shape}
            )
            for part in (listing.train, listing.test):
                for chunk in listing.batches(part):
                    out.write(chunk.data)
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
