"""Two images for each anchor, through the student in two passes: cs_kd."""

import torch
from torch import nn

from kdbench.streams import Streams


def test_each_anchor_has_a_partner_of_its_class(make):
    method = make("cs_kd")
    anchors, labels = torch.arange(24), method.info.train_labels
    index = method.sample(anchors, Streams(0))
    first, partners = index.chunk(2)
    assert torch.equal(first, anchors)
    assert torch.equal(labels[partners], labels[anchors])
    assert (partners != anchors).all()
    assert not torch.equal(index, method.sample(anchors, Streams(1)))


def test_anchors_and_partners_are_normalised_apart(make, batch):
    """Both passes move the running statistics, and only the anchors' has a gradient."""
    method = make("cs_kd")
    one = batch(method)
    seen = []
    method.student.fc.register_forward_hook(lambda _module, _inputs, out: seen.append(out.requires_grad))
    method.losses(one)
    assert seen == [True, False]
    counts = [m.num_batches_tracked.item() for m in method.student.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(counts) == {2}


def test_the_partners_count_against_the_budget(run_all, tmp_path):
    pairs, plain = (run_all(tmp_path, f"methods={name}")[-1] for name in ("cs_kd", "ce"))
    assert pairs["passes.student"] == pairs["images_seen"] == plain["images_seen"]
