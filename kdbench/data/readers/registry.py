"""Where images come from: a name and a folder in, four arrays out.

Importing this is cheap, so that a plan can check its datasets at once; numpy and the rest are imported by the readers.

Images are put in an order that depends on nothing but their labels and pixels (`canonical`). The order of training
draws indices from the seed, and the validation split cuts by index: if the order on disk showed through, the same run
would give another result on a machine that keeps the same images as an archive, or under other file names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench.data.readers.arrays import Arrays
from kdbench.errors import UserError, unknown

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Source:
    """One entry of `SOURCES`.

    Attributes:
        needs_folder: whether `read` needs the user's data folder.
        read: from that folder (None where it is not needed) to the arrays.
    """

    needs_folder: bool
    read: Callable[[Path | None], Arrays]


def check_folder(source: str, folder: Path | None) -> None:
    """Check at planning time, quickly, that `read` has a folder to read from, but not whether the images are in it.

    Raises:
        UserError: no such source; a folder is needed and there is none.
    """
    if source not in SOURCES:
        raise unknown("data source", source, SOURCES)
    if not SOURCES[source].needs_folder:
        return
    how = "name the folder with --data DIR or the environment variable KDBENCH_DATA"
    if folder is None:
        raise UserError(f"{source} needs a data folder; {how}")
    if not folder.is_dir():
        raise UserError(f"the data folder {folder} for {source} does not exist or is no folder; {how}")


def read(source: str, folder: Path | None) -> Arrays:
    """All images of a source, in canonical order.

    Args:
        source: a name of `SOURCES`.
        folder: the user's data folder, where the source needs one.

    Raises:
        UserError: as `check_folder`; the folder does not hold the data and it cannot be downloaded.
        RunError: a file or class folder in it is not what it should be.
    """
    check_folder(source, folder)
    return SOURCES[source].read(folder)


def _digits(_: Path | None) -> Arrays:
    from kdbench.data.readers import digits

    return digits.read()


def _cifar(source: str) -> Callable[[Path | None], Arrays]:
    def read_cifar(folder: Path | None) -> Arrays:
        from kdbench.data.readers import cifar

        assert folder is not None  # check_folder has seen to it
        return cifar.read(source, folder)

    return read_cifar


SOURCES: dict[str, Source] = {
    "digits": Source(False, _digits),
    "cifar10": Source(True, _cifar("cifar10")),
    "cifar100": Source(True, _cifar("cifar100")),
}
"""All sources by name; `Dataset.source` names one."""
