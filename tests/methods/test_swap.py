import pytest
import torch

from kdbench.method import distillation
from kdbench.methods.swap import swapped


def slow(row, label):
    row, top = list(row), max(range(len(row)), key=row.__getitem__)
    row[top], row[label] = row[label], row[top]
    return row


def test_the_term_is_the_reference(reference, terms_of_logits):
    case = reference("swap_kd")
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    terms = terms_of_logits("swap", z, t, labels)
    assert [*terms] == ["kd"]
    case.check(terms["kd"])


def test_label_and_largest_logit_change_places(logits):
    _, t, labels = logits()
    rows = swapped(t, labels).tolist()
    assert rows == [slow(row, y) for row, y in zip(t.tolist(), labels.tolist(), strict=True)]
    assert (swapped(t, labels).argmax(dim=1) == labels).all()
    assert torch.equal(swapped(t, t.argmax(dim=1)), t), "a teacher that is right stays as it is"


def test_by_hand_on_four_images():
    t = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.0, 0.0, -1.0]])
    assert swapped(t, torch.tensor([0, 2, 1, 2])).tolist() == [[3, 2, 1], [1, 2, 3], [2, 3, 1], [-1, 0, 0]]


def test_the_gradient_follows_the_exchange():
    """For a method that swaps logits which learn."""
    z = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad((swapped(z, torch.tensor([0, 2])) * torch.tensor([10.0, 20.0, 30.0])).sum(), z)
    assert gradient.tolist() == [[30, 20, 10], [10, 20, 30]]


def test_a_student_like_a_teacher_that_is_right_has_nothing_to_learn(logits, terms_of_logits):
    _, t, _ = logits()
    z = t.clone().requires_grad_()
    loss = terms_of_logits("swap", z, t, t.argmax(dim=1))["kd"]
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_offsets_and_the_order_of_the_images_do_not_matter(logits, terms_of_logits):
    z, t, labels = logits()
    loss = terms_of_logits("swap", z, t, labels)["kd"]
    torch.testing.assert_close(terms_of_logits("swap", z + 3, t - 7, labels)["kd"], loss)
    torch.testing.assert_close(terms_of_logits("swap", z.flip(0), t.flip(0), labels.flip(0))["kd"], loss)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_the_logits_are_those_of_the_networks(make, batch, student, teacher):
    method = make("swap", student=student, teacher=teacher, temperature=3.0).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    expected = distillation(z, swapped(t, one.labels), 3.0).item()
    assert method.losses(one)["kd"].item() == pytest.approx(expected, rel=1e-5)
