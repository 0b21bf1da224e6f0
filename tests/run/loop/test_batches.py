"""The batches of a run: its anchors, and what a method samples around them."""

import pytest
import torch

from kdbench.data.augment import Augmenter, normalise
from kdbench.errors import RunError
from kdbench.method import Method
from kdbench.run.loop.batches import passes_per_anchor, steps, unaugmented
from kdbench.run.loop.budget import Budget
from kdbench.streams import Streams


def test_a_structured_sampler_meets_the_same_anchors_in_the_same_order(small, tmp_path):
    plain, _ = small.trained(tmp_path / "a", small.Plain, epochs=4)
    pairs, outcome = small.trained(tmp_path / "b", small.Pairs, epochs=4)
    anchors = torch.cat([index[: len(index) // 2] for index in pairs.seen])
    assert torch.equal(anchors, torch.cat(plain.seen)[: len(anchors)])
    assert outcome.images_seen == 2 * len(anchors)


def test_batches_from_the_middle_are_those_of_the_whole(small):
    its_task = small.task()
    made = small.built(small.Pairs, its_task)
    augmenter = Augmenter(its_task.train, small.AUGMENT, small.DIGITS)
    budget = Budget(small.recipe(), len(its_task.train), 2)
    whole = list(steps(made, its_task, augmenter, Streams(0), budget))
    rest = list(steps(made, its_task, augmenter, Streams(0), budget, first=5))
    assert [b.step for b in rest] == list(range(5, budget.steps))
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[5:], rest, strict=True))


def test_a_sampler_is_given_the_anchors_of_the_step_before_also_behind_a_resume(small):
    class Again(small.Pairs):
        def sample_after(self, before, anchors, streams):
            return torch.cat([anchors, anchors if before is None else before])

    its_task = small.task()
    _, batches = drawn(small, Again, its_task)
    anchors, others = zip(*(batch.index.chunk(2) for batch in batches), strict=True)
    assert all(map(torch.equal, others, (anchors[0], *anchors[:-1])))
    _, rest = drawn(small, Again, its_task, first=5)
    assert all(torch.equal(a.images, b.images) for a, b in zip(batches[5:], rest, strict=True))


def test_a_sampler_that_loses_its_anchors_is_an_error(small, tmp_path):
    class Lost(small.Pairs):
        def sample(self, anchors, streams):
            return super().sample(anchors, streams).flip(0)

    with pytest.raises(RunError, match="must return its anchors"):
        small.trained(tmp_path, Lost)


def drawn(small, cls, its_task, first=0, **changed):
    made = small.built(cls, its_task)
    augmenter = Augmenter(its_task.train, small.AUGMENT, small.DIGITS)
    budget = Budget(small.recipe(**changed), len(its_task.train), passes_per_anchor(made), phases=made.phases())
    return budget, list(steps(made, its_task, augmenter, Streams(0), budget, first))


def test_batches_hold_the_labels_and_places_of_their_images(small):
    its_task = small.task()
    budget, batches = drawn(small, small.Pairs, its_task)
    assert [batch.step for batch in batches] == list(range(budget.steps))
    for batch in batches:
        assert torch.equal(batch.labels, its_task.train.labels[batch.index])
        assert batch.images.shape == (16, 1, 8, 8)
        anchors, others = batch.index.chunk(2)
        assert torch.equal(others, (anchors + 1) % 72)


def test_epoch_and_progress_go_by_images(small):
    budget, batches = drawn(small, small.Pairs, small.task(), epochs=4)
    assert [b.epoch for b in batches] == [b.step * 16 // 72 + 1 for b in batches]
    assert [b.progress for b in batches] == [b.step / budget.steps for b in batches]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, 1),
        ({"images_per_anchor": 3}, 3),
        ({"views": ("recipe", "recipe")}, 2),
        ({"images_per_anchor": 3, "views": ("recipe", "recipe")}, 6),
        ({"images_per_anchor": 2, "passes": 4}, 4),
    ],
)
def test_a_method_passes_what_is_in_its_batch_unless_it_declares_another_number(attributes, expected):
    assert passes_per_anchor(type("Declared", (Method,), attributes)) == expected


def test_a_method_of_several_passes_gets_fewer_images_a_step(small):
    declared = type("Four", (small.Plain,), {"passes": 4})
    budget, batches = drawn(small, declared, small.task())
    assert (budget.anchors, budget.per_step) == (4, 16)
    assert all(len(batch.images) == 4 for batch in batches)


def test_the_pass_before_training_shows_every_image_once_as_it_is(small):
    its_task = small.task()
    batches = list(unaugmented(its_task, small.DIGITS, Streams(0)))
    index = torch.cat([batch.index for batch in batches])
    assert torch.equal(index, torch.arange(72))
    assert torch.equal(torch.cat([b.labels for b in batches]), its_task.train.labels)
    assert torch.equal(torch.cat([b.images for b in batches]), normalise(its_task.train.images, small.DIGITS))
