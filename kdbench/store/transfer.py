"""`transfer.json` of a run folder: how the frozen features of a finished run do on other datasets.

It lies next to `result.json`, which is written once. An entry counts only for the weights that it was measured with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdbench.config import places
from kdbench.store.folder import TRANSFER, RunFolder

VERSION = 1
"""Raised whenever the same network would be measured differently; entries of other versions do not count."""

PROBES = ("linear", "knn")
"""The measurements on a dataset, each an accuracy in percent."""


def read(folder: RunFolder, weights: str | None) -> dict[str, dict[str, Any]]:
    """What was measured, by dataset: percent by name of `PROBES`, and facts about the measurement.

    Entries that are not what kdbench writes, or are of other weights, are left out.

    Args:
        weights: `weights.sha256` of the run's result.
    """
    content = folder.read(TRANSFER) or {}
    if weights is None or content.get("weights.sha256") != weights or content.get("version") != VERSION:
        return {}
    datasets = content.get("datasets")
    entries = datasets.items() if isinstance(datasets, dict) else ()
    return {name: entry for name, entry in entries if places.is_name(name) and _is_entry(entry)}


def write(folder: RunFolder, weights: str, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the file as a whole; the process holds the lease of the run.

    Args:
        weights: `weights.sha256` of the run's result.
        datasets: as `read` returns it.
    """
    folder.write(TRANSFER, {"version": VERSION, "weights.sha256": weights, "datasets": dict(sorted(datasets.items()))})


def keys(folder: RunFolder, result: Mapping[str, Any]) -> dict[str, float]:
    """The entries `transfer.DATASET.linear` and `transfer.DATASET.knn` that a finished run's result has in addition."""
    measured = read(folder, result.get("weights.sha256")) if result.get("status") == "finished" else {}
    return {f"transfer.{name}.{probe}": entry[probe] for name, entry in measured.items() for probe in PROBES}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(_is_percent(entry.get(probe)) for probe in PROBES)


def _is_percent(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
