"""A teacher's outputs on the test images, kept for the later runs that have the same teacher."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.config.settings import Dataset
from kdbench.data.images import Images
from kdbench.files import read_regular, write_atomically
from kdbench.measures import VERSION
from kdbench.run import arithmetic
from kdbench.run.checkpoint import weights_sha256

FOLDER = ".teachers"
"""Its name in the folder of runs."""
AT_MOST = 512 << 20
"""Bytes of a file; larger outputs are not kept."""
_CHECKSUM = 32


@dataclass(frozen=True)
class OutputsOnTest:
    """A folder with a file for each teacher: the sha256 of what follows, the widths W as uint32, and float32 outputs (N, W).

    A file's name is a hash of all that changes a bit of its outputs. Processes that write one at once write the same bytes.
    A file that is damaged is computed and written again; where nothing can be written, nothing is kept.

    Attributes:
        folder: is made when it is needed.
        provenance: the `provenance.*` entries of the run's result.
    """

    folder: Path
    provenance: Mapping[str, Any]

    def get(
        self,
        network: nn.Module,
        normalisation: Sequence[Tensor | None],
        test: Images,
        dataset: Dataset,
        names: Sequence[str],
        batch: int,
        compute: Callable[[], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Outputs of a network on the test images by name, from the file or else from `compute`.

        Args:
            normalisation: scale and shift from the student's normalisation to the network's own.
            test: N images in memory.
            dataset: their mean and standard deviation.
            names: of the outputs in `compute`'s order, one or two, each (N, W).
            batch: images that pass through the network at once.
        """
        try:
            facts = [
                *(names, batch, dataset.mean, dataset.std, VERSION, _pixels_sha256(test.images)),
                *identity(network, normalisation, self.provenance),
            ]
        except (OSError, TypeError):  # a class without a source file
            return compute()
        path = self.folder / hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        outputs = _read(path, names, len(test), test.labels.device)
        if outputs is None:
            outputs = compute()
            _write(path, list(outputs.values()))
        return outputs


def identity(network: nn.Module, normalisation: Sequence[Tensor | None], provenance: Mapping[str, Any]) -> list[Any]:
    """All that changes a bit of a network's outputs but its input and the precision, as JSON has it.

    Args:
        normalisation, provenance: see `OutputsOnTest`.

    Raises:
        OSError, TypeError: a class of the network has no source file.
    """
    names = ("kdbench", "torch", "device", "cpu", "instructions", "deterministic", "variables")
    return [
        *(weights_sha256(network.state_dict()), _architecture(network)),
        *(None if each is None else each.tolist() for each in normalisation),
        *(torch.get_num_threads(), arithmetic.settings()),
        {name: provenance.get(f"provenance.{name}") for name in names},
    ]


def _architecture(network: nn.Module) -> list[str]:
    """The modules of a network and their sizes, and checksums of the files that define them.

    Raises:
        OSError, TypeError: a class has no source file.
    """
    classes = {cls for module in network.modules() for cls in type(module).__mro__ if cls is not object}
    files = {inspect.getfile(cls) for cls in classes if not cls.__module__.startswith("torch.")}
    return [repr(network), *sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files)]


def _pixels_sha256(images: Tensor) -> str:
    return f"{tuple(images.shape)} {hashlib.sha256(images.cpu().numpy().tobytes()).hexdigest()}"


def _read(path: Path, names: Sequence[str], images: int, device: torch.device) -> dict[str, Tensor] | None:
    """The outputs in a file; None if the file is missing or damaged."""
    try:
        content = read_regular(path, AT_MOST)
    except OSError:
        return None
    head = _CHECKSUM + 4 * len(names)
    widths = np.frombuffer(content[_CHECKSUM:head].ljust(4 * len(names), b"\0"), "<u4").tolist()
    if hashlib.sha256(content[_CHECKSUM:]).digest() != content[:_CHECKSUM]:
        return None
    if len(content) != head + 4 * images * sum(widths) or 0 in widths:
        return None
    values = torch.from_numpy(np.frombuffer(content, "<f4", offset=head).copy()).to(device)
    parts = values.split([images * width for width in widths])
    return {name: part.reshape(images, -1) for name, part in zip(names, parts, strict=True)}


def _write(path: Path, outputs: Sequence[Tensor]) -> None:
    if any(each.dtype != torch.float32 or each.ndim != 2 for each in outputs):
        return
    if _CHECKSUM + 4 * len(outputs) + sum(4 * each.numel() for each in outputs) > AT_MOST:
        return
    widths = np.array([each.shape[1] for each in outputs], "<u4").tobytes()
    content = widths + b"".join(each.cpu().numpy().astype("<f4").tobytes() for each in outputs)
    try:
        write_atomically(path, hashlib.sha256(content).digest() + content, lasting=False)
    except OSError:  # the disk is full, or the folder cannot be written to
        return
