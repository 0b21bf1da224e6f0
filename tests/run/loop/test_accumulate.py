"""The parts of a batch: whose gradient they give, which images they hold, and what they are refused for."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from kdbench.errors import RunError
from kdbench.method import Batch, Method, Share, Update
from kdbench.run.checkpoint import weights_sha256
from kdbench.run.loop.accumulate import portions, update_in_portions
from kdbench.streams import Streams


def batch_of(anchors: int, blocks: int) -> Batch:
    """Images whose value names their anchor and block: 10 · anchor + block."""
    names = torch.cat([10 * torch.arange(anchors) + block for block in range(blocks)])
    images = names.double()[:, None, None, None].expand(-1, 2, 3, 3).clone()
    return Batch(images, names % 3, names, 0, Streams(0).within("method", 0))


@pytest.mark.parametrize(("anchors", "blocks", "count"), [(8, 1, 4), (7, 3, 2), (5, 2, 5)])
def test_parts_keep_whole_groups_and_all_images(anchors, blocks, count):
    parts = list(portions(batch_of(anchors, blocks), anchors, count))
    assert sum(part.share.of_whole for part in parts) == pytest.approx(1)
    assert max(len(p.index) for p in parts) - min(len(p.index) for p in parts) <= blocks
    assert sorted(torch.cat([part.index for part in parts]).tolist()) == sorted(
        batch_of(anchors, blocks).index.tolist()
    )
    for part in parts:
        by_block = part.index.unflatten(0, (blocks, -1))
        assert torch.equal(by_block - torch.arange(blocks)[:, None], by_block[:1].expand(blocks, -1))
        assert torch.equal(part.images[:, 0, 0, 0].long(), part.index)
        assert torch.equal(part.labels, part.index % 3)
        assert torch.equal(part.share.own(part.share.gather(part.labels)), part.labels)
    draws = [torch.rand(1, generator=part.streams("noise")).item() for part in parts]
    assert len(set(draws)) == count, "parts draw other numbers"


class Means(Method):
    """Losses that are means over single images, and a sum over them."""

    def losses(self, batch):
        logits = self.student(batch.images)
        return {
            "ce": nn.functional.cross_entropy(logits, batch.labels),
            "norm": 0.1 * logits.square().mean(),
            "sum": batch.share.summed(0.01 * logits.exp().sum()),
        }


def method_in_float64(cls=Means):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 3)).double()
    return cls(student, [], None)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_gradient_of_parts_is_that_of_the_whole_batch(count):
    batch = batch_of(7, 2)
    batch = replace(batch, images=torch.randn(batch.images.shape, dtype=torch.float64))
    method = method_in_float64()
    parameters = list(method.parameters())
    update = Update(parameters, {}, Share(), lambda gradients: None, 0.0)
    whole = method.losses(batch)
    expected = update.gradient(update.total(whole))
    terms = update_in_portions(method, update, portions(batch, 7, count), method.losses)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert (parameter.grad - gradient).abs().max() < 1e-12
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in whole.items()}, rel=1e-12
    )
    assert update.loss.item() == pytest.approx(sum(value.item() for value in whole.values()), rel=1e-6)


class OwnUpdate(Means):
    def update(self, terms, update):
        update.backward(update.loss)


def test_a_method_with_an_update_of_its_own_is_refused():
    method = method_in_float64(OwnUpdate)
    update = Update(list(method.parameters()), {}, Share(), lambda gradients: None, 0.0)
    with pytest.raises(RunError, match="does not work with OwnUpdate, whose own update"):
        update_in_portions(method, update, portions(batch_of(4, 1), 4, 2), method.losses)


def test_more_parts_than_anchors_are_refused():
    with pytest.raises(RunError, match=r"Train\.accumulate=4 is more than the 3 anchors of a step"):
        next(portions(batch_of(3, 2), 3, 4))


def test_a_training_in_parts_counts_the_same_images_and_repeats_bit_for_bit(small, tmp_path):
    (first, outcome), (second, _) = (small.trained(tmp_path / n, small.Pairs, accumulate=3) for n in "ab")
    whole, whole_outcome = small.trained(tmp_path / "whole", small.Pairs)
    assert outcome.images_seen == whole_outcome.images_seen
    assert outcome.passes == whole_outcome.passes
    assert torch.equal(torch.cat(first.seen).sort().values, torch.cat(whole.seen).sort().values)
    assert weights_sha256(first.student.state_dict()) == weights_sha256(second.student.state_dict())
    assert weights_sha256(first.student.state_dict()) != weights_sha256(whole.student.state_dict())
