"""A teacher's outputs on the batches of training, kept for the runs of the same protocol and seed, which meet the same images.

Every record holds the checksum of the images that it is of, so that a method whose batches are others computes, and no record
is ever taken for another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdbench.backbones.backbone import Features
from kdbench.config.settings import Settings
from kdbench.run.load import LogitsOnly
from kdbench.run.teacher import LoadedTeacher
from kdbench.run.teacher_outputs import identity

_SUM = 32
"""Bytes of a checksum."""


class TrainingOutputs:
    """Files with a record for each step: its checksum, that of the images, then logits (B, K) and pooled features (B, D), float32.

    Jobs that write a file at once write the same bytes. A record that is damaged, or was never written, is computed and written;
    where a file cannot be written, it is not used.

    Args:
        folder: is made when it is needed.
        facts: all that changes the outputs of the teacher but the images and the precision; asked when training has begun.
        most: bytes that a file may have; later steps are computed.

    Attributes:
        images_read: images whose outputs were read.
    """

    def __init__(self, folder: Path, facts: Callable[[], list[object]], most: int):
        self._folder, self._most = folder, most
        self._facts = facts
        self._name: str | None = None
        self._handles: dict[int, int] = {}
        self._failed = most <= 0
        self.images_read = 0

    def get(self, step: int, images: Tensor, widths: tuple[int, int], compute: Callable[[], Features]) -> Features:
        """Logits and pooled features for images (B, C, H, W), from the record of a step or else from `compute`.

        Args:
            widths: K and D.
        """
        count, size = len(images), 2 * _SUM + 4 * len(images) * sum(widths)
        if self._failed or images.device.type != "cpu" or (step + 1) * size > self._most:
            return compute()
        of_images = _checksum_of(images)
        try:
            handle = self._open(count)
            record = os.pread(handle, size, step * size)
        except (OSError, TypeError):  # TypeError: a class of the network has no source file
            self.close()
            return compute()
        whole = len(record) == size and hashlib.blake2b(record[_SUM:], digest_size=_SUM).digest() == record[:_SUM]
        if whole and record[_SUM : 2 * _SUM] == of_images:
            self.images_read += count
            values = torch.from_numpy(np.frombuffer(record, "<f4", offset=2 * _SUM).copy())
            logits, pooled = values.split([count * width for width in widths])
            return Features(logits.reshape(count, -1), (), pooled.reshape(count, -1))
        features = compute()
        if not whole:  # a whole one is of other images, which another method of the protocol may still read
            self._write(handle, step * size, of_images, features, widths)
        return features

    def close(self) -> None:
        """Close the files; from now on all is computed."""
        self._failed = True
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def _open(self, count: int) -> int:
        if count not in self._handles:
            if self._name is None:
                self._name = hashlib.sha256(json.dumps(self._facts()).encode()).hexdigest()
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{self._name}.{count}"
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            self._handles[count] = handle
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("it is not a regular file")
        return self._handles[count]

    def _write(self, handle: int, place: int, of_images: bytes, features: Features, widths: tuple[int, int]) -> None:
        outputs = features.logits, features.pooled
        for each, width in zip(outputs, widths, strict=True):
            if each.dtype != torch.float32 or each.shape[1:] != (width,) or not each.is_contiguous():
                return
        content = of_images + b"".join(each.numpy().astype("<f4").tobytes() for each in outputs)
        record = hashlib.blake2b(content, digest_size=_SUM).digest() + content
        try:
            os.pwrite(handle, record, place)
        except OSError:  # the disk is full
            self.close()


def of_teacher(
    teacher: LoadedTeacher, folder: Path, shared: Sequence[object], settings: Settings, provenance: Mapping[str, Any]
) -> TrainingOutputs | None:
    """The kept outputs of a teacher; None where nothing is kept: by the settings, or as a network that is not a backbone.

    Args:
        shared: what runs have in common that meet the same images, so that each finds its records at the steps.
        provenance: the `provenance.*` entries of the result.
    """
    network, machine = teacher.network, settings.machine
    if not machine.teacher_cache_gib or machine.gpus > 1 or isinstance(network, LogitsOnly):
        return None

    def facts() -> list[object]:
        return [*shared, *identity(network, [teacher.scale, teacher.shift], provenance)]

    return TrainingOutputs(folder, facts, int(machine.teacher_cache_gib * 2**30))


def _checksum_of(images: Tensor) -> bytes:
    """Of the values of images, and all of a step that changes what a network makes of them: layout and precision."""
    kind = images.device.type
    state = (
        *(images.dtype, tuple(images.shape), images.stride(), torch.is_autocast_enabled(kind)),
        *(torch.get_autocast_dtype(kind), torch.get_num_threads()),
    )
    sum_ = hashlib.blake2b(repr(state).encode(), digest_size=_SUM)
    sum_.update(images.contiguous().numpy().data)
    return sum_.digest()
