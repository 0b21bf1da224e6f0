import math

import pytest
import torch

from kdbench.method.logits import standardised

BASES = ["kd", "dkd"]


def example(images: int = 5, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    z, t = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t, torch.randint(classes, (images,), generator=generator)


@pytest.mark.parametrize("base", BASES)
def test_the_loss_is_the_reference(make, reference, base):
    case = reference("normkd" if base == "kd" else "normkd_dkd")
    method = make("normkd", base=base, **case.params)
    labels = case.fixed.get("labels")
    case.check(method.normalised_loss(case.student["student_logits"], case.fixed["teacher_logits"], labels))


@pytest.mark.parametrize("base", BASES)
def test_the_loss_is_its_definition(make, base):
    z, t, labels = example()
    total = 0.0
    for ours, theirs, y in zip(z.tolist(), t.tolist(), labels.tolist(), strict=True):
        student, teacher = (1.5 * torch.tensor(row, dtype=torch.float64).std().item() for row in (ours, theirs))
        p, q = [math.exp(v / student) for v in ours], [math.exp(v / teacher) for v in theirs]
        p, q = ([v / sum(row) for v in row] for row in (p, q))
        logs = [b * math.log(b / a) for a, b in zip(p, q, strict=True)]
        tckd = logs[y] + (1 - q[y]) * math.log((1 - q[y]) / (1 - p[y]))
        nckd = (sum(logs) - tckd) / (1 - q[y])
        total += teacher**2 * (sum(logs) if base == "kd" else 4 * tckd + 5 * nckd)
    method = make("normkd", base=base, temperature_norm=1.5)
    assert method.normalised_loss(z, t, labels).item() == pytest.approx(total / 5, rel=1e-6)


@pytest.mark.parametrize("base", BASES)
def test_the_students_scale_and_all_offsets_do_not_matter(make, base):
    method, (z, t, labels) = make("normkd", base=base), example()
    loss = method.normalised_loss(z, t, labels)
    torch.testing.assert_close(method.normalised_loss(3 * z + 5, t - 40, labels), loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(method.normalised_loss(z, 2 * t, labels), 4 * loss, rtol=1e-6, atol=0)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(method.normalised_loss(z[order], t[order], labels[order]), loss)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_logits_have_a_finite_value_and_gradient(make, base, dtype):
    z, t, labels = example()
    z, t = z.detach().to(dtype), t.to(dtype)
    z[0], t[1] = 0.3, 0.3
    z[2] = t[2] = 0.0
    z.requires_grad_()
    loss = make("normkd", base=base).normalised_loss(z, t, labels)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("base", BASES)
def test_student_and_teacher_of_equal_shape_of_logits_have_nothing_to_learn(make, base):
    _, t, labels = example()
    loss = make("normkd", base=base).normalised_loss(3 * t + 1, t, labels)
    assert loss.item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "vit_tiny"), ("wrn_16_1", "resnet8")])
def test_terms_are_the_weighted_losses(make, batch, gin_parameters, student, teacher):
    values = {**gin_parameters("normkd_dkd"), "ce_weight": 0.5, "kd_weight": 3.0, "warmup_epochs": 4}
    method = make("normkd", student=student, teacher=teacher, **values).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    expected = 3 / 4 * method.normalised_loss(z, t, one.labels).item()
    assert terms["normkd"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["ce"].item() == pytest.approx(
        0.5 * make("ce", student=student).eval().losses(one)["ce"].item(), rel=1e-5
    )


def test_where_all_deviations_are_one_it_is_kd(make):
    from kdbench.method import distillation

    z, t, labels = example()
    z, t = standardised(z), standardised(t)
    loss = make("normkd", temperature_norm=2.0).normalised_loss(z, t, labels)
    torch.testing.assert_close(loss, distillation(z, t, 2.0), rtol=1e-6, atol=0)
