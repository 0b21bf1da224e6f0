"""Fidelity against values by hand, its definition with whole kernel matrices, and a run with a teacher."""

import math

import pytest
import torch

from kdbench.config.settings import Dataset, Measures
from kdbench.data.images import Images
from kdbench.measures import fidelity
from kdbench.measures.evaluation import OWN, Evaluation
from kdbench.measures.fidelity import divergence, linear_cka, of_evaluation

LABELS = torch.tensor([0, 1, 2, 0])


def logits(*classes):
    return 9.0 * torch.nn.functional.one_hot(torch.tensor(classes), 3)


def evaluation(own, teacher, **features):
    images = Images(torch.zeros(4, 8, 8, 1, dtype=torch.uint8), LABELS)
    dataset, measures = Dataset("x", (0.0,), (1.0,), False), Measures((), False, 0, ())
    return Evaluation(torch.nn.Identity(), {OWN: own}, teacher, images, [], 3, dataset, measures, **features)


def test_agreement_where_the_teacher_is_right_and_where_it_is_wrong():
    values = of_evaluation(evaluation(logits(0, 0, 1, 2), logits(0, 1, 1, 2)))
    assert values["fidelity.agreement_right"] == 50  # images 0 and 1
    assert values["fidelity.agreement_wrong"] == 100  # images 2 and 3
    assert values["fidelity.cka"] is None
    never_wrong = of_evaluation(evaluation(logits(0, 0, 1, 2), logits(0, 1, 2, 0)))
    assert never_wrong["fidelity.agreement_wrong"] is None
    never_right = of_evaluation(evaluation(logits(0, 0, 1, 2), logits(1, 0, 0, 1)))
    assert (never_right["fidelity.agreement_right"], never_right["fidelity.agreement_wrong"]) == (None, 25)


def test_without_a_teacher_there_is_nothing():
    assert set(of_evaluation(evaluation(logits(0, 0, 0, 0), None)).values()) == {None}


def test_the_divergence_is_that_of_the_definition():
    teacher, student = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])
    assert divergence(teacher, student) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert divergence(teacher, teacher + 7) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(divergence(1000 * teacher, -1000 * teacher))


def kernel_cka(x, y):
    """CKA by the kernels (N, N) of the images, as Kornblith et al. define it, equations 3 and 4."""
    x, y = x.double(), y.double()
    centring = torch.eye(len(x), dtype=x.dtype) - 1 / len(x)
    k, l = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring  # noqa: E741
    return ((k * l).sum() / (k.norm() * l.norm())).item()


def test_cka_is_that_of_the_kernels_of_all_images(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(50, 7) + 3
    y = x @ torch.randn(7, 4) + torch.randn(50, 4)
    whole = linear_cka(x, y)
    assert whole == pytest.approx(kernel_cka(x, y), abs=1e-6)
    monkeypatch.setattr(fidelity, "CHUNK", 8)
    assert linear_cka(x, y) == pytest.approx(whole, abs=1e-6)


def test_cka_knows_no_rotation_scale_or_shift():
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5))
    assert linear_cka(x, 3 * x @ rotation + 1000) == pytest.approx(1, abs=1e-5)
    assert linear_cka(x, torch.ones(40, 2)) is None


def test_features_of_network_and_teacher_are_compared():
    features = torch.randn(4, 3)
    values = of_evaluation(
        evaluation(logits(0, 0, 1, 2), logits(0, 1, 1, 2), features=features, teacher_features=2 * features)
    )
    assert values["fidelity.cka"] == pytest.approx(1, abs=1e-6)
