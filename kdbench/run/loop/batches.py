"""The batches of a run: the anchors of the seed, and what the method samples around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kdbench.config.settings import Dataset
from kdbench.data import mix
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
        images, labels, mine = _views(method, task, augmenter, share, index, (draws, *others))
        mixing = mix.draw(augmenter.mix, len(index), task.image_shape[1:], streams.within("step", step))
        if mixing:
            order = mixing.partner
            partners = _views(
                method, task, augmenter, share, index[order], [each.pick(order) for each in (draws, *others)]
            )
            images = mixing.images(images, partners[0])
            labels = mixing.labels(labels, partners[1], task.classes)
        yield Batch(
            images, labels, mine, step, own, share,
            epoch=budget.epoch_of(step), progress=step / budget.steps,
            phase_progress=budget.stretch(step).progress(step), view_count=len(method.views),
        )  # fmt: skip


def _views(
    method: Method, task: Task, augmenter: Augmenter, share: Share, index: Tensor, draws: Sequence[Draws]
) -> tuple[Tensor, Tensor, Tensor]:
    """This share's images in all views, their labels and their places, from the places and draws of the whole batch."""
    index = share.own(index).to(task.train.labels.device, non_blocking=True)
    images = augmenter.views(index, [each.map(share.own) for each in draws], method.views)
    index = index.repeat(len(method.views))
    return images, task.train.labels[index], index


def unaugmented(task: Task, dataset: Dataset, streams: Streams) -> Iterator[Batch]:
    """All training images once, in order and not augmented; the same on every rank."""
    own = streams.within("method", "prepare")
    for index in torch.arange(len(task.train), device=task.train.labels.device).split(UNAUGMENTED):
        images = normalise(task.train.take(index), dataset)
        yield Batch(images, task.train.labels[index], index, 0, own)
