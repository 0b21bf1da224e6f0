"""Gradient accumulation: the batch of a step in parts, one after another, where it does not fit into memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from kdbench.errors import RunError
from kdbench.method import Batch, Method, Share, Update


class Portion(Share):
    """A part of a batch that a method sees as a batch of its own: there are no other images, and draws are its own.

    Args:
        of_whole: its share of the images; those of all portions add up to 1.
    """

    def __init__(self, of_whole: float):
        self.of_whole = of_whole

    def summed(self, value: Tensor) -> Tensor:
        return value / self.of_whole


def portions(batch: Batch, anchors: int, count: int) -> Iterator[Batch]:
    """A batch cut by its anchors into `count` parts that differ in size by at most one anchor; itself for a count of 1.

    Each has its anchors' images in all blocks (`Share` describes them), and random streams of its own.

    Args:
        anchors: number of anchors of the batch.

    Raises:
        RunError: there are fewer anchors than parts.
    """
    if count == 1:
        yield batch
        return
    if anchors < count:
        raise RunError(f"Train.accumulate={count} is more than the {anchors} anchors of a step")
    for number in range(count):
        own = slice(number * anchors // count, (number + 1) * anchors // count)
        images, labels, index = (
            x.unflatten(0, (-1, anchors))[:, own].flatten(0, 1) for x in (batch.images, batch.labels, batch.index)
        )
        yield replace(
            batch,
            images=images.contiguous(memory_format=torch.channels_last),
            labels=labels,
            index=index,
            streams=batch.streams.within("portion", number),
            share=Portion((own.stop - own.start) / anchors),
        )


def update_in_portions(
    method: Method, update: Update, parts: Iterator[Batch], losses: Callable[[Batch], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The default update, with the gradient of each part's losses added to those before it.

    The loss of the step, and each of its terms, is the mean of the parts' by their number of images.

    Args:
        parts: the batch in `portions`.
        losses: the terms of a batch, in the run's precision.

    Returns:
        The terms of the whole batch, without gradient.

    Raises:
        RunError: the method has an update of its own, which takes the terms of a whole batch.
    """
    if type(method).update is not Method.update:
        name = type(method).__name__
        raise RunError(
            f"Train.accumulate does not work with {name}, whose own update takes the losses of a whole batch"
        )
    totals: dict[str, Tensor] = {}

    def each() -> Iterator[Tensor]:
        for part in parts:
            assert isinstance(part.share, Portion)
            terms = {name: value * part.share.of_whole for name, value in losses(part).items()}
            for name, value in terms.items():
                totals[name] = totals[name] + value.detach() if name in totals else value.detach()
            yield update.total(terms)

    update.backward_each(each())
    update.loss = update.total(totals)
    update.step()
    return totals
