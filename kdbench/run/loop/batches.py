"""The batches of a run: the anchors of the seed, and what the method samples around them."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kdbench.config.settings import Dataset
from kdbench.data.anchors import Anchors
from kdbench.data.augment import Augmenter, Draws, normalise
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.method import Batch, Method, Share
from kdbench.run.loop.budget import Budget
from kdbench.streams import Streams

UNAUGMENTED = 500
"""Images in a batch of the pass before training."""


def passes_per_anchor(method: type[Method] | Method) -> int:
    """Images that pass through the student for each anchor, as the method declares it."""
    return method.passes if method.passes is not None else method.images_per_anchor * len(method.views)


def steps(
    method: Method,
    task: Task,
    augmenter: Augmenter,
    streams: Streams,
    budget: Budget,
    first: int = 0,
    share: Share | None = None,
) -> Iterator[Batch]:
    """The batches of a run, from step `first` on.

    Args:
        share: what of each batch is wanted, all of it by default; all of it is drawn in any case.
    """
    share = share or Share()
    device = task.train.labels.device
    anchors = Anchors(len(task.train), augmenter, streams, position=first * budget.anchors, kind=method.views[0])
    for step in range(first, budget.steps):
        own = streams.within("method", step)
        places, draws = anchors.take(budget.anchors)
        index = method.sample(places, own)
        if len(index) != budget.anchors * method.images_per_anchor or not torch.equal(index[: len(places)], places):
            raise RunError(f"{type(method).__name__}.sample must return its anchors, then the images around them")
        if len(index) > len(places):
            extra = augmenter.draw(len(index) - len(places), streams("augment around", step), method.views[0])
            draws = Draws.join([draws, extra])
        others = [
            augmenter.draw(len(index), streams("augment view", view, step), kind)
            for view, kind in enumerate(method.views[1:], start=1)
        ]
        index = share.own(index).to(device, non_blocking=True)
        images = augmenter.views(index, [each.map(share.own) for each in (draws, *others)], method.views)
        index = index.repeat(len(method.views))
        yield Batch(
            images, task.train.labels[index], index, step, own, share,
            epoch=budget.epoch_of(step), progress=step / budget.steps,
            phase_progress=budget.stretch(step).progress(step), view_count=len(method.views),
        )  # fmt: skip


def unaugmented(task: Task, dataset: Dataset, streams: Streams) -> Iterator[Batch]:
    """All training images once, in order and not augmented; the same on every rank."""
    own = streams.within("method", "prepare")
    for index in torch.arange(len(task.train), device=task.train.labels.device).split(UNAUGMENTED):
        images = normalise(task.train.take(index), dataset)
        yield Batch(images, task.train.labels[index], index, 0, own)
