"""A row of numbers for each training image, such as its last logits: what a method remembers from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench.errors import RunError
from kdbench.method.batch import Batch

LIMIT_GIB = 8.0
"""Largest memory that is made unless a method names another limit."""


def last_of_each(index: Tensor) -> Tensor:
    """For each of `index` (B,) the last place in it with the same value, (B,)."""
    # argmax names no particular one of several equal maxima, so each place counts with its number.
    return ((index.unsqueeze(1) == index) * torch.arange(1, len(index) + 1, device=index.device)).argmax(dim=1)


class ImageMemory(nn.Module):
    """(N, width) values, zero at first, in the checkpoint of the run and equal on all GPUs.

    Args:
        images: N.
        width: numbers for each image, such as K.
        dtype: in which they are kept; `read` gives float32.
        place: "device", or "host" for a memory that the GPU has no room for.
        limit_gib: refuse a larger one.

    Raises:
        RunError: it is larger than the limit.
    """

    rows: Tensor

    def __init__(
        self,
        images: int,
        width: int,
        dtype: torch.dtype = torch.float32,
        place: Literal["device", "host"] = "device",
        limit_gib: float = LIMIT_GIB,
    ):
        super().__init__()
        self.place = place
        gib = images * width * dtype.itemsize / 2**30
        if gib > limit_gib:
            raise RunError(
                f"a memory of {images} × {width} numbers ({dtype}) takes {gib:.1f} GiB, more than its limit of "
                f"{limit_gib:g} GiB; take a smaller type or a higher limit"
            )
        self.register_buffer("rows", torch.zeros(images, width, dtype=dtype))

    def read(self, batch: Batch) -> Tensor:
        """(B, width) float32 on the device of the batch: the rows of its images."""
        return self.rows[batch.index.to(self.rows.device)].to(batch.index.device).float()

    @torch.no_grad()
    def write(self, batch: Batch, values: Tensor) -> None:
        """Keep `values` (B, width), a row for each image of the batch; of an image that is there twice, the last. Collective."""
        index, values = batch.share.gather(batch.index), batch.share.gather(values.detach())
        last = last_of_each(index)
        self.rows.index_copy_(0, index.to(self.rows.device), values[last].to(self.rows))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImageMemory:
        if self.place == "device":
            super()._apply(fn, recurse)
        return self  # it stays where it is, whatever device the method moves to
