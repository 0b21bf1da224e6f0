"""The `results.csv` of somebody else, taken from a file or from an archive. Nothing is unpacked and nothing is executed."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kdbench.errors import UserError, reason, shortened
from kdbench.files import open_regular, read_regular
from kdbench.words import printable

RESULTS = "leaderboard/results.csv"
"""Name of the rows in an archive that `kdbench export` or `kdbench submit` wrote."""
SUMS = "SHA256SUMS"

MOST_BYTES = 64 << 20
"""Bytes that a results.csv may have: those of 25,000 runs."""
_MOST_MEMBERS = 100_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others are given memory by what the archive claims
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, OverflowError, ValueError, OSError),
)


@dataclass(frozen=True)
class Source:
    """The rows of somebody else, not checked yet.

    Attributes:
        name: name of the file, for messages.
        origin: value of the column `origin` for these rows: the name, and the beginning of the SHA-256 of the rows.
        content: content of results.csv.
    """

    name: str
    origin: str
    content: bytes


def read(path: Path) -> Source:
    """The rows in a results.csv, or in an archive of `kdbench export` or `kdbench submit`.

    Raises:
        UserError: the file is neither, or too large, or its checksums do not match, or an archive holds what kdbench does
            not pack: links, names that lead out of a folder, a name twice.
        OSError: the file cannot be read.
    """
    path = path.resolve()
    if path.is_dir():
        raise UserError(f"--merge must be a results.csv or an archive of kdbench export, not the folder {path}")
    name = shortened(printable(path.name if path.suffix == ".zip" else f"{path.parent.name}/{path.name}"), 80)
    with open_regular(path) as file:
        is_archive = file.read(2) == b"PK"
        file.seek(0)
        content = _packed(file, name) if is_archive else b""
    content = content if is_archive else read_regular(path, MOST_BYTES)
    return Source(name, f"{name} {hashlib.sha256(content).hexdigest()[:8]}", content)


def _packed(file: BinaryIO, name: str) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check(entries, name)
            content, sums = (_member(archive, each, name) for each in (RESULTS, SUMS))
    except _DAMAGED as error:
        raise UserError(f"{name} cannot be read as an archive: {reason(error)}") from None
    line = f"{hashlib.sha256(content).hexdigest()}  {RESULTS}"
    if line not in sums.decode(errors="replace").splitlines():
        raise UserError(f"{name}: {RESULTS} is not as it was packed: it does not match {SUMS}")
    return content


def _check(entries: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Refuse what kdbench does not pack, although only two members are read: such an archive is no accident."""
    if len(entries) > _MOST_MEMBERS:
        raise UserError(f"{name} holds {len(entries):,} files; an archive may hold {_MOST_MEMBERS:,}")
    names: set[str] = set()
    for entry in entries:
        member = shortened(printable(entry.filename), 80)
        if "\\" in entry.filename or any(part in ("", ".", "..") for part in entry.filename.split("/")):
            raise UserError(f"{name} holds '{member}', a path that kdbench does not pack; nothing was read")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UserError(f"{name} holds the link '{member}'; nothing was read")
        if entry.filename in names:
            raise UserError(f"{name} holds '{member}' twice; nothing was read")
        names.add(entry.filename)
    if missing := [each for each in (RESULTS, SUMS) if each not in names]:
        raise UserError(f"{name} is not an archive of kdbench export or kdbench submit: it lacks {missing[0]}")


def _member(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    entry = archive.getinfo(member)
    if entry.compress_type not in _METHODS:
        raise UserError(f"{name}: {member} is compressed in a way that kdbench does not use")
    content = b""
    if entry.file_size <= MOST_BYTES:
        with archive.open(entry) as file:
            content = file.read(MOST_BYTES + 1)
    if entry.file_size > MOST_BYTES or len(content) > MOST_BYTES:  # whatever the archive claims
        raise UserError(f"{name}: {member} is larger than {MOST_BYTES:,} bytes")
    return content
