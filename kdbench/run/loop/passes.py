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
        teachers_read: images whose outputs of a teacher were read from a file; only a single process reads some.
    """

    def __init__(self, method: Method, group: Group):
        self._method, self._group = method, group
        self.student = self.peers = self.teachers = self._read_before = 0
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
        """`passes.student`, `.peers` and `.teachers` over all ranks; `.teachers_read` where there are some. Collective."""
        counts = torch.tensor([self.student, self.peers, self.teachers], device=self._group.device)
        names = ("passes.student", "passes.peers", "passes.teachers")
        read = {"passes.teachers_read": self.teachers_read} if self.teachers_read else {}
        return {**dict(zip(names, self._group.sum(counts).tolist(), strict=True)), **read}

    @property
    def teachers_read(self) -> int:
        return self._read_before + sum(t.kept.images_read for t in self._method.teachers if t.kept is not None)

    def restore(self, totals: dict[str, int]) -> None:
        """Take up the totals of a state: the first rank has those of all."""
        self.student, self.peers, self.teachers = (
            totals[f"passes.{name}"] if self._group.first else 0 for name in ("student", "peers", "teachers")
        )
        self._read_before = totals.get("passes.teachers_read", 0)

    def _passed(self) -> tuple[int, int, int]:
        student, *peers = self._method.networks()
        teachers = [teacher.network for teacher in self._method.teachers]
        return student.images_passed, sum(p.images_passed for p in peers), sum(t.images_passed for t in teachers)
