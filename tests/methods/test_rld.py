import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kdbench.methods.rld import masked_correlation, sample_confidence


def slow_confidence(z, t, y):
    p, q = softmax(z)[y], softmax(t).max()
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))


def slow_correlation(z, t, y):
    kept = [k for k in range(len(t)) if t[k] < t[y]]
    return (softmax(t[kept]) * (log_softmax(t[kept]) - log_softmax(z[kept]))).sum() if kept else 0.0


@pytest.mark.parametrize("name", ["rld_scd", "rld_mcd", "rld_label_ranked_last", "rld_two_classes", "rld_large_logits"])
def test_the_terms_are_the_reference(reference, terms_of_logits, name):
    case = reference(name)
    terms = terms_of_logits(
        "rld", case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"], epoch=20,
        alpha=case.params["alpha"], beta=case.params["beta"], temperature=case.params["temperature"],
        confidence_temperature=case.params["alpha_temperature"],
    )  # fmt: skip
    case.check(terms["confidence"] + terms["correlation"])


@pytest.mark.parametrize(("epoch", "warm"), [(1, 0.05), (20, 1.0), (30, 1.0)])
def test_the_defaults_are_those_of_the_reference(reference, terms_of_logits, epoch, warm):
    case = reference("rld_total")
    inputs = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    terms = terms_of_logits("rld", *inputs, epoch=epoch)
    assert terms["ce"].item() == pytest.approx(case.entry["parts"]["ce"], rel=1e-6)
    kd = (terms["confidence"] + terms["correlation"]).item()
    assert kd == pytest.approx(warm * case.entry["parts"]["kd"], rel=1e-6)
    if warm == 1:
        case.check(sum(terms.values()))


def test_the_parts_are_their_definition(logits):
    z, t, labels = logits()
    rows = [*zip(z.detach().numpy(), t.numpy(), labels.tolist(), strict=True)]
    assert sample_confidence(z, t, labels).tolist() == pytest.approx([slow_confidence(*row) for row in rows], rel=1e-10)
    assert masked_correlation(z, t, labels).tolist() == pytest.approx(
        [slow_correlation(*row) for row in rows], rel=1e-10
    )
    assert {t[i].argmax().item() == y for i, y in enumerate(labels.tolist())} == {True, False}, "both kinds of images"


def test_by_hand_on_four_images():
    """Odds 3 : 1 of two classes; then the label first, second and last of three, where log-odds of the two below are ±log 3."""
    a = math.log(3)
    z = torch.tensor([[a, 0.0, -50.0], [0.0, a, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([[a, 0.0, -50.0], [5.0, a, 0.0], [6.0, a, 0.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 2])
    teacher, half = 3 / 4, 1 / 2
    second = teacher * math.log(teacher / teacher) + (1 - teacher) * math.log(1)  # the same odds
    third = teacher * math.log(teacher / half) + (1 - teacher) * math.log((1 - teacher) / half)
    assert masked_correlation(z, t, labels).tolist() == pytest.approx([0.0, second, third, 0.0], abs=1e-12)
    assert sample_confidence(z, t, labels)[0].item() == pytest.approx(0.0, abs=1e-12)


def test_a_student_like_a_teacher_that_is_right_has_nothing_to_learn(logits):
    _, t, _ = logits()
    labels = t.argmax(dim=1)
    for part in (sample_confidence, masked_correlation):
        z = t.clone().requires_grad_()
        loss = part(z, t, labels).sum()
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert gradient.abs().max() < 1e-12


def test_classes_as_probable_as_the_label_are_taken_out():
    t = torch.tensor([[2.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    z = torch.tensor([[1.0, 7.0, 0.0, 2.0]], dtype=torch.float64)
    expected = slow_correlation(z[0].numpy(), t[0].numpy(), 0)
    assert masked_correlation(z, t, torch.tensor([0])).item() == pytest.approx(expected)
    z[0, 1] = -30.0
    assert masked_correlation(z, t, torch.tensor([0])).item() == pytest.approx(expected)


def test_offsets_and_the_order_of_the_images_do_not_matter(logits, terms_of_logits):
    z, t, labels = logits()
    order = torch.tensor([3, 0, 5, 1, 6, 4, 2])
    base = terms_of_logits("rld", z, t, labels)
    for other in ((z + 3, t - 7, labels), (z[order], t[order], labels[order])):
        for name, term in terms_of_logits("rld", *other).items():
            torch.testing.assert_close(term, base[name])


@pytest.mark.parametrize("gap", [0.0, 50.0, 1000.0])
def test_float32_has_no_limit_at_large_gaps(gap, terms_of_logits):
    labels = torch.tensor([0, 1, 2])
    z, t = gap * torch.eye(3), gap * torch.eye(3)[[1, 2, 0]] - 2 * gap * torch.eye(3)[[2, 0, 1]]
    z.requires_grad_()
    loss = sum(terms_of_logits("rld", z, t, labels).values())
    (gradient,) = torch.autograd.grad(loss, z)
    exact = sum(terms_of_logits("rld", z.double(), t.double(), labels).values())
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert gradient.isfinite().all()


def test_each_parameter_reaches_its_term(logits, terms_of_logits):
    z, t, labels = logits()
    terms = terms_of_logits(
        "rld", z, t, labels, epoch=2, alpha=2.0, beta=3.0, temperature=5.0, confidence_temperature=2.0, warmup_epochs=4
    )
    confidence = 4 * sample_confidence(z / 2, t / 2, labels).mean()
    correlation = 25 * masked_correlation(z / 5, t / 5, labels).mean()
    assert terms["confidence"].item() == pytest.approx(2 * confidence.item() / 2)
    assert terms["correlation"].item() == pytest.approx(3 * correlation.item() / 2)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_the_logits_are_those_of_the_networks(make, batch, student, teacher):
    method = make("rld", student=student, teacher=teacher).eval()
    one = batch(method)
    z, t = method.student(one.images) / 4, method.teacher(one.images) / 4
    expected = 8 * 16 * masked_correlation(z, t, one.labels).mean().item() / 20
    assert method.losses(one)["correlation"].item() == pytest.approx(expected, rel=1e-5)
