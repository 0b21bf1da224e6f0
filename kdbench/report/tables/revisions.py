"""Records by the version of the method file that made them; versions that compute the same are one (`config.revisions`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from kdbench.config.revisions import earliest, every
from kdbench.report.records import Record

KEY = "provenance.method_sha256"


def versions(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records by the version of the method file that made them; versions that compute the same are one.

    Returns:
        By SHA-256 of the earliest version, in the order of the records; without records that have no checksum.
    """
    by_version: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if sha256 := record.get(KEY):
            by_version[earliest(sha256)].append(record)
    return by_version


def changed_in_form(records: Iterable[Record]) -> list[str]:
    """A sentence for each reason why versions that made these records differ from later ones that compute the same."""
    used = {record.get(KEY, "") for record in records}
    files: dict[str, set[str]] = defaultdict(set)
    for revision in every():
        if revision.same_as in used:
            files[revision.reason].add(revision.file)
    return [
        f"Some runs were made by earlier versions of {', '.join(sorted(names))}, "
        f"which differ from later ones in form, not in what they compute: {reason}."
        for reason, names in files.items()
    ]
