import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.measures import calibration

LABELS = torch.tensor([0, 1, 2, 0])
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.35, 0.55, 0.1], [0.5, 0.3, 0.2], [0.34, 0.33, 0.33]])
LOGITS = PROBABILITIES.log()


def test_expected_calibration_error_by_hand():
    # Five bins: (0.2, 0.4] holds the fourth image, (0.4, 0.6] the second and the third, (0.6, 0.8] the first.
    gaps = (1 - 0.34) / 4, abs((1 + 0) / 2 - (0.55 + 0.5) / 2) * 2 / 4, (1 - 0.7) / 4
    assert calibration.expected_calibration_error(LOGITS, LABELS, bins=5) == pytest.approx(100 * sum(gaps), rel=1e-5)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # Confidences 0.5 and 0.75 with two bins: the first alone in (0, 0.5], and both wrong by their own gap.
    logits = torch.tensor([[0.5, 0.5], [0.75, 0.25]], dtype=torch.float64).log()
    labels = torch.tensor([1, 0])
    apart = calibration.expected_calibration_error(logits, labels, bins=2)
    assert apart == pytest.approx(100 * (0.5 + 0.25) / 2)


def test_negative_log_likelihood_by_hand():
    wanted = -(math.log(0.7) + math.log(0.55) + math.log(0.2) + math.log(0.34)) / 4
    assert calibration.negative_log_likelihood(LOGITS, LABELS) == pytest.approx(wanted, rel=1e-6)


def test_brier_score_by_hand():
    wanted = (0.3**2 + 0.2**2 + 0.1**2) + (0.35**2 + 0.45**2 + 0.1**2) + (0.5**2 + 0.3**2 + 0.8**2)
    wanted += 0.66**2 + 2 * 0.33**2
    assert calibration.brier_score(LOGITS, LABELS) == pytest.approx(wanted / 4, rel=1e-6)


@pytest.mark.parametrize(("seed", "images", "classes"), [(0, 20, 2), (1, 300, 12), (2, 1000, 100)])
def test_other_libraries_say_the_same(seed, images, classes):
    from sklearn import metrics as sklearn  # seconds, which a process that only collects the tests can do without

    metrics = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (images,), generator=generator)
    p = logits.softmax(dim=1)
    ece = metrics.multiclass_calibration_error(p, labels, classes, n_bins=calibration.BINS, norm="l1").item()
    assert calibration.expected_calibration_error(logits, labels) == pytest.approx(100 * ece, abs=1e-4)
    top = metrics.multiclass_accuracy(logits, labels, classes, average="micro", top_k=min(5, classes)).item()
    assert calibration.top_accuracy(logits, labels, 5) == pytest.approx(100 * top, abs=1e-4)
    assert calibration.negative_log_likelihood(logits, labels) == pytest.approx(
        sklearn.log_loss(labels, p, labels=range(classes))
    )
    truth = torch.nn.functional.one_hot(labels, classes)
    per_class = [sklearn.brier_score_loss(truth[:, k], p[:, k], pos_label=1) for k in range(classes)]
    assert calibration.brier_score(logits, labels) == pytest.approx(sum(per_class))


def test_top_accuracy_by_hand():
    assert calibration.top_accuracy(LOGITS, LABELS, 1) == 75.0
    assert calibration.top_accuracy(LOGITS[:3], LABELS[:3], 2) == pytest.approx(200 / 3)
    assert calibration.top_accuracy(LOGITS, LABELS, 5) == 100.0, "three classes are all among the first five"


def test_agreement_by_hand():
    others = torch.tensor([[2.0, 1, 0], [2, 1, 0], [2, 1, 0], [0, 1, 2]])
    assert calibration.agreement(LOGITS, others) == 50.0


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 12))
def test_measures_stay_in_their_ranges_and_do_not_mind_the_order(seed, images, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    order = torch.randperm(images, generator=generator)
    ece = calibration.expected_calibration_error(logits, labels)
    assert 0 <= ece <= 100
    assert calibration.expected_calibration_error(logits[order], labels[order]) == pytest.approx(ece)
    assert calibration.negative_log_likelihood(logits, labels) >= 0
    tops = [calibration.top_accuracy(logits, labels, k) for k in range(1, classes + 1)]
    assert tops == sorted(tops)
    assert tops[-1] == 100
    assert calibration.agreement(logits, logits) == 100
