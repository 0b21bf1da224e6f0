"""Versions of method files that compute the same: `methods/revisions.csv`, next to the files it is about.

A change of imports or comments changes the checksum of a method file (`provenance.method_sha256`) but not the method. Each
row of the CSV file says so of one checksum, with the reason; all other checksums that differ are different methods.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kdbench.config import places
from kdbench.errors import UserError
from kdbench.report.records import Record

CSV = "revisions.csv"
KEY = "provenance.method_sha256"
_SHA256 = re.compile("[0-9a-f]{64}")


class Revision(NamedTuple):
    """A version of a method file that computes the same as an earlier one.

    Attributes:
        file: its path in its root, such as methods/kd.py.
        sha256: of this version.
        same_as: sha256 of the earlier version.
        reason: what changed, a few words.
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


def versions(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records by the version of the method file that made them; versions that compute the same are one.

    Returns:
        By SHA-256 of the earliest version, in the order of the records; without records that have no checksum.
    """
    by_version: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if sha256 := record.get(KEY):
            by_version[_earliest().get(sha256, sha256)].append(record)
    return by_version


def changed_in_form(records: Iterable[Record]) -> list[str]:
    """A sentence for each reason why versions that made these records differ from later ones that compute the same."""
    used = {record.get(KEY, "") for record in records}
    files: dict[str, set[str]] = defaultdict(set)
    for revision in _all():
        if revision.same_as in used:
            files[revision.reason].add(revision.file)
    return [
        f"Some runs were made by earlier versions of {', '.join(sorted(names))}, "
        f"which differ from later ones in form, not in what they compute: {reason}."
        for reason, names in files.items()
    ]


def _all() -> list[Revision]:
    return [revision for root in places.roots() for revision in _of_root(root)]


@cache
def _of_root(root: Path) -> list[Revision]:
    path = root / "methods" / CSV
    return read(path) if path.is_file() else []


def _earliest() -> Mapping[str, str]:
    return _chains(places.roots())


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
