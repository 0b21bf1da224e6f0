"""Decoding in threads: Pillow lets go of the GIL in its decoders, and a slow disk is waited for together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CHUNK = 64
"""Images that a thread takes at a time."""

T = TypeVar("T")


def of_chunks(function: Callable[[range], T], count: int) -> Iterator[T]:
    """`function` of the places 0 … count − 1, some at a time, in order.

    Threads work a few chunks ahead and then wait: what is not taken yet must not fill the memory.
    """
    threads = len(os.sched_getaffinity(0))
    chunks: Sequence[range] = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for first in range(0, len(chunks), 2 * threads):
            yield from pool.map(function, chunks[first : first + 2 * threads])
