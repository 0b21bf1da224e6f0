"""Streamed image files against a plain torchvision loop: images per second, and memory over time.

    python tests/benchmarks/decoding.py FOLDER [--size 224] [--workers 2] [--pairs 5] [--epochs 20]

FOLDER holds class folders of image files. Both loops cut random resized crops, mirror, and normalise to float32 batches on the
CPU. They take turns, so that other load on the machine meets both. Read the ratio, not the rates: those are this machine's.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from kdbench.config.settings import Augment, Dataset
from kdbench.config.switches import ResizedCrop
from kdbench.data.anchors import Anchors
from kdbench.data.augment import Augmenter
from kdbench.data.readers.listing import Files, Listing
from kdbench.data.streamed import Streamed
from kdbench.run.allocator import keep_freed_memory
from kdbench.streams import Streams

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64
PASSES = 8
"""Passes over the folder in one epoch: the start of the workers is then a small part of it."""


def plain(folder: Path, size: int, workers: int) -> Callable[[], Iterator[torch.Tensor]]:
    """The loop of torchvision's reference script."""
    steps = [
        transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]  # fmt: skip
    images = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    epoch = Subset(images, list(range(len(images))) * PASSES)

    def batches() -> Iterator[torch.Tensor]:
        for pixels, _ in DataLoader(epoch, BATCH, shuffle=True, num_workers=workers):
            yield pixels

    return batches


def streamed(folder: Path, size: int, workers: int, passes: int = PASSES) -> Callable[[], Iterator[torch.Tensor]]:
    """kdbench's loop, without the sampling of a method."""
    paths = tuple(str(path.relative_to(folder)) for path in sorted(folder.glob("*/*")))
    files = Files(paths, np.zeros(len(paths), dtype=np.int64))
    crop = ResizedCrop(min_area=0.08)
    listing = Listing(folder, files, files, ("any",), size)
    images = Streamed(listing, files, np.arange(len(paths)), torch.device("cpu"), workers, crop)
    augmenter = Augmenter(images, Augment(0.0, 0, True, 0.0), Dataset("x", MEAN, STD, True), crop=crop)
    anchors = Anchors(len(paths), augmenter, Streams(0))

    def batches() -> Iterator[torch.Tensor]:
        left = len(paths) * passes
        chosen = [anchors.take(min(BATCH, left - first)) for first in range(0, left, BATCH)]
        fetched = images.fetch(augmenter.wanted(places, [draws]) for places, draws in chosen)
        for (places, draws), pixels in zip(chosen, fetched, strict=True):
            yield augmenter.views(places, [draws], ["recipe"], pixels)

    return batches


def measure(batches: Callable[[], Iterator[torch.Tensor]]) -> tuple[float, float]:
    """Images per second, and per CPU second of this process and its workers."""
    began, before, count = time.perf_counter(), _cpu(), 0
    for batch in batches():
        count += len(batch)
    return count / (time.perf_counter() - began), count / (_cpu() - before)


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def memory() -> float:
    """Memory of this process and its workers in MB; what they share counts once."""
    total = 0
    for process in (os.getpid(), *_children()):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:  # ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1e3


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def main() -> None:
    """Print the rates of each pair, their ratio, and the median memory of each epoch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="epochs over which memory is watched")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # for both loops
    loops = [make(given.folder, given.size, given.workers) for make in (plain, streamed)]
    ratios = []
    for number in range(given.pairs):
        order = loops if number % 2 == 0 else loops[::-1]
        (theirs, ours) = [measure(loop) for loop in order][:: 1 if number % 2 == 0 else -1]
        ratios.append((ours[0] / theirs[0], ours[1] / theirs[1]))
        print(
            f"torchvision {theirs[0]:.0f} images/s ({theirs[1]:.0f} per CPU second), kdbench {ours[0]:.0f} ({ours[1]:.0f}): "
            f"ratio {ratios[-1][0]:.2f} ({ratios[-1][1]:.2f})",
            flush=True,
        )
    if ratios:
        by_wall, by_cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"median ratio {by_wall:.2f}, per CPU second {by_cpu:.2f}")
    watched = streamed(given.folder, given.size, given.workers, passes=2)
    used = []
    for _ in range(given.epochs):
        used.append(statistics.median(memory() for _ in watched()))
        print(f"memory {used[-1]:.0f} MB", flush=True)
    if len(used) >= 8:
        quarter = len(used) // 4
        second, last = statistics.median(used[quarter : 2 * quarter]), statistics.median(used[-quarter:])
        print(f"growth from the second to the last quarter of the epochs: {100 * (last / second - 1):+.1f} % (medians)")


if __name__ == "__main__":
    main()
