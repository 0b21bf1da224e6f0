from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from kdbench.method import RunError
from kdbench.methods.nkd import normalised_parts
from kdbench.methods.wkd_l import cka_distances, costs, transport_cost, weight_distances


def class_costs(classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return costs(weight_distances(torch.randn(classes, 4, generator=generator, dtype=torch.float64)), 1.0)


def slow(z, t, labels, cost):
    """Sinkhorn's iterations for each image, with the row and column of its label taken out."""
    values = []
    for one, other, y in zip(z, t, labels, strict=True):
        p, q, c = softmax(np.delete(one, y)), softmax(np.delete(other, y)), np.delete(np.delete(cost, y, 0), y, 1)
        kernel = np.exp(-c / 0.05)
        u = np.full(len(p), 1 / len(p))
        for _ in range(10):
            v = q / (kernel.T @ u + 1e-8)
            u = p / (kernel @ v + 1e-8)
        values.append((u[:, None] * kernel * v * c).sum())
    return np.mean(values)


@pytest.mark.parametrize("name", ["wkd_l_total", "wkd_l_total_epoch200"])
def test_the_terms_are_the_reference(reference, terms_of_logits, name):
    case = reference(name)
    params, classifier = case.params, case.fixed["teacher_weight"]
    terms = terms_of_logits(
        "wkd_l", case.student["student_logits"], case.fixed["teacher_logits"], case.fixed["labels"],
        classifier=classifier, progress=params["epoch"] / params["epochs"], weight=params["weight"],
        temperature=params["temperature"], sharpening=params["sharpen"],
        decay_from=params["decay_start_epoch"] / params["epochs"],
    )  # fmt: skip
    assert terms["ce"].item() == pytest.approx(case.entry["parts"]["ce"], rel=1e-6)
    assert (terms["target"] + terms["wkd"]).item() == pytest.approx(case.entry["parts"]["wkd"], rel=1e-6)
    case.check(sum(terms.values()))


def test_the_distances_of_features_are_the_reference(reference):
    case = reference("wkd_cka_cost")
    distances = cka_distances(case.fixed["class_features"])
    torch.testing.assert_close(distances, torch.tensor(case.entry["parts"]["cost"], dtype=torch.float64))
    assert distances.sum().item() == pytest.approx(case.entry["loss"], rel=1e-6)


def test_the_cost_is_its_definition(logits):
    z, t, labels = logits()
    cost = class_costs()
    expected = slow(z.detach().numpy(), t.numpy(), labels.tolist(), cost.numpy())
    assert transport_cost(z, t, labels, cost).item() == pytest.approx(expected, rel=1e-10)


def test_distances_are_their_definition():
    """CKA as the ratio of Frobenius norms of products of centred features (Kornblith et al., equation 7 without kernels)."""
    x = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x - x.mean(dim=1, keepdim=True)).numpy()
    norm = np.linalg.norm
    cka = [[norm(b.T @ a) ** 2 / norm(a.T @ a) / norm(b.T @ b) for b in y] for a in y]
    torch.testing.assert_close(cka_distances(x), 1 - torch.tensor(cka))
    weight = x[0]
    cosine = torch.nn.functional.cosine_similarity(weight[:, None], weight[None], dim=2)
    torch.testing.assert_close(weight_distances(weight), 1 - cosine)


def test_cka_in_blocks_is_the_same(monkeypatch):
    x = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = cka_distances(x)
    monkeypatch.setattr("kdbench.methods.wkd_l.LARGEST", 40)
    torch.testing.assert_close(cka_distances(x), whole)


def test_features_without_spread_are_far_from_all_others():
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    x[1] = 2.0
    torch.testing.assert_close(cka_distances(x)[1], torch.ones(3, dtype=torch.float64))


def test_by_hand_on_four_images():
    """Plans between the two classes other than the label, with a kernel of 1/4 off the diagonal: Q11 · Q22 = 16 · Q12 · Q21.

    Both marginals (1/2, 1/2): Q12 = 0.1. Marginals (1/4, 3/4) and (1/2, 1/2): 15 x² + 4.75 x = 0.125 for Q12 = x.
    """
    cost = 0.05 * np.log(4) * (1 - torch.eye(3, dtype=torch.float64))
    a = float(np.log(3))
    z = torch.tensor([[0.0, a, 9.0], [0.0, 9.0, a], [9.0, 0.0, 0.0], [0.0, 0.0, -9.0]], dtype=torch.float64)
    t = torch.tensor([[0.0, 0.0, 2.0], [0.0, 2.0, 0.0], [2.0, a, 0.0], [5.0, 5.0, 2.0]], dtype=torch.float64)
    x = (-4.75 + (4.75**2 + 4 * 15 * 0.125) ** 0.5) / 30
    moved = [0.25 + 2 * x, 0.25 + 2 * x, 0.25 + 2 * x, 0.2]
    expected = 0.05 * np.log(4) * sum(moved) / 4
    assert transport_cost(z, t, torch.tensor([2, 1, 0, 2]), cost).item() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_that_of_finite_differences(logits):
    z, t, labels = logits(3)
    assert torch.autograd.gradcheck(lambda z: transport_cost(z, t, labels, class_costs()), z)


