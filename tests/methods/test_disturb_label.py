import dataclasses

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, Share
from kdbench.methods.disturb_label import disturbed
from kdbench.streams import Streams


def test_each_class_has_its_probability():
    labels = torch.full((40000,), 2)
    made = disturbed(labels, 0.4, 5, torch.Generator().manual_seed(0))
    shares = (made.bincount(minlength=5) / len(made)).tolist()
    assert shares == pytest.approx([0.08, 0.08, 1 - 0.4 * 4 / 5, 0.08, 0.08], abs=0.01)


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 1.0), (1.0, 0.25)])
def test_none_and_all(rate, kept):
    labels = torch.arange(4).repeat(2000)
    made = disturbed(labels, rate, 4, torch.Generator().manual_seed(1))
    assert (made == labels).float().mean().item() == pytest.approx(kept, abs=0.03)


def test_the_term_is_the_cross_entropy_with_labels_of_the_step(make, batch):
    method = make("disturb_label", rate=0.5, label_smoothing=0.1).eval()
    one = batch(method)
    logits, seen = method.student(one.images), set()
    for step in range(5):
        each = dataclasses.replace(one, streams=Streams(0).within(step))
        labels = disturbed(one.labels, 0.5, 4, each.streams("labels", device="cpu"))
        seen.add(tuple(labels.tolist()))
        expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
        assert method.losses(each)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert len(seen) == 5


def test_a_rank_has_its_part_of_the_whole_batchs_labels(make, batch):
    class Half(Share):
        def gather(self, x):
            return torch.cat([x, x])

        def own(self, whole):
            return whole[len(whole) // 2 :]

    method = make("disturb_label", rate=0.5).eval()
    one = dataclasses.replace(batch(method), share=Half())
    labels = disturbed(one.labels.repeat(2), 0.5, 4, one.streams("labels", device="cpu"))[6:]
    expected = F.cross_entropy(method.student(one.images), labels)
    assert method.losses(one)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_rate_above_one_is_refused(make):
    with pytest.raises(RunError, match=r"DisturbLabel\.rate=20 must be between 0 and 1"):
        make("disturb_label", rate=20.0)
