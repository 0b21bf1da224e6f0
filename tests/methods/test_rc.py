import pytest
import torch

from kdbench.method import distillation
from kdbench.methods.rc import corrected


def test_the_terms_are_the_reference(reference, terms_of_logits):
    case = reference("rc_total")
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    terms = terms_of_logits("rc", z, t, labels)
    parts = {"ce": terms["ce"], "kd": terms["kd"], "rc": terms["correction"]}
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(terms.values()))


def test_by_hand_on_four_images():
    z = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [-3.0, -2.0, -1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    result = corrected(z, torch.tensor([0, 2, 1, 1]))
    assert result.tolist() == [[4, 2, 3], [1, 2, 6], [-3, -3, -1], [0, 0, 0]]
    assert not result.requires_grad
    assert z.tolist()[0] == [1, 2, 3], "the student's own logits stay as they are"


def test_the_correction_raises_the_label_and_lowers_the_others(logits, terms_of_logits):
    z, t, labels = logits()
    (gradient,) = torch.autograd.grad(terms_of_logits("rc", z, t, labels)["correction"], z)
    raised = z.detach().amax(dim=1) > 0
    label = torch.nn.functional.one_hot(labels, 5).bool()
    assert (gradient[label][raised] < 0).all()
    assert (gradient[~label].view(-1, 4)[raised] > 0).all()
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(7, dtype=torch.float64))


def test_a_teacher_like_the_student_leaves_the_correction(logits, terms_of_logits):
    z, _, labels = logits()
    terms = terms_of_logits("rc", z, z.detach(), labels)
    assert terms["kd"].item() == pytest.approx(0, abs=1e-12)
    assert terms["correction"] > 0


def test_the_order_of_the_images_does_not_matter_and_an_offset_does(logits, terms_of_logits):
    z, t, labels = logits()
    base = terms_of_logits("rc", z, t, labels)
    for name, term in terms_of_logits("rc", z.flip(0), t.flip(0), labels.flip(0)).items():
        torch.testing.assert_close(term, base[name])
    shifted = terms_of_logits("rc", z + 3, t - 7, labels)
    torch.testing.assert_close(shifted["kd"], base["kd"])
    assert shifted["correction"] > base["correction"], "the largest logit is added as a number"


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_each_parameter_reaches_its_term(make, batch, student, teacher):
    method = make("rc", student=student, teacher=teacher, kd_weight=2.0, correction_weight=3.0, temperature=5.0).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["kd"].item() == pytest.approx(2 * distillation(z, t, 5.0).item(), rel=1e-5)
    correction = distillation(z, corrected(z, one.labels), 5.0).item()
    assert terms["correction"].item() == pytest.approx(3 * correction, rel=1e-4)
    assert terms["ce"].item() == pytest.approx(make("ce", student=student).eval().losses(one)["ce"].item(), rel=1e-5)
