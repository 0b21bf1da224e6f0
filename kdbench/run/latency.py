"""Latency of deployed networks on one device: the time of a forward pass, all networks measured in turn.

Latencies of two machines, or of one machine at two times, are not comparable, so they are not stored with results: they are
measured together, round by round, and what else the machine does falls on all networks alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.run import arithmetic, checkpoint, load
from kdbench.store import provenance
from kdbench.store.folder import CHECKPOINT

BATCHES = (1, 64)
"""Images of a forward pass."""
ROUNDS, WARM_UP = 50, 5


class Latency(NamedTuple):
    """Milliseconds of a forward pass, over all rounds.

    Attributes:
        median: of the rounds.
        lower, upper: first and third quartile.
    """

    median: float
    lower: float
    upper: float


class Deployed(NamedTuple):
    """The deployed network of a finished run, and the shape (C, H, W) of its images."""

    network: nn.Module
    image_shape: tuple[int, int, int]


def deployed(folder: Path, device: torch.device) -> Deployed:
    """The deployed network of a run folder, on `device` and in evaluation mode.

    Raises:
        RunError: its weights cannot be read, or do not record the size of the images.
    """
    content = checkpoint.load(folder / CHECKPOINT)
    image_shape = load.image_shape(content, folder.name)
    return Deployed(load.deployed_of(content).to(device), image_shape)


def machine(device: torch.device) -> dict[str, str | int]:
    """What latencies depend on besides the network: device, threads of a CPU, version of torch."""
    threads = {} if device.type == "cuda" else {"threads": torch.get_num_threads()}
    return {"device": provenance.device_name(device), **threads, "torch": str(torch.__version__)}


@torch.inference_mode()
def measure(
    networks: Mapping[str, Deployed], device: torch.device, batches: Sequence[int] = BATCHES, rounds: int = ROUNDS
) -> dict[str, dict[int, Latency]]:
    """Measure networks in turn, in float32 (without TF32).

    Args:
        batches: sizes of the batches.

    Returns:
        By name of the network and by size of the batch.
    """
    inputs = {
        (name, batch): torch.randn(batch, *each.image_shape, device=device)
        for name, each in networks.items()
        for batch in batches
    }
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in inputs}
    with arithmetic.kept():
        torch.backends.cudnn.allow_tf32 = False  # as runs train, unless they ask for it
        for number in range(-WARM_UP, rounds):
            for key, images in inputs.items():
                took = _seconds(networks[key[0]].network, images)
                if number >= 0:
                    seconds[key].append(took)
    return {name: {batch: _latency(seconds[name, batch]) for batch in batches} for name in networks}


def _seconds(network: nn.Module, images: Tensor) -> float:
    _wait(images.device)
    began = time.perf_counter()
    network(images)
    _wait(images.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _latency(seconds: Sequence[float]) -> Latency:
    lower, median, upper = (float(1000 * value) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return Latency(median, lower, upper)
