"""`kdbench data`: statistics and checks of the images of a dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.cli import folders
from kdbench.cli.console import print_sentences
from kdbench.cli.printing import print_text
from kdbench.errors import UserError, unknown
from kdbench.words import count

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays
    from kdbench.data.readers.inspection import Progress
    from kdbench.data.readers.listing import Listing

SUMMARY = "compute the statistics of a dataset, or check its images"
DETAILS = """\
stats prints the numbers of images and classes, their sizes, and Dataset.mean and Dataset.std as lines for a gin file.
check decodes every image, names those that cannot be read, and stores a checksum of all files, which later runs record.
  kdbench data stats imagefolder --data MY_IMAGES Dataset.size=128
  kdbench data check tiny_imagenet --data DIR"""

KINDS = ("stats", "check")

SHOWN = 20
"""Broken files that are named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="stats|check", help="compute statistics, or check every image")
    parser.add_argument("dataset", metavar="DATASET", help="name of a dataset (kdbench list datasets)")
    parser.add_argument(
        "words", nargs="*", metavar="Dataset.KEY=VALUE", help="settings of the dataset, such as Dataset.size=128"
    )
    folders.add_data(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind not in KINDS:
        raise unknown("kind", arguments.kind, KINDS)
    from kdbench.config import bindings, resolve
    from kdbench.data.readers import registry

    own = bindings.of_command_line(arguments.words)
    if several := [b.key for n, b in enumerate(own) if b.key in {other.key for other in own[:n]}]:
        raise UserError(f"kdbench data takes one value of {several[0]}")
    dataset = resolve.dataset(arguments.dataset, own)
    folder = folders.data(arguments)
    # A check is of all files: its verdict is what skip_broken goes by.
    skips = dataset.skip_broken and arguments.kind == "stats"
    content = registry.read(dataset.source, folder, dataset.reading._replace(skip_broken=skips))
    print_sentences(content.notes)
    if arguments.kind == "stats":
        return _stats(content)
    return _check(content, dataset.source, folder)


def _stats(content: Arrays | Listing) -> int:
    from kdbench.data.readers import inspection

    with _shown() as progress:
        statistics = inspection.statistics(content, progress)
    smallest, median, largest = (f"{width}x{height}" for width, height in statistics.sizes)
    fewest, most = statistics.per_class
    print_text(f"images    {statistics.train:,} for training, {statistics.test:,} for the test")
    print_text(f"classes   {statistics.classes:,}, of {fewest:,} to {most:,} training images each")
    print_text(f"sizes     {smallest} to {largest}, median {median}" if smallest != largest else f"sizes     {median}")
    print_text(f"Dataset.mean = {statistics.mean}")
    print_text(f"Dataset.std = {statistics.std}")
    return 0


def _check(content: Arrays | Listing, source: str, folder: Path | None) -> int:
    from kdbench.data.readers import inspection
    from kdbench.data.readers.arrays import Arrays

    images = len(content.train_labels) + len(content.test_labels)
    classes = f"{len(content.classes):,} classes"
    if isinstance(content, Arrays) or folder is None:  # reading has decoded and checked them
        print_text(f"{count(images, 'image')} of {classes} can be read; data.sha256 {content.digest()}")
        return 0
    with _shown() as progress:
        verdict = inspection.verdict(content, progress)
    inspection.remember(verdict, content, source, folder)
    for sentence in list(verdict.broken.values())[:SHOWN]:
        print_text(sentence)
    if len(verdict.broken) > SHOWN:
        print_text(f"… and {len(verdict.broken) - SHOWN:,} more")
    if verdict.broken:
        print_text(
            f"{count(len(verdict.broken), 'image')} of {images:,} cannot be read; mend or remove them, or pass "
            "Dataset.skip_broken=True to leave them out"
        )
        return 1
    print_text(f"{count(images, 'image')} of {classes} can be read; data.content_sha256 {verdict.sha256}")
    return 0


@contextmanager
def _shown() -> Iterator[Progress]:
    """A bar on standard error, if that is a terminal."""
    from rich.progress import Progress as Bar

    from kdbench.cli.console import console

    with Bar(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
