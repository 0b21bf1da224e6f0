import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.methods.skd import rescaled


def example(images: int = 5, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    z, t = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t, torch.randint(classes, (images,), generator=generator)


def test_the_terms_are_the_reference(reference):
    case = reference("skd_total")
    alpha = case.params["alpha"]
    z, t = rescaled(case.student["student_logits"], case.fixed["teacher_logits"])
    parts = {
        "ce": (1 - alpha) * F.cross_entropy(z, case.fixed["labels"]),
        "kd": alpha * distillation(z, t, case.params["temperature"]),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


def test_the_loss_is_its_definition():
    z, t, _ = example()
    total = 0.0
    for ours, theirs in zip(z.detach(), t, strict=True):
        scaled = [v * theirs.std().item() / ours.std().item() for v in ours.tolist()]
        p, q = ([math.exp(v / 4) for v in row] for row in (scaled, theirs.tolist()))
        total += 16 * sum(b / sum(q) * math.log(b / sum(q) / (a / sum(p))) for a, b in zip(p, q, strict=True))
    assert distillation(*rescaled(z, t), 4.0).item() == pytest.approx(total / 5, rel=1e-6)


def test_scale_and_offset_of_the_students_logits_do_not_matter_to_either_term(make, batch):
    method = make("skd").eval()
    one = batch(method)
    before = method.losses(one)
    with torch.no_grad():
        method.student.fc.weight.mul_(3.0)
        method.student.fc.bias.mul_(3.0).add_(2.0)
    after = method.losses(one)
    assert {n: v.item() for n, v in after.items()} == pytest.approx({n: v.item() for n, v in before.items()}, rel=1e-3)


def test_a_constant_scale_is_that_of_both():
    z, t, _ = example()
    for each in rescaled(z, t, 2.5):
        assert each.std(dim=1).tolist() == pytest.approx([2.5] * 5, rel=1e-6)
    assert rescaled(z, t)[0].std(dim=1).tolist() == pytest.approx(t.std(dim=1).tolist(), rel=1e-6)
    assert torch.equal(rescaled(z, t)[1], t)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_logits_have_a_finite_value_and_gradient(dtype):
    z, t, labels = example()
    z, t = z.detach().to(dtype), t.to(dtype)
    z[0], t[1] = 0.3, 0.3
    z[2] = t[2] = 0.0
    z.requires_grad_()
    for constant in (None, 2.0):
        ours, theirs = rescaled(z, t, constant)
        loss = distillation(ours, theirs, 4.0) + F.cross_entropy(ours, labels)
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.8), (0.49, 0.8), (0.5, 0.3)])
def test_the_weight_is_that_of_the_part_of_the_training(make, batch, progress, alpha):
    method = make("skd", kd_weights=(0.8, 0.3), milestones=(0.5,), temperature=2.0).eval()
    one = replace(batch(method), progress=progress)
    z, t = rescaled(method.student(one.images), method.teacher(one.images))
    terms = method.losses(one)
    assert terms["kd"].item() == pytest.approx(alpha * distillation(z, t, 2.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx((1 - alpha) * F.cross_entropy(z, one.labels).item(), rel=1e-5)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vit_tiny"), ("wrn_16_1", "resnet8")])
def test_the_constant_reaches_both_terms(make, batch, student, teacher):
    method = make("skd", student=student, teacher=teacher, scale="constant", constant=3.0).eval()
    one = batch(method)
    z, t = rescaled(method.student(one.images), method.teacher(one.images), 3.0)
    terms = method.losses(one)
    assert terms["kd"].item() == pytest.approx(0.9 * distillation(z, t, 4.0).item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(0.1 * F.cross_entropy(z, one.labels).item(), rel=1e-5)


def test_weights_and_milestones_that_do_not_match_are_refused(make):
    with pytest.raises(RunError, match="must have one value more than"):
        make("skd", kd_weights=(0.9, 0.1))
