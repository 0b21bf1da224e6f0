"""Named random streams: draws of one part of a run do not affect those of another part.

Every generator is created from (seed, name, counters), so a stream has no state to save: the step determines all that
will be drawn. Generators are drawn from on the CPU unless a device is asked for, hence the same images in the same
order with the same augmentations on every machine.

The global generators of torch, numpy and Python have a state. kdbench draws nothing from them, but other people's code may:
they are seeded for the time of a run (`Streams.as_global`), and their state is part of the state of training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
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
        """Seed the global generators of torch, numpy and Python with this stream inside the block, and put them back afterwards.

        For code that draws from the global generators: the constructors of torch.nn, drop-out, a user's method.
        """
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        number = self.number(*path)
        before = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002
        with torch.random.fork_rng(devices=devices):
            _seed(number)
            np.random.seed(number % 2**32)  # noqa: NPY002
            random.seed(number)
            try:
                yield
            finally:
                np.random.set_state(before[0])  # noqa: NPY002
                random.setstate(before[1])


def _seed(number: int) -> None:
    """Seed torch's global generators: that of the CPU, and those of accelerators where there are any."""
    # Without one, torch.manual_seed keeps each seed in lists for devices that never come, each with a traceback: up to 1 ms, and
    # memory that is not freed.
    seed = torch.manual_seed if _has_accelerator() else torch.default_generator.manual_seed
    seed(number)


@cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


def global_state(device: torch.device) -> dict[str, Any]:
    """The state of the global generators, as tensors and plain containers.

    Args:
        device: device of the run, whose generator is one of them.
    """
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    version, numbers, next_gauss = random.getstate()
    state: dict[str, Any] = {
        "cpu": torch.get_rng_state(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": torch.tensor(numpy["state"]["key"].tolist())}},
        "python": (version, torch.tensor(numbers), next_gauss),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_global_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put the global generators into a state that `global_state` returned, as far as it has them: older ones have torch's only."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if "numpy" in state:
        numpy = state["numpy"]
        key = numpy["state"]["key"].numpy().astype(np.uint32)
        np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})  # noqa: NPY002
    if "python" in state:
        version, numbers, next_gauss = state["python"]
        random.setstate((version, tuple(numbers.tolist()), next_gauss))
