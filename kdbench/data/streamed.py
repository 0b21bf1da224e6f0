"""Images that are decoded from their files batch by batch, in processes that work ahead of the training.

A worker gets the places of files and their crops; all randomness is drawn before, so the images do not depend on the number of
workers. uint8 is what passes between processes and to the device.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kdbench.config.switches import NO_CROP, ResizedCrop
from kdbench.data.images import Images, Wanted
from kdbench.data.readers import photographs
from kdbench.data.readers.listing import Files, Listing
from kdbench.data.resized_crop import box
from kdbench.errors import RunError

AHEAD = 3
"""Batches that each worker decodes ahead of the training."""

MOST_WORKERS = 16


class Streamed(Images):
    """The images of some files of a listing.

    Args:
        files: the files.
        places: (N,) those of them that belong to this part.
        device: where `take`, `batches` and `fetch` put images.
        workers: processes that decode; 0: this one itself.
        crop: resized crops of training images, and the share of the image that is left without one.
    """

    in_memory = False

    def __init__(
        self, listing: Listing, files: Files, places: np.ndarray, device: torch.device, workers: int,
        crop: ResizedCrop = NO_CROP,
    ):  # fmt: skip
        self.labels = torch.from_numpy(files.labels[places]).to(device)
        self._decoder = _Decoder(listing, files, places, crop)
        self._size = listing.size
        self._workers = workers

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self._size, self._size, Listing.channels

    def take(self, places: Tensor) -> Tensor:
        """The images (B, H, W, C) at `places` (B,), decoded in this process."""
        parts = Wanted(places.cpu()).places.split(8)
        with ThreadPoolExecutor(max_workers=max(1, self._workers)) as pool:
            pixels = [_whole(each) for each in pool.map(self._decoder.__getitem__, map(Wanted, parts))]
        return torch.cat(pixels).to(self.labels.device)

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, (B, H, W, C), B of `size` or, in the last batch, fewer."""
        # Many small pieces, so that the first is there soon and all workers have some.
        pieces = torch.arange(len(self)).split(size)
        yield from self.fetch(map(Wanted, pieces))

    def fetch(self, wanted: Iterable[Wanted]) -> Iterator[Tensor]:
        """For each step the images (B, H, W, C) that it needs, on the device.

        Args:
            wanted: is read some steps ahead.

        Raises:
            RunError: a file cannot be read.
        """
        device = self.labels.device
        loader: DataLoader[Any] = DataLoader(
            self._decoder,
            sampler=_Sampler(wanted),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=AHEAD if self._workers else None,
            pin_memory=device.type == "cuda",
            multiprocessing_context="fork" if self._workers else None,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # it would otherwise draw from the global one, which belongs to the method
        )
        for pixels in loader:
            yield _whole(pixels).to(device, non_blocking=True)


def workers(asked: int) -> int:
    """The number of worker processes that `Machine.workers` asks for."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's, which share the cores
    cores = len(os.sched_getaffinity(0)) // processes
    return asked if asked >= 0 else max(1, min(cores - 1, MOST_WORKERS))


class _Decoder(Dataset[Any]):
    """`Wanted` images to a tensor (B, H, W, 3) uint8, or a sentence about a file that cannot be read."""

    def __init__(self, listing: Listing, files: Files, places: np.ndarray, crop: ResizedCrop):
        # One array and not a million strings: a process that reads a string writes to its memory, and copies it so.
        self._paths = np.array([os.fsencode(files.paths[n]) for n in places])
        self._boxes = None if files.boxes is None else files.boxes[places]
        self._root, self._size, self._crop = os.fspath(listing.root), listing.size, crop

    def __getitem__(self, wanted: Wanted) -> Tensor | str:
        crops = [None] * len(wanted.places) if wanted.crops is None else wanted.crops.tolist()
        try:
            pixels = np.empty((len(crops), self._size, self._size, Listing.channels), dtype=np.uint8)
            for into, n, crop in zip(pixels, wanted.places.tolist(), crops, strict=True):
                into[:] = self._decoded(n, crop)
        except RunError as error:
            return str(error)  # the loader would wrap an exception in pages of traceback
        return torch.from_numpy(pixels)

    def _decoded(self, n: int, number: int | None) -> np.ndarray:
        path = os.path.join(self._root, os.fsdecode(self._paths[n].item()))
        cut = None if self._boxes is None else tuple(self._boxes[n].tolist())
        if number is None:
            return photographs.square(path, self._size, cut, share=self._crop.test_share)
        return photographs.square(path, self._size, cut, lambda width, height: box(number, width, height, self._crop))


class _Sampler:
    """Hands requests to the loader as they are."""

    def __init__(self, wanted: Iterable[Wanted]):
        self._wanted = wanted

    def __iter__(self) -> Iterator[Wanted]:
        return iter(self._wanted)


def _whole(pixels: Tensor | str) -> Tensor:
    if isinstance(pixels, str):
        raise RunError(pixels)
    return pixels


def _ignore_signals(worker: int) -> None:
    # They are for the process that trains, which stops after a step and ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
