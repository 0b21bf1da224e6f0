"""Versions of method files that compute the same: `methods/revisions.csv`, next to the files it is about.

A change of imports or comments changes the checksum of a method file (`provenance.method_sha256`) but not the method. Each
row of the CSV file declares this for one checksum, with the reason; all other checksums that differ are different methods.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kdbench.config import places
from kdbench.errors import UserError

CSV = "revisions.csv"
_SHA256 = re.compile("[0-9a-f]{64}")


class Revision(NamedTuple):
    """A version of a method file that computes the same as an earlier one.

    Attributes:
        file: its path in its root, such as methods/kd.py.
        sha256: checksum of this version.
        same_as: checksum of the earlier version.
        reason: the change, in a few words.
    """

    file: str
    sha256: str
    same_as: str
    reason: str


def read(path: Path) -> list[Revision]:
    """The revisions in a CSV file.

    Raises:
        UserError: it has other columns, or a row with an empty cell or with a checksum that is not a SHA-256.
    """
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    if tuple(reader.fieldnames or ()) != Revision._fields:
        raise UserError(f"{path} must have the columns {', '.join(Revision._fields)}")
    revisions = []
    for cells in reader:
        revision = Revision(*((cells[name] or "").strip() for name in Revision._fields))
        for name in ("sha256", "same_as"):
            if not _SHA256.fullmatch(getattr(revision, name)):
                raise UserError(
                    f"{path}, line {reader.line_num}: {name} must be the 64 hexadecimal digits of a SHA-256"
                )
        if not (revision.file and revision.reason):
            raise UserError(f"{path}, line {reader.line_num}: file and reason must not be empty")
        revisions.append(revision)
    return revisions


def every() -> list[Revision]:
    """The revisions of all roots."""
    return [revision for root in places.roots() for revision in _of_root(root)]


def earliest(sha256: str) -> str:
    """The checksum of the earliest version that computes the same as the version `sha256`."""
    return _chains(tuple(places.roots())).get(sha256, sha256)


@cache
def _of_root(root: Path) -> list[Revision]:
    path = root / "methods" / CSV
    return read(path) if path.is_file() else []


@cache
def _chains(roots: tuple[Path, ...]) -> Mapping[str, str]:
    """For each listed checksum that of the earliest version that computes the same."""
    same_as = {revision.sha256: revision.same_as for root in roots for revision in _of_root(root)}
    earliest = {}
    for sha256 in same_as:
        passed = [sha256]
        while (earlier := same_as.get(passed[-1])) and earlier not in passed:  # back to a form that it had before
            passed.append(earlier)
        earliest[sha256] = min(passed) if earlier else passed[-1]
    return earliest
