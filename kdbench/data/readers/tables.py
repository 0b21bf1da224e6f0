"""The text files that come with image files: lists of classes, labels and boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kdbench.errors import RunError, reason


def root(folder: Path, file: str, dataset: str, inside: str = "") -> Path:
    """The folder of a dataset: `folder` itself, the one inside it of the name `inside`, or the only one inside it with `file`.

    Raises:
        RunError: none of them has the file, or several inside it have.
    """
    for candidate in (folder, folder / inside):
        if (candidate / file).is_file():
            return candidate
    candidates = sorted(path.parent for path in folder.glob(f"*/{file}"))
    if len(candidates) > 1:
        raise RunError(f"{folder} holds several folders of {dataset}; pass one of them, such as --data {candidates[0]}")
    if candidates:
        return candidates[0]
    above = next((path for path in folder.parents[:2] if (path / file).is_file()), None)
    end = f"; is {above} the folder of the dataset?" if above else ""
    raise RunError(f"{folder} is not the folder of {dataset}: it has no {file}{end}")


def rows(path: Path, columns: int, separator: str | None = None) -> list[list[str]]:
    """The lines of a text file, cut into columns.

    Args:
        columns: columns of each line; the last one takes the rest of the line.
        separator: None for white space.

    Raises:
        RunError: the file is missing or cannot be read, or a line has fewer columns; the sentence gives its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from error
    result = []
    for number, line in enumerate(lines, start=1):
        cells = line.split(separator, columns - 1)
        if len(cells) < columns:
            raise RunError(f"{path}, line {number}: {columns} columns are expected, not {line!r:.80}")
        result.append(cells)
    if not result:
        raise RunError(f"{path} is empty")
    return result


def numbers(path: Path, columns: int) -> list[list[float]]:
    """The lines of a text file of numbers.

    Raises:
        RunError: see `rows`; or something is not a finite number.
    """
    result = []
    for number, cells in enumerate(rows(path, columns), start=1):
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            raise RunError(f"{path}, line {number}: {columns} numbers are expected, not {' '.join(cells)!r:.80}")
        result.append(values)
    return result


def class_names(wnids: Sequence[str], path: Path) -> tuple[str, ...]:
    """The names of classes from a file of lines "WNID name"; with the WordNet id where two have the same name or it has none.

    Args:
        path: the file, which may be missing.
    """
    names = dict(rows(path, 2)) if path.is_file() else {}
    count = Counter(names.get(wnid) for wnid in wnids)
    return tuple(
        names[wnid] if count[names.get(wnid)] == 1 and wnid in names else _with_id(wnid, names) for wnid in wnids
    )


def _with_id(wnid: str, names: dict[str, str]) -> str:
    return f"{names[wnid]} ({wnid})" if wnid in names else wnid
