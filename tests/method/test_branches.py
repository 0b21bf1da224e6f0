"""Copies of the last stage, and the weight that rises: what online methods share."""

import math

import pytest
import torch
from torch import nn

from kdbench.backbones import registry
from kdbench.errors import RunError
from kdbench.method import distillation
from kdbench.method.branches import floored_distillation, fork, last_stage, ramp_up


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vit_tiny"])
def test_branches_read_the_map_before_the_last_stage(name):
    student = registry.build(name, 4, 1).eval()
    branches = nn.ModuleList(student.fresh_stages(last_stage("one", student)) for _ in range(2)).eval()
    images = torch.randn(3, 1, 8, 8)
    own, *others = fork(student, branches, images)
    assert student.images_passed == 3
    expected = student(images, features=True)
    assert torch.equal(own.logits, expected.logits)
    for branch, out in zip(branches, others, strict=True):
        assert torch.equal(out.logits, branch(expected.stages[-2]).logits)
        assert out.stages[-1].shape == own.stages[-1].shape
        assert len(out.stages) == 1
    assert not torch.equal(others[0].logits, others[1].logits)


def test_a_student_of_one_stage_is_refused():
    class One(nn.Module):
        def stage_modules(self):
            return (nn.Identity(),)

    with pytest.raises(RunError, match=r"^one needs a student with at least two stages; this one has 1$"):
        last_stage("one", One())


def test_the_weight_rises_to_one_and_stays():
    assert ramp_up(0.0, 0.25) == pytest.approx(math.exp(-5))
    assert ramp_up(0.125, 0.25) == pytest.approx(math.exp(-1.25))
    assert ramp_up(0.25, 0.25) == ramp_up(0.9, 0.25) == 1
    assert ramp_up(0.0, 0.0) == 1


def test_a_floor_is_added_to_the_targets_probabilities():
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    assert torch.equal(floored_distillation(z, t, 3.0, 0.0), distillation(z, t, 3.0))
    q, p = (t / 3).softmax(dim=1) + 0.1, (z / 3).softmax(dim=1)
    expected = 9 * (q * (q / p).log()).sum() / 4
    torch.testing.assert_close(floored_distillation(z, t, 3.0, 0.1), expected)
