"""Writes a student in the format that the name of a file asks for, and compares what was written with torch's outputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.errors import RunError, UserError, unknown
from kdbench.precision import full_precision
from kdbench.run import student_file
from kdbench.run.student_file import Student
from kdbench.weights import programs

TOLERANCE = 1e-4
"""The largest difference that is accepted, relative to the largest absolute logit."""

IMAGES = 5
"""Random images that are compared, in one batch and the first one alone."""


class Format(NamedTuple):
    """A format of files.

    Attributes:
        name: for sentences.
        write: writes a student.
        run: the network in such a file: pixels (B, C, H, W) in 0..1 to logits (B, K).
    """

    name: str
    write: Callable[[Student, Path], None]
    run: Callable[[Path], Callable[[Tensor], Tensor]]


FORMATS: Mapping[str, Format] = {
    ".safetensors": Format("safetensors", student_file.write, lambda path: student_file.read(path).on_pixels()),
    ".onnx": Format("ONNX", programs.write_onnx, programs.run_onnx),
    ".pt2": Format("torch.export", programs.write_exported, programs.run_exported),
}
"""The formats by the ends of names."""


class Agreement(NamedTuple):
    """How a file's outputs compare with torch's.

    Attributes:
        largest: the largest absolute difference of a logit.
        relative: the same, relative to the largest absolute logit.
    """

    largest: float
    relative: float


def check_target(to: Path, force: bool) -> Path:
    """The file to write, refused before anything is loaded.

    Raises:
        UserError: its name does not end as a format's, or it exists and `force` is false.
    """
    if to.suffix not in FORMATS:
        raise unknown("format", to.suffix or to.name, FORMATS)
    return check_new(to, force)


def check_new(to: Path, force: bool) -> Path:
    """A file that may be written.

    Raises:
        UserError: it is a folder, or exists and `force` is false.
    """
    if to.is_dir():
        raise UserError(f"{to} is a folder; name a file in it")
    if to.exists() and not force:
        raise UserError(f"{to} exists; pass --force to overwrite it")
    return to


def write(student: Student, to: Path) -> Agreement:
    """Write a student, read it back, and compare its outputs on random images.

    Raises:
        UserError: a package is missing, or the format cannot hold this student.
        RunError: torch cannot export the network, or the outputs differ by more than `TOLERANCE`; no file is left then.
    """
    form = FORMATS[to.suffix]
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.stem[:100]}.", dir=to.parent) as folder:
        new = Path(folder, to.name)
        try:
            form.write(student, new)
            outputs = form.run(new)
            agreement = compare(student, outputs)
        except (UserError, RunError, OSError, MemoryError):
            raise
        except Exception as error:  # of the exporters, which raise anything about a network that they cannot express
            raise RunError(f"{student.facts.student} cannot be written as {form.name}: {_first_line(error)}") from error
        if not agreement.relative <= TOLERANCE:
            raise RunError(
                f"the outputs of {to.name} differ from torch's by {agreement.largest:.2g} ({agreement.relative:.2g} of the "
                f"largest logit, more than {TOLERANCE:g}), so it was not written"
            )
        os.replace(new, to)
    return agreement


@torch.no_grad()
def compare(student: Student, outputs: Callable[[Tensor], Tensor]) -> Agreement:
    """Compare a network's outputs with a student's on `IMAGES` random images, together and the first alone.

    Args:
        outputs: pixels (B, C, H, W) in 0..1 to logits (B, K).
    """
    images = torch.rand(IMAGES, *student.facts.image_shape, generator=torch.Generator().manual_seed(0))
    ours = student.on_pixels()
    largest = scale = 0.0
    with full_precision(images.device):
        for batch in (images, images[:1]):
            theirs, logits = outputs(batch), ours(batch)
            if theirs.shape != logits.shape:
                return Agreement(float("inf"), float("inf"))
            # Not max() of Python, which drops a nan.
            largest = float(torch.tensor([largest, (theirs - logits).abs().max().item()]).max())
            scale = max(scale, logits.abs().max().item())
    return Agreement(largest, largest / scale if scale else largest)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
