"""The validation split, cut from the training images."""

from __future__ import annotations

import numpy as np


def validation_split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a share of every class off for validation.

    A pure function of its arguments: no global random state, and the same with every version of numpy, which promises
    that for the raw numbers of a bit generator and not for `shuffle` or `choice`.

    Args:
        labels: (N,) integers.
        share: share of the images for validation, at least 0 and below 1; round(share × N) images in all. Where the
            share of a class is not an integer, the classes with the largest remainders get one more (lower labels first).
        seed: seed of the draw.

    Returns:
        Indices of training and of validation images, each sorted, int64; together 0..N-1.

    Raises:
        ValueError: `share` is out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, not {share}")
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quotas = share * counts
    sizes = np.floor(quotas).astype(np.int64)
    missing = round(share * len(labels)) - int(sizes.sum())
    sizes[np.argsort(sizes - quotas, kind="stable")[:missing]] += 1

    keys = np.random.PCG64(seed).random_raw(len(labels))
    by_class = np.lexsort((keys, which))
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[by_class] = rank < np.repeat(sizes, counts)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
