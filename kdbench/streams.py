"""Named random streams: draws of one part of a run do not affect those of another part.

Every generator is created from (seed, name, counters), so a stream has no state to save: the step determines all that
will be drawn. Generators are drawn from on the CPU unless a device is asked for, hence the same images in the same
order with the same augmentations on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Streams:
    """The random streams of one run.

    Args:
        seed: the run's seed.
        path: names and counters that all streams from this object share.
    """

    def __init__(self, seed: int, *path: str | int):
        self._key = (seed, *path)

    def number(self, *path: str | int) -> int:
        """A 63-bit number that depends on the seed and `path` alone."""
        text = "/".join(str(part) for part in (*self._key, *path))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def __call__(self, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator on `device` for the stream `path`."""
        return torch.Generator(device=device).manual_seed(self.number(*path))

    def within(self, *path: str | int) -> Streams:
        """The streams below `path`."""
        return Streams(*self._key, *path)  # type: ignore[arg-type]

    @contextmanager
    def as_global(self, *path: str | int) -> Iterator[None]:
        """Make torch's global generators equal this stream inside the block, and put them back afterwards.

        For code that draws from the global generators: the constructors of torch.nn, drop-out, a user's method.
        """
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.number(*path))
            yield