def test_mass_at_a_similar_class_costs_less():
    cost = costs(torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.2], [1.0, 0.2, 0.0]], dtype=torch.float64), 1.0)
    cost = torch.nn.functional.pad(cost, (0, 1, 0, 1), value=0.5)
    t = torch.tensor([[-9.0, 9.0, -9.0, 0.0]], dtype=torch.float64)
    label = torch.tensor([3])
    near, far = (torch.tensor([row], dtype=torch.float64) for row in ([-9.0, -9.0, 9.0, 0.0], [9.0, -9.0, -9.0, 0.0]))
    assert transport_cost(near, t, label, cost) < transport_cost(far, t, label, cost) / 2


def test_two_classes_leave_nothing_to_move():
    z, t = torch.randn(2, 4, 2, dtype=torch.float64)
    assert transport_cost(z, t, torch.tensor([0, 1, 0, 1]), class_costs(2)).item() == pytest.approx(0, abs=1e-7)


def test_the_label_offsets_and_the_order_of_the_images_do_not_matter(logits):
    z, t, labels = logits()
    loss = transport_cost(z, t, labels, class_costs())
    label = torch.nn.functional.one_hot(labels, 5)
    for ours, theirs, classes in (
        (z + 3, t - 7, labels),
        (z + 4 * label, t - label, labels),
        (z.flip(0), t.flip(0), labels.flip(0)),
    ):
        torch.testing.assert_close(transport_cost(ours, theirs, classes, class_costs()), loss)


@pytest.mark.parametrize("scale", [0.0, 25.0])
def test_equal_and_large_logits_are_finite_in_float32(scale):
    z, t = scale * torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    z.requires_grad_()
    labels = torch.arange(6) % 5
    loss = transport_cost(z, t, labels, class_costs().float())
    (gradient,) = torch.autograd.grad(loss, z)
    exact = transport_cost(z.double(), t.double(), labels, class_costs()).item()
    assert loss.item() == pytest.approx(exact, rel=1e-3, abs=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet8x4"), ("wrn_16_1", "vit_tiny")])
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("wkd_l", student=student, teacher=teacher, weight=2.0, temperature=3.0, sharpening=2.0).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    cost = costs(weight_distances(method.teacher.fc.weight), 2.0)
    assert terms["wkd"].item() == pytest.approx(2 * transport_cost(z / 3, t / 3, one.labels, cost).item(), rel=1e-4)
    assert terms["target"].item() == pytest.approx(normalised_parts(z, t, one.labels, 1.0)[0].mean().item(), rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce", student=student).eval().losses(one)["ce"].item(), rel=1e-5)


def test_costs_of_features_take_the_first_images_of_each_class(make, batch):
    method = make("wkd_l", cost="cka", labels=[0, 1, 2, 3, 0, 1, 2, 3, 0, 2])
    whole = batch(method, anchors=10)
    batches = [
        replace(whole, images=whole.images[part], labels=whole.labels[part]) for part in (slice(0, 6), slice(6, 10))
    ]
    with torch.no_grad():
        method.prepare(iter(batches))
    features = method.teacher(whole.images, features=True).pooled
    first = torch.stack([features[whole.labels == k][:2] for k in range(4)])
    torch.testing.assert_close(method.class_costs, costs(cka_distances(first), 1.0))


def test_a_class_without_images_is_refused(make, batch):
    method = make("wkd_l", cost="cka", labels=[0, 1, 0, 1, 2])
    with pytest.raises(RunError, match=r"two training images of each class, and class 2 has 1; take WKDL.cost='fc'$"):
        method.prepare(iter([batch(method, anchors=5)]))


def test_other_costs_see_no_images(make):
    method = make("wkd_l")
    before = method.class_costs.clone()
    method.prepare(iter([]))
    assert torch.equal(method.class_costs, before)
