"""Files of a dataset as its authors publish them, found in the data folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdbench.errors import RunError


def file(folder: Path, inside: Sequence[str], name: str, where: str) -> Path:
    """The file `name` in the data folder or one of the folders inside it.

    Args:
        where: address of the dataset's page, for the sentence.

    Raises:
        RunError: it is in none of them.
    """
    for place in (folder, *(folder / each for each in inside)):
        if (place / name).is_file():
            return place / name
    raise RunError(f"{folder} has no {name}, neither there nor in {inside[0]}/; it is published at {where}")
