"""The reference cases of losses, which the original implementations have returned."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "reference"


class Case:
    """One entry of tests/reference/losses*.json, as float64 tensors; `student` tensors carry gradient.

    A list of maps (`student_maps`, `maps`) is one tensor each (`student_map_1`, `map_1`, …).
    """

    def __init__(self, entry: dict):
        self.entry = entry
        self.params = entry["params"]
        self.student = {
            name: torch.tensor(value, dtype=torch.float64).requires_grad_()
            for name, value in self._apart(entry.get("student", {})).items()
        }
        integers = ("index", "contrast_index", "labels", "negative_labels")
        self.fixed = {
            name: torch.tensor(value, dtype=torch.int64 if name in integers else torch.float64)
            for name, value in self._apart(entry["fixed"]).items()
        }

    @staticmethod
    def _apart(inputs: dict) -> dict:
        named: dict = {}
        for name, value in inputs.items():
            several = f"_{name}".endswith("_maps")
            named |= {f"{name[:-1]}_{n}": each for n, each in enumerate(value, 1)} if several else {name: value}
        return named

    def maps(self, whose: str) -> list[Tensor]:
        """The "student" maps or the "teacher" maps, shallowest first."""
        inputs = self.student if whose == "student" else self.fixed
        return [value for name, value in sorted(inputs.items()) if name.startswith(f"{whose}_map_")]

    def check(self, loss: Tensor) -> None:
        """The loss, and the norms of its gradients, are those of the reference; 0 where the loss does not reach a tensor.

        With KDBENCH_PARITY=FILE the relative errors are appended to FILE as well (tests/reference/parity.csv).
        """
        gradients = torch.autograd.grad(loss, list(self.student.values()), materialize_grads=True)
        norms = [gradient.norm().item() for gradient in gradients]
        expected = self.entry.get("grad_norm", norms)
        if len(expected) > len(norms):  # a list of tensors of one shape is one tensor here, and has one norm for each
            norms = [part.norm().item() for one in gradients for part in one.reshape(-1, *one.shape[-2:])]
        if file := os.environ.get("KDBENCH_PARITY"):
            self._append(Path(file), _error([loss.item()], [self.entry["loss"]]), _error(norms, expected))
        assert loss.item() == pytest.approx(self.entry["loss"], rel=1e-6)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert norms == pytest.approx(expected, rel=1e-6)

    def _append(self, file: Path, of_loss: float, of_norms: float) -> None:
        new = not file.exists()
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
        with file.open("a", encoding="utf-8", newline="") as opened:
            lines = csv.writer(opened, lineterminator="\n")
            if new:
                lines.writerow(["case", "test file", "error of loss", "error of gradient norms"])
            lines.writerow([self.entry["case"], test, f"{of_loss:.1e}", f"{of_norms:.1e}"])


def _error(values: list[float], expected: list[float]) -> float:
    """Largest difference over the expected value; the difference itself where less than 1e-6 is expected, as of a loss of 0."""
    return max(
        abs(one - other) / (abs(other) if abs(other) > 1e-6 else 1.0)
        for one, other in zip(values, expected, strict=True)
    )


@pytest.fixture
def reference() -> Callable[[str], Case]:
    """The reference case of a name."""
    return lambda name: Case(_reference_entries()[name])


@cache
def _reference_entries() -> dict[str, dict]:
    files = sorted(FOLDER.glob("losses*.json"))
    return {entry["case"]: entry for file in files for entry in json.loads(file.read_text())}
