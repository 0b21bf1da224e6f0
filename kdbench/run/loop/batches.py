"""The batches of a run: the anchors of the seed, and what the method samples around them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.config.settings import Dataset
from kdbench.data import mix
from kdbench.data.anchors import Anchors
from kdbench.data.augment import Augmenter, Draws, normalise
from kdbench.data.images import Wanted
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.method import Batch, Method, Share
from kdbench.pinned import to_device
from kdbench.run.loop.budget import Budget
from kdbench.streams import Streams

UNAUGMENTED = 500
"""Images in a batch of the pass before training."""


def passes_per_anchor(method: type[Method] | Method) -> int:
    """Images that pass through the student for each anchor, as the method declares it."""
    return method.passes if method.passes is not None else method.images_per_anchor * len(method.views)


class _Drawn(NamedTuple):
    """What is drawn for a step, on the CPU.

    Attributes:
        places: (b,) of this share's images.
        draws: their augmentations, for each view.
        partners: the same for the images that they are mixed with.
    """

    step: int
    streams: Streams
    places: Tensor
    draws: tuple[Draws, ...]
    mixing: mix.Mixing | None = None
    partners: tuple[Tensor, tuple[Draws, ...]] | None = None


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
    ahead: deque[_Drawn] = deque()

    def wanted() -> Iterator[Wanted]:
        for drawn in _drawn(method, task, augmenter, streams, budget, first, share):
            ahead.append(drawn)
            yield augmenter.wanted(drawn.places, drawn.draws)
            if drawn.partners:
                yield augmenter.wanted(*drawn.partners)

    fetched = task.train.fetch(wanted())
    for pixels in fetched:  # may have asked for the images of some steps ahead
        step, own, index, draws, mixing, partners = ahead.popleft()
        images, labels, index = _views(method, task, augmenter, index, draws, pixels)
        if mixing and partners:
            theirs = _views(method, task, augmenter, *partners, next(fetched))
            images = mixing.images(images, theirs[0])
            labels = mixing.labels(labels, theirs[1], task.classes)
        yield Batch(
            images, labels, index, step, own, share,
            epoch=budget.epoch_of(step), progress=step / budget.steps,
            phase_progress=budget.stretch(step).progress(step), view_count=len(method.views),
        )  # fmt: skip


def _drawn(
    method: Method, task: Task, augmenter: Augmenter, streams: Streams, budget: Budget, first: int, share: Share
) -> Iterator[_Drawn]:
    last = max(first - 1, 0)
    anchors = Anchors(len(task.train), augmenter, streams, position=last * budget.anchors, kind=method.views[0])
    before = anchors.take(budget.anchors)[0] if first else None
    for step in range(first, budget.steps):
        own = streams.within("method", step)
        places, draws = anchors.take(budget.anchors)
        index = _sampled(method, before, places, own, is_ahead=not task.train.in_memory)
        before = places
        if len(index) != budget.anchors * method.images_per_anchor or not torch.equal(index[: len(places)], places):
            raise RunError(f"{type(method).__name__}.sample must return its anchors, then the images around them")
        if len(index) > len(places):
            extra = augmenter.draw(len(index) - len(places), streams("augment around", step), method.views[0])
            draws = Draws.join([draws, extra])
        others = [
            augmenter.draw(len(index), streams("augment view", view, step), kind)
            for view, kind in enumerate(method.views[1:], start=1)
        ]
        every = draws, *others
        mixing = mix.draw(augmenter.mix, len(index), task.image_shape[1:], streams.within("step", step))
        partners = None
        if mixing:
            order = mixing.partner
            partners = share.own(index[order]), tuple(each.pick(order).map(share.own) for each in every)
        yield _Drawn(step, own, share.own(index), tuple(each.map(share.own) for each in every), mixing, partners)


def _sampled(method: Method, before: Tensor | None, places: Tensor, own: Streams, is_ahead: bool) -> Tensor:
    """The images of a step.

    Args:
        before: anchors of the step before.
        is_ahead: the steps before it may not be done yet, so that global generators are in another state than they will be.

    Raises:
        RunError: the method draws from torch's global generator in spite of that.
    """
    state = torch.get_rng_state() if is_ahead else None
    index = method.sample_after(before, places, own)
    if state is not None and not torch.equal(torch.get_rng_state(), state):
        raise RunError(
            f"{type(method).__name__}.sample draws from torch's global generator, which streamed images do not allow: "
            "draw from its streams, or pass Machine.images=memory"
        )
    return index


def _views(
    method: Method, task: Task, augmenter: Augmenter, index: Tensor, draws: Sequence[Draws], fetched: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Images in all views, their labels and their places, from the places and draws of one."""
    index = to_device(index, task.train.labels.device)
    images = augmenter.views(index, draws, method.views, fetched)
    index = index.repeat(len(method.views))
    return images, task.train.labels[index], index


def unaugmented(task: Task, dataset: Dataset, streams: Streams) -> Iterator[Batch]:
    """All training images once, in order and not augmented; the same on every rank."""
    own = streams.within("method", "prepare")
    places = torch.arange(len(task.train), device=task.train.labels.device).split(UNAUGMENTED)
    for index, pixels in zip(places, task.train.batches(UNAUGMENTED), strict=True):
        yield Batch(normalise(pixels, dataset), task.train.labels[index], index, 0, own)
