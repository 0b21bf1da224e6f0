"""Images that really pass through the networks in training, counted where they pass, whatever a method declares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kdbench.errors import RunError
from kdbench.method import Method
from kdbench.run.group import Group


class Passes:
    """Counts of this rank.

    Args:
        method: its student, peers and teachers are watched.
        group: the ranks of the run.

    Attributes:
        student, peers, teachers: images so far.
    """

    def __init__(self, method: Method, group: Group):
        self._method, self._group = method, group
        self.student = self.peers = self.teachers = 0
        self._last = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the passes inside the block."""
        before = self._passed()
        yield
        student, peers, teachers = (now - then for now, then in zip(self._passed(), before, strict=True))
        self._last = student
        self.student += student
        self.peers += peers
        self.teachers += teachers

    def check(self, anchors: int, declared: int) -> None:
        """Raise if the student saw another number of images in the last block than the method declares.

        Args:
            anchors: of this rank.
            declared: images for each anchor.

        Raises:
            RunError: the counts differ.
        """
        if self._last == anchors * declared:
            return
        name = type(self._method).__name__
        raise RunError(
            f"{name} declares {declared} image{'s' * (declared != 1)} through the student for each anchor, but "
            f"{self._last / anchors:g} pass through it; set {name}.passes to what it does"
        )

    def totals(self) -> dict[str, int]:
        """`passes.student`, `passes.peers` and `passes.teachers` over all ranks. Collective."""
        counts = torch.tensor([self.student, self.peers, self.teachers], device=self._group.device)
        names = ("passes.student", "passes.peers", "passes.teachers")
        return dict(zip(names, self._group.sum(counts).tolist(), strict=True))

    def restore(self, totals: dict[str, int]) -> None:
        """Take up the totals of a state: the first rank has those of all."""
        self.student, self.peers, self.teachers = (
            totals[f"passes.{name}"] if self._group.first else 0 for name in ("student", "peers", "teachers")
        )

    def _passed(self) -> tuple[int, int, int]:
        student, *peers = self._method.networks()
        teachers = [teacher.network for teacher in self._method.teachers]
        return student.images_passed, sum(p.images_passed for p in peers), sum(t.images_passed for t in teachers)
