import pytest
import torch

from kdbench.method.losses import distillation, soft_cross_entropy, softened_kl


def logits(batch: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, batch, classes, generator=generator, dtype=torch.float64) * 3
    return student.requires_grad_(), teacher


@pytest.mark.parametrize("case", ["kd_T1", "kd_T4"])
def test_distillation_is_the_reference(reference, case):
    case = reference(case)
    case.check(distillation(case.student["student_logits"], case.fixed["teacher_logits"], case.params["temperature"]))


def test_softened_kl_is_its_definition():
    student, teacher = logits()
    p, q = (student / 3).softmax(1), (teacher / 3).softmax(1)
    expected = sum((q[i, k] * (q[i, k] / p[i, k]).log()).item() for i in range(6) for k in range(5)) / 6
    assert softened_kl(student, teacher, 3.0).item() == pytest.approx(expected, rel=1e-10)


def test_soft_cross_entropy_is_kl_plus_the_entropy_of_the_target():
    student, teacher = logits()
    target = teacher.softmax(1)
    entropy = -(target * target.log()).sum(1).mean()
    assert soft_cross_entropy(student, target).item() == pytest.approx(
        (softened_kl(student, teacher, 1.0) + entropy).item(), rel=1e-10
    )


def test_gradient_keeps_its_size_when_the_temperature_grows():
    """Its limit for T → ∞ is the difference of the centred logits over B · K; without T² it would go to 0."""
    student, teacher = logits()
    limit = ((student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))).detach() / (6 * 5)
    for temperature in (1e3, 1e4):
        (gradient,) = torch.autograd.grad(distillation(student, teacher, temperature), student)
        torch.testing.assert_close(gradient, limit, rtol=0, atol=10 / temperature)


@pytest.mark.parametrize("loss", [distillation, softened_kl])
def test_no_dependence_on_the_batch_size(loss):
    student, teacher = logits()
    once, twice = loss(student, teacher, 4.0), loss(student.repeat(2, 1), teacher.repeat(2, 1), 4.0)
    torch.testing.assert_close(once, twice)


def test_equal_logits_give_zero_in_value_and_gradient():
    student, _ = logits()
    loss = distillation(student, student.detach(), 4.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_half_precision_logits_are_widened():
    student, teacher = (x.detach().bfloat16() for x in logits())
    assert distillation(student, teacher, 4.0).dtype == torch.float32
    torch.testing.assert_close(distillation(student, teacher, 4.0), distillation(student.float(), teacher.float(), 4.0))
    assert soft_cross_entropy(student, teacher.float().softmax(1)).dtype == torch.float32
