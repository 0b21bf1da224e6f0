from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import distillation
from kdbench.method.rotations import joint_labels
from kdbench.methods.sla_sd import aggregated


def test_the_loss_is_the_reference(reference):
    case = reference("sla_sd")
    labels = case.fixed["labels"]
    # There the four rotations of an image follow one another; here the images of one rotation do.
    joint, single = (
        case.student[name].unflatten(0, (-1, 4)).transpose(0, 1) for name in ("joint_logits", "single_logits")
    )
    joint, single = joint.flatten(0, 1), single[0]
    parts = {
        "ce_joint": F.cross_entropy(joint, joint_labels(labels)),
        "ce_single": F.cross_entropy(single, labels),
        "kl": distillation(single, aggregated(joint).detach(), case.params["temperature"]),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


def test_a_head_that_is_sure_of_the_class_in_every_rotation_is_sure_of_it_in_the_mean():
    joint = F.one_hot(joint_labels(torch.tensor([0, 3])), 16).float()
    assert torch.equal(aggregated(joint), F.one_hot(torch.tensor([0, 3]), 4).float())


def test_terms_add_up_to_the_definition(make, batch):
    method = make("sla_sd", joint_weight=0.5, kd_weight=0.25, temperature=2.0).eval()
    one = batch(method)
    turned = [method.student(one.images.rot90(turns, dims=(2, 3)), features=True) for turns in range(4)]
    joint = [method.joint(out.pooled) for out in turned]
    mean = sum(logits.unflatten(1, (4, 4))[:, :, turns] for turns, logits in enumerate(joint)) / 4
    of_rotation = [F.cross_entropy(logits, 4 * one.labels + turns).item() for turns, logits in enumerate(joint)]
    expected = {
        "ce": F.cross_entropy(turned[0].logits, one.labels).item(),
        "joint_ce": 0.5 * sum(of_rotation) / 4,
        "kd": 0.25 * distillation(turned[0].logits, mean, 2.0).item(),
    }
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)


def test_the_classifier_learns_from_the_unrotated_image_alone(make, batch):
    method = make("sla_sd")
    one = batch(method)
    outputs = []
    method.student.register_forward_hook(
        lambda module, given, out: outputs.append(out.logits) or out.logits.retain_grad()
    )
    sum(method.losses(one).values()).backward()
    gradient = outputs[0].grad.unflatten(0, (4, -1))
    assert gradient[0].abs().max() > 0
    assert not gradient[1:].any()


def test_the_joint_head_is_not_taught_by_the_classifier(make, batch):
    method = make("sla_sd")
    terms = method.losses(batch(method))
    assert torch.autograd.grad(terms["kd"], method.joint.weight, allow_unused=True) == (None,)


def test_images_that_cannot_be_rotated_are_refused(make):
    with pytest.raises(RunError, match="sla_sd needs square images, which it rotates, not 8 × 10"):
        make("sla_sd", image=(1, 8, 10))


def test_labels_of_several_images_stay_with_them(make, batch):
    method = make("sla_sd").eval()
    one = batch(method)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    permuted = replace(one, images=one.images[order], labels=one.labels[order], index=one.index[order])
    values = [[term.item() for term in method.losses(each).values()] for each in (one, permuted)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
