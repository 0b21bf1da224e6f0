import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, Share
from kdbench.methods.bake import ensemble_loss, ensembled
from kdbench.streams import Streams

generator = torch.Generator().manual_seed(5)
LOGITS = torch.randn(5, 4, generator=generator, dtype=torch.float64)
FEATURES = torch.rand(5, 3, generator=generator, dtype=torch.float64)


def test_the_loss_is_the_reference(reference):
    case = reference("bake")
    logits, (temperature, omega, weight) = (
        case.student["logits"],
        (case.params[k] for k in ("temperature", "omega", "weight")),
    )
    ce = F.cross_entropy(logits, case.fixed["labels"])
    kl = ensemble_loss(logits, ensembled(logits, case.fixed["features"], omega, temperature), temperature)
    assert ce.item() == pytest.approx(case.entry["parts"]["ce"], rel=1e-9)
    assert kl.item() == pytest.approx(case.entry["parts"]["kl"], rel=1e-9)
    case.check(ce + weight * kl)


def slow_target(omega, temperature, steps=400):
    """Each image asks the others again and again, in plain Python."""
    rows, features = LOGITS.tolist(), FEATURES.tolist()

    def share(row):
        powers = [math.exp(x) for x in row]
        return [x / sum(powers) for x in powers]

    p = [share([z / temperature for z in row]) for row in rows]
    unit = [[x / math.hypot(*f) for x in f] for f in features]
    affinity = []
    for i, f in enumerate(unit):
        weights = share([sum(a * b for a, b in zip(f, g, strict=True)) for j, g in enumerate(unit) if j != i])
        affinity.append([*weights[:i], 0.0, *weights[i:]])
    q = p
    for _ in range(steps):
        q = [
            [omega * sum(affinity[i][j] * q[j][k] for j in range(5)) + (1 - omega) * p[i][k] for k in range(4)]
            for i in range(5)
        ]
    return torch.tensor(q)


@pytest.mark.parametrize("omega", [0.0, 0.5, 0.9])
def test_soft_labels_are_what_endless_propagation_gives(omega):
    target = ensembled(LOGITS, FEATURES, omega, 2.0)
    torch.testing.assert_close(target, slow_target(omega, 2.0).double(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(5, dtype=torch.float64))


def test_soft_labels_have_no_gradient_and_the_logits_have_one():
    logits, features = LOGITS.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    target = ensembled(logits, features, 0.5, 4.0)
    assert not target.requires_grad
    (gradient,) = torch.autograd.grad(ensemble_loss(logits, target, 4.0), logits)
    torch.testing.assert_close(gradient, 4 / 5 * (F.softmax(LOGITS / 4, dim=1) - target))


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_equal_zero_and_large_inputs_and_a_single_image_are_finite(images, scale):
    logits = (scale * LOGITS[:images].float()).requires_grad_()
    for features in (torch.zeros(images, 3), torch.ones(images, 3), FEATURES[:images].float()):
        loss = ensemble_loss(logits, ensembled(logits, features, 0.9, 4.0), 4.0)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_terms_are_the_weighted_losses_of_anchors_and_partners(make, batch):
    method = make("bake", weight=2.0, temperature=3.0, omega=0.7).eval()
    one = batch(method)
    assert len(one.images) == 24
    out = method.student(one.images, features=True)
    target = ensembled(out.logits, out.pooled, 0.7, 3.0)
    terms = method.losses(one)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(out.logits, one.labels).item(), rel=1e-5)
    assert terms["ensemble"].item() == pytest.approx(2 * ensemble_loss(out.logits, target, 3.0).item(), rel=1e-4)


def test_the_images_that_are_asked_are_those_of_the_whole_batch(make, batch):
    class Twice(Share):
        """Two ranks with the same images."""

        def gather(self, x):
            return torch.cat([x, x])

        def own(self, whole):
            return whole[: len(whole) // 2]

    method = make("bake").eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    logits, features = torch.cat([out.logits] * 2), torch.cat([out.pooled] * 2)
    expected = ensemble_loss(out.logits, ensembled(logits, features, 0.5, 4.0)[:24], 4.0)
    term = method.losses(dataclasses.replace(one, share=Twice()))["ensemble"]
    assert term.item() == pytest.approx(expected.item(), rel=1e-4)


def test_partners_are_three_different_images_of_the_anchors_class(make):
    method = make("bake")
    anchors, labels = torch.arange(24), method.info.train_labels
    index = method.sample(anchors, Streams(0)).view(4, 24)
    assert torch.equal(index[0], anchors)
    assert (labels[index] == labels).all()
    assert all(len(set(group)) == 4 for group in index.T.tolist())


def test_a_share_of_all_is_refused(make):
    with pytest.raises(RunError, match=r"BAKE\.omega=1 must be at least 0 and below 1"):
        make("bake", omega=1.0)
