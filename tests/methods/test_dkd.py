import math

import numpy as np
import pytest
import torch

from kdbench.method import distillation
from kdbench.method.logits import standardised, warm_up
from kdbench.methods.dkd import decoupled, dkd_loss

CASES = ["dkd", "dkd_tckd", "dkd_nckd", "dkd_imagenet", "dkd_two_classes", "dkd_equal_logits", "dkd_large_logits"]


def example(images: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    z, t = (2 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), t, torch.randint(classes, (images,), generator=generator)


def softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def kl(q, p):
    return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    case.check(
        dkd_loss(case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"], **case.params)
    )


@pytest.mark.parametrize("name", ["dkd_total_epoch5", "ls_dkd_total"])
def test_the_terms_are_the_reference(reference, name):
    case = reference(name)
    z, t, labels = case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"]
    ours, theirs = (standardised(z), standardised(t)) if name == "ls_dkd_total" else (z, t)
    temperature = case.params.get("temperature") or case.params["base_temperature"]
    loss = dkd_loss(ours, theirs, labels, case.params["alpha"], case.params["beta"], temperature)
    parts = {
        "ce": torch.nn.functional.cross_entropy(z, labels),
        "kd": warm_up(case.params["epoch"], case.params["warmup_epochs"]) * loss,
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


def test_the_parts_are_their_definition():
    z, t, labels = example()
    for i, y in enumerate(labels.tolist()):
        p, q = softmax(z[i].tolist()), softmax(t[i].tolist())
        others = [k for k in range(5) if k != y]
        target = kl([q[y], 1 - q[y]], [p[y], 1 - p[y]])
        rest = kl([q[k] / (1 - q[y]) for k in others], [p[k] / (1 - p[y]) for k in others])
        ours = [part[i].item() for part in decoupled(z, t, labels)]
        assert ours == pytest.approx([target, rest], rel=1e-10)
        assert kl(q, p) == pytest.approx(target + (1 - q[y]) * rest, rel=1e-10)


def test_the_gradient_is_that_of_finite_differences():
    z, t, labels = example()
    assert torch.autograd.gradcheck(lambda z: dkd_loss(z, t, labels, 1.0, 8.0, 4.0), z)


def test_weighted_by_the_teachers_probability_it_is_kd():
    z, t, labels = example()
    target, rest = decoupled(z / 4, t / 4, labels)
    share = 1 - (t / 4).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(16 * (target + share * rest).mean(), distillation(z, t, 4.0))


def test_offsets_and_the_order_of_the_images_do_not_matter():
    z, t, labels = example()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = dkd_loss(z, t, labels, 1.0, 8.0, 4.0)
    torch.testing.assert_close(dkd_loss(z + 3, t - 7, labels, 1.0, 8.0, 4.0), loss)
    torch.testing.assert_close(dkd_loss(z[order], t[order], labels[order], 1.0, 8.0, 4.0), loss)


@pytest.mark.parametrize("gap", [0.0, 50.0, 1000.0])
def test_float32_has_no_limit_at_large_gaps(gap):
    labels = torch.tensor([0, 1, 2])
    z, t = gap * torch.eye(3), gap * torch.eye(3)[[1, 2, 0]]
    z.requires_grad_()
    loss = dkd_loss(z, t, labels, 1.0, 8.0, 1.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(
        dkd_loss(z.double(), t.double(), labels, 1.0, 8.0, 1.0).item(), rel=1e-5, abs=1e-6
    )
    assert gradient.isfinite().all()


def test_terms_are_the_weighted_losses(make, batch):
    method = make("dkd", alpha=2.0, beta=3.0, temperature=5.0, warmup_epochs=4).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert terms["dkd"].item() == pytest.approx(dkd_loss(z, t, one.labels, 2.0, 3.0, 5.0).item() / 4, rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("pair", [("resnet8", "vit_tiny"), ("wrn_16_1", "resnet8")])
def test_standardised_logits_are_those_of_the_variant(make, batch, gin_parameters, pair):
    student, teacher = pair
    method = make("dkd", student=student, teacher=teacher, **gin_parameters("ls_dkd")).eval()
    one = batch(method)
    z, t = (standardised(network(one.images)) for network in (method.student, method.teacher))
    expected = dkd_loss(z, t, one.labels, 9.0, 72.0, 2.0).item() / 20
    assert method.losses(one)["dkd"].item() == pytest.approx(expected, rel=1e-5)


def test_by_hand_on_four_images():
    """The formula in NumPy, with masks and probabilities as the paper writes it."""
    z, t, labels = (each.detach().numpy() for each in example(images=4))
    p, q = (np.exp(x / 4) / np.exp(x / 4).sum(1, keepdims=True) for x in (z, t))
    here = np.eye(5, dtype=bool)[labels]
    py, qy = p[here], q[here]
    tckd = qy * np.log(qy / py) + (1 - qy) * np.log((1 - qy) / (1 - py))
    ph, qh = (x[~here].reshape(4, 4) / (1 - x[here])[:, None] for x in (p, q))
    nckd = (qh * np.log(qh / ph)).sum(1)
    loss = dkd_loss(*(torch.tensor(each) for each in (z, t, labels)), 1.0, 8.0, 4.0)
    assert loss.item() == pytest.approx(16 * (tckd + 8 * nckd).mean(), rel=1e-12)
