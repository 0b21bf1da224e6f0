import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.backbones.registry import build
from kdbench.errors import RunError
from kdbench.method.rotations import joint_labels
from kdbench.methods.hsakd_teacher import block_count, joint_classifiers, joint_logits


def blocks(logits):
    """In the cases the four rotations of an image follow one another; here the images of one rotation do."""
    return logits.unflatten(-2, (-1, 4)).transpose(-3, -2).flatten(-3, -2)


def test_the_loss_is_the_reference(reference):
    case = reference("hsakd_teacher")
    labels = case.fixed["labels"]
    joint = blocks(case.student["auxiliary_logits"])
    own = blocks(case.student["logits"])[: len(labels)]
    case.check(F.cross_entropy(own, labels) + sum(F.cross_entropy(q, joint_labels(labels)) for q in joint))


def test_terms_add_up_to_the_definition(make, batch):
    method = make("hsakd_teacher", joint_weight=0.5).eval()
    one = batch(method)
    turned = [method.student(one.images.rot90(turns, dims=(2, 3)), features=True) for turns in range(4)]
    of_each = [
        F.cross_entropy(classifier(out.stages[stage]).logits, 4 * one.labels + turns).item()
        for turns, out in enumerate(turned)
        for stage, classifier in enumerate(method.classifiers)
    ]
    assert len(of_each) == 4 * 3
    expected = {"ce": F.cross_entropy(turned[0].logits, one.labels).item(), "joint_ce": 0.5 * sum(of_each) / 4}
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("student", ["resnet8", "four_stages", "vgg8", "wrn_16_1", "mobilenetv2", "vit_tiny"])
def test_there_is_a_classifier_of_four_times_the_classes_after_each_stage(make, batch, student):
    method = make("hsakd_teacher", student=student, image=(3, 32, 32)).eval()
    stages = method.student(batch(method, anchors=2).images, features=True).stages
    assert [tuple(q.shape) for q in joint_logits(method.classifiers, stages)] == [(2, 16)] * len(stages)
    assert {p.data_ptr() for p in method.classifiers.parameters()}.isdisjoint(
        p.data_ptr() for p in method.student.parameters()
    )


@pytest.mark.parametrize(("name", "millions"), [("wrn_16_2", 1.93), ("resnet20", 0.76), ("resnet32x4", 18.9)])
def test_classifiers_are_as_large_as_the_authors(name, millions):
    network = build(name, 100, 3)
    width = network.stage_shapes((3, 32, 32))[-1][0]
    size = sum(p.numel() for p in joint_classifiers(network, width, 100).parameters())
    assert size / 1e6 == pytest.approx(millions, rel=0.01)


def test_blocks_of_a_stage_are_counted_where_they_are_equal():
    three = nn.Sequential(*(nn.Linear(1, 1) for _ in range(3)))
    assert block_count(three) == block_count(nn.Sequential(three)) == 3
    assert block_count(nn.Sequential(nn.Linear(1, 1), nn.ReLU())) == 2
    assert block_count(nn.Identity()) == 2


def test_the_student_alone_is_kept(make):
    method = make("hsakd_teacher")
    assert method.deployed() is method.student
    assert not method.exits(torch.zeros(1, 1, 8, 8))


def test_images_that_cannot_be_rotated_are_refused(make):
    with pytest.raises(RunError, match="hsakd_teacher needs square images"):
        make("hsakd_teacher", image=(1, 8, 10))
