from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from kdbench.method import Share
from kdbench.methods.revision import revised


def slow(z, t, labels, eta):
    """Cross-entropies and squared errors of the images on which the teacher is right, squared errors of the others."""
    parts = {"ce": [], "logits": [], "revision": []}
    for one, other, y in zip(z, t, labels, strict=True):
        if other.argmax() == y:
            parts["ce"].append(-log_softmax(one)[y])
            parts["logits"].append(np.mean((one - other) ** 2))
        else:
            p = softmax(other)
            share = eta / (p.max() - p[y] + 1)
            label = share * p + (1 - share) * np.eye(len(p))[y]
            parts["revision"].append(np.mean((softmax(one) - label) ** 2))
    return parts


def test_the_terms_are_the_reference(reference, terms_of_logits):
    case = reference("revision_total")
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    case.check(sum(terms_of_logits("revision", z, t, labels).values()))


@pytest.mark.parametrize("average", ["group", "batch"])
def test_the_terms_are_their_definition(logits, terms_of_logits, average):
    z, t, labels = logits()
    parts = slow(z.detach().numpy(), t.numpy(), labels.tolist(), 0.6)
    weights = {"ce": 1.0, "logits": 2.0, "revision": 3.0}
    terms = terms_of_logits("revision", z, t, labels, average=average, eta=0.6, logits_weight=2.0, revision_weight=3.0)
    assert all(parts.values()), "there are images of both kinds"
    for name, values in parts.items():
        images = len(values) if average == "group" else len(z)
        assert terms[name].item() == pytest.approx(weights[name] * sum(values) / images, rel=1e-10)


def test_by_hand_on_four_images(terms_of_logits):
    """Right: squared errors 1 and 4 in one of two logits. Wrong: odds 3 : 1, share 0.8 / 1.5, label 0.6 : 0.4, student ½ : ½."""
    a = np.log(3)
    z = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([[1.0, 0.0], [0.0, 2.0], [a, 0.0], [0.0, a]], dtype=torch.float64)
    terms = terms_of_logits("revision", z, t, torch.tensor([0, 1, 1, 0]))
    share = 0.8 / 1.5
    label = share / 4 + 1 - share
    assert label == pytest.approx(0.6)
    assert terms["ce"].item() == pytest.approx(np.log(2))
    assert terms["logits"].item() == pytest.approx(4 * (1 / 2 + 4 / 2) / 2)
    assert terms["revision"].item() == pytest.approx((label - 1 / 2) ** 2)


@pytest.mark.parametrize("eta", [0.1, 0.8, 0.99])
def test_a_revised_label_is_a_distribution_with_the_label_first(logits, eta):
    _, t, labels = logits()
    label = revised(t, labels, eta)
    torch.testing.assert_close(label.sum(dim=1), torch.ones(7, dtype=torch.float64))
    assert (label > 0).all()
    assert (label.argmax(dim=1) == labels).all()


@pytest.mark.parametrize("average", ["group", "batch"])
@pytest.mark.parametrize("right", [True, False])
def test_a_group_without_images_has_no_term(logits, terms_of_logits, average, right):
    z, t, _ = logits()
    labels = t.argmax(dim=1) if right else t.argmin(dim=1)
    terms = terms_of_logits("revision", z, t, labels, average=average)
    (gradient,) = torch.autograd.grad(sum(terms.values()), z)
    assert gradient.isfinite().all()
    assert {name for name, term in terms.items() if term == 0} == ({"revision"} if right else {"ce", "logits"})


def test_shares_of_a_batch_have_the_mean_of_the_whole(logits, terms_of_logits):
    """Two shares of 4 and 3 images, whose terms the loop averages with the weights 4/7 and 3/7."""
    z, t, labels = logits()
    right = (t.argmax(dim=1) == labels).double().mean()
    whole = terms_of_logits("revision", z, t, labels)

    class Part(Share):
        def __init__(self):
            self.shares_of_whole = iter([right, right, 1 - right])

        def mean(self, value):
            return next(self.shares_of_whole)

    total = dict.fromkeys(whole, 0.0)
    for part in (slice(0, 4), slice(4, 7)):
        terms = terms_of_logits("revision", z[part], t[part], labels[part], share=Part())
        total = {name: value + terms[name].item() * len(z[part]) / 7 for name, value in total.items()}
    assert total == pytest.approx({name: term.item() for name, term in whole.items()})


def test_the_recipes_label_smoothing_is_in_the_cross_entropy(logits, terms_of_logits):
    z, t, labels = logits()
    right = t.argmax(dim=1) == labels
    term = terms_of_logits("revision", z, t, labels, label_smoothing=0.1)["ce"]
    torch.testing.assert_close(term, torch.nn.functional.cross_entropy(z[right], labels[right], label_smoothing=0.1))


def test_the_order_of_the_images_does_not_matter(logits, terms_of_logits):
    z, t, labels = logits()
    base = terms_of_logits("revision", z, t, labels)
    for name, term in terms_of_logits("revision", z.flip(0), t.flip(0), labels.flip(0)).items():
        torch.testing.assert_close(term, base[name])


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "shufflenetv2_x0_5")])
def test_the_logits_are_those_of_the_networks(make, batch, student, teacher):
    method = make("revision", student=student, teacher=teacher).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    one = replace(one, labels=t.argmax(dim=1))
    assert method.losses(one)["logits"].item() == pytest.approx(4 * (z - t).square().mean().item(), rel=1e-5)
