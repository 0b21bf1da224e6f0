import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.method.mixing import box, drawn_share, left_over, partners_of
from kdbench.methods.cutmix import pasted
from kdbench.methods.mixup import mixed_cross_entropy
from kdbench.streams import Streams


def test_the_box_and_the_loss_are_the_reference(reference):
    case = reference("cutmix")
    p, parts, size = case.params, case.entry["parts"], (case.params["height"], case.params["width"])
    centre = p["centre_first_axis"] / size[0], p["centre_second_axis"] / size[1]
    part = box(size, p["lam_drawn"], centre)
    assert part == tuple(parts[f"{axis}_axis_{end}"] for axis in ("first", "second") for end in ("from", "to"))
    share = left_over(size, part)
    assert share == parts["lam_adjusted"]
    labels = case.fixed["labels"]
    case.check(mixed_cross_entropy(case.student["logits"], labels, labels[case.fixed["index"]], share))


def test_the_part_alone_is_the_partners():
    white, black = torch.ones(2, 1, 4, 6), torch.zeros(2, 1, 4, 6)
    images = pasted(white, black, (1, 3, 2, 6))
    assert images[0, 0].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1] * 6]
    assert images.mean().item() == pytest.approx(left_over((4, 6), (1, 3, 2, 6)))
    assert white.all()


def at(one, step):
    return dataclasses.replace(one, streams=Streams(0).within(step))


def test_a_batch_is_mixed_or_left_alone(make, batch):
    method = make("cutmix", probability=0.5, label_smoothing=0.1).eval()
    one = batch(method)
    plain = F.cross_entropy(method.student(one.images), one.labels, label_smoothing=0.1).item()
    alone = 0
    for step in range(40):
        each = at(one, step)
        chance, y, x = torch.rand(3, generator=each.streams("box"), dtype=torch.float64).tolist()
        expected = plain
        if chance < 0.5:
            images, labels = partners_of(each, each.images, each.labels)
            part = box((8, 8), drawn_share(each, 1.0), (y, x))
            logits = method.student(pasted(each.images, images, part))
            expected = mixed_cross_entropy(logits, each.labels, labels, left_over((8, 8), part), 0.1).item()
        alone += expected == plain
        assert method.losses(each)["ce"].item() == pytest.approx(expected, rel=1e-5)
    assert 10 <= alone <= 32


@pytest.mark.parametrize(("probability", "alike"), [(0.0, True), (1.0, False)])
def test_chances_of_none_and_of_all(make, batch, probability, alike):
    method = make("cutmix", probability=probability).eval()
    one = batch(method)
    plain = F.cross_entropy(method.student(one.images), one.labels).item()
    values = np.array([method.losses(at(one, step))["ce"].item() for step in range(10)])
    assert np.isclose(values, plain, rtol=1e-6).all() == alike


def test_a_probability_above_one_is_refused(make):
    with pytest.raises(RunError, match=r"CutMix\.probability=2 must be between 0 and 1"):
        make("cutmix", probability=2.0)
