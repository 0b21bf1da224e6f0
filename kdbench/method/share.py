"""The part of a step's batch that one process holds, and access to the rest."""

from __future__ import annotations

from torch import Tensor


class Share:
    """One rank's part of a step's batch. Here the whole batch, in a single process: functions return their argument.

    A batch of A anchors with J images each, in V views, is made of J · V blocks of A rows: row i of every block belongs to
    anchor i. A rank has a run of anchors, and of every block the rows that belong to them, in the same order.

    Attributes:
        weight: this rank's part of the images; the loop takes the mean over ranks with these weights.
    """

    weight: float = 1.0

    def own(self, whole: Tensor) -> Tensor:
        """This rank's rows (b, …) of a tensor of the whole batch (B, …)."""
        return whole

    def gather(self, x: Tensor) -> Tensor:
        """The whole batch's rows (B, …), from each rank's own (b, …), with gradient; any number of blocks.

        The gradient is exact where the loss is the loop's: every rank computes it from the rows of all, and counts with
        its weight. Collective: all ranks call it in the same order.
        """
        return x

    def mean(self, value: Tensor) -> Tensor:
        """The whole batch's mean from the means over each rank's images, without gradient. Collective."""
        return value

    def summed(self, value: Tensor) -> Tensor:
        """A sum over this rank's images as a term: the loop's mean over ranks is then the sum over the whole batch."""
        return value

    def weighted(self, loss: Tensor) -> Tensor:
        """A rank's loss as it counts in the sum over ranks; for the loop."""
        return loss
