"""A student as a program that needs no kdbench: ONNX, and torch.export. Both take pixels and hold the normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from kdbench.errors import UserError
from kdbench.run.student_facts import METADATA
from kdbench.run.student_file import Student

INPUT, OUTPUT = "images", "logits"
"""Names of the input, pixels (B, C, H, W) in 0..1 as float32, and of the output (B, K) in ONNX."""


def write_onnx(student: Student, path: Path) -> None:
    """Write a student as ONNX, for batches of any size, with its facts as metadata.

    Raises:
        UserError: onnx, onnxruntime or onnxscript is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError(
                f"writing '{path.name}' needs the package {package}; install it with: pip install 'kdbench[onnx]'"
            )
    with _quietly():
        program = torch.onnx.export(
            student.on_pixels(), (_example(student),), dynamo=True, dynamic_shapes=_SHAPES,
            input_names=[INPUT], output_names=[OUTPUT], verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[METADATA] = student.facts.text()
    program.save(path)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """The network in a file of ONNX, on the CPU: pixels (B, C, H, W) to logits (B, K)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def write_exported(student: Student, path: Path) -> None:
    """Write a student as torch.export does, for batches of any size, with its facts as an extra file."""
    with _quietly():
        program = torch.export.export(student.on_pixels(), (_example(student),), dynamic_shapes=_SHAPES)
        torch.export.save(program, path, extra_files={METADATA: student.facts.text()})


def run_exported(path: Path) -> Callable[[Tensor], Tensor]:
    """The network in a file of torch.export: pixels (B, C, H, W) to logits (B, K)."""
    with _quietly():
        return torch.export.load(path).module()


_SHAPES = ({0: torch.export.Dim("batch")},)


def _example(student: Student) -> Tensor:
    return torch.zeros(2, *student.facts.image_shape)  # two images, because torch takes one for a constant


@contextmanager
def _quietly() -> Iterator[None]:
    """A block in which torch does not warn of what its own tools do."""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        yield
