"""Reads datasets by name: a name and a folder in; four arrays out, or a listing of image files that are decoded later.

Importing this is cheap, so that a plan can check its datasets at once; numpy and the rest are imported by the readers.

Images are put in an order that depends on nothing but their labels and pixels (`arrays.canonical`). The order of training
draws indices from the seed, and the validation split cuts by index: if the order on disk showed through, the same run
would give another result on a machine that keeps the same images as an archive, or under other file names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from kdbench.config import extensions
from kdbench.config.reading import AS_THEY_ARE, Reading
from kdbench.data.readers import inspection
from kdbench.data.readers.arrays import Arrays
from kdbench.data.readers.listing import Listing
from kdbench.errors import RunError, UserError


def check_folder(source: str, folder: Path | None) -> None:
    """Check at planning time, quickly, that `read` has a folder to read from, but not whether the images are in it.

    Raises:
        UserError: no such source; a folder is needed and there is none.
    """
    if not extensions.member("reader", source, "data source").options.get("needs_folder", False):
        return
    how = "name the folder with --data DIR or the environment variable KDBENCH_DATA"
    if folder is None:
        raise UserError(f"{source} needs a data folder; {how}")
    if not folder.is_dir():
        raise UserError(f"the data folder {folder} for {source} does not exist or is not a folder; {how}")


def classes(source: str) -> int | None:
    """The number of classes that a reader declares; None if only reading the images shows it.

    Raises:
        UserError: there is no such source.
    """
    declared: int | None = extensions.member("reader", source, "data source").options.get("classes")
    return declared


def is_present(source: str, folder: Path | None) -> bool:
    """False if reading a source would download its images first, as far as its reader declares how to tell.

    Raises:
        UserError: see `check_folder`.
    """
    check_folder(source, folder)
    extension = extensions.members("reader")[source]
    function = extension.options.get("present")
    return function is None or bool(extensions.load(replace(extension, object=function))(source, folder))


def has_images(source: str, folder: Path | None) -> bool | None:
    """Look quickly for the images of a source, without reading them.

    Returns:
        None if its reader declares no way to tell.

    Raises:
        UserError: the source is unknown, or `folder` is not a folder.
    """
    options = extensions.member("reader", source, "data source").options
    if not options.get("needs_folder", False):
        return True
    if not {"present", "files"} & options.keys():
        return None
    if folder is None:
        return False
    if "present" in options:
        return is_present(source, folder)
    check_folder(source, folder)
    return any(True for pattern in options["files"] for _ in folder.glob(pattern))


def check_channels(source: str, content: Arrays | Listing, mean: Sequence[float]) -> None:
    """Compare `Dataset.mean`, one value per channel, with the images that it normalises.

    Raises:
        RunError: they have another number of channels.
    """
    channels = content.channels
    if channels != len(mean):
        raise RunError(
            f"Dataset.mean has {len(mean)} values but images of '{source}' have {channels} channel{'s' * (channels != 1)}"
        )


def check_crop(source: str, content: Arrays | Listing, test_share: float) -> None:
    """Compare `ResizedCrop.test_share` with the images.

    Raises:
        RunError: they have one size already.
    """
    if test_share != 1 and isinstance(content, Arrays):
        raise RunError(
            f"ResizedCrop.test_share is for image files, and '{source}' has images of one size; pass ResizedCrop.test_share=1"
        )


@lru_cache(maxsize=1)
def read_once(source: str, folder: Path | None, reading: Reading = AS_THEY_ARE) -> Arrays | Listing:
    """The images of a source as `read` returns them, kept in memory until those of another are asked for.

    The plan reads them before anything starts, and the runs of the same process take them from here.
    """
    return read(source, folder, reading)


def read(source: str, folder: Path | None, reading: Reading = AS_THEY_ARE) -> Arrays | Listing:
    """All images of a source, in canonical order, or the listing of their files.

    Args:
        source: a name that `Dataset.source` binds, one of `extensions.members("reader")`.
        folder: the user's data folder, where the source needs one.
        reading: settings for the readers that take them.

    Raises:
        UserError: see `check_folder`; or the folder does not hold the data and it cannot be downloaded; a reader that does
            not return `Arrays` or a `Listing`.
        RunError: a file or class folder in it is not what it should be, or its arrays do not fit each other.
    """
    check_folder(source, folder)
    extension = extensions.members("reader")[source]
    arguments = (source, folder, reading) if "takes" in extension.options else (source, folder)
    try:
        content = extensions.load(extension)(*arguments)
    except ValueError as error:
        raise RunError(f"{extension.path}: the reader of '{source}' fails: {error}") from error
    if not isinstance(content, (Arrays, Listing)):
        raise UserError(
            f"{extension.path}: the reader of '{source}' returns {type(content).__name__}, not Arrays or a Listing"
        )
    if reading.skip_broken and isinstance(content, Listing) and folder is not None:
        return inspection.without_broken(content, source, folder)
    return content
