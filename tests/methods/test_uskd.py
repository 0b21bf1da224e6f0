import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.method import Share
from kdbench.methods.uskd import mean_square, non_target_loss, ranked_labels, target_loss, weak_loss

generator = torch.Generator().manual_seed(2)
LOGITS = torch.randn(5, 6, generator=generator, dtype=torch.float64)
WEAK = torch.randn(5, 6, generator=generator, dtype=torch.float64)
LABELS = torch.tensor([0, 3, 5, 5, 2])


def total(logits, weak, labels, ranking="published"):
    """The three losses with the weights 0.1."""
    soft = ranked_labels(logits, weak, labels, ranking)
    target = target_loss(logits, labels, mean_square(logits, labels))
    return 0.1 * (target + non_target_loss(logits, soft, labels) + weak_loss(weak, labels))


def test_the_total_is_the_reference(reference):
    case = reference("uskd")
    weak = F.linear(*(case.student[f"weak_{part}"] for part in ("feature", "weight", "bias")))
    case.check(total(case.student["student_logits"], weak, case.fixed["labels"]))


def softmax(row):
    return [math.exp(x) / sum(math.exp(y) for y in row) for x in row]


def slow_total(ranking):
    """The definition in plain Python."""
    rows = list(zip(LOGITS.tolist(), WEAK.tolist(), LABELS.tolist(), strict=True))
    mean = sum(softmax(z)[y] ** 2 for z, _, y in rows) / len(rows)
    losses = []
    for z, w, y in rows:
        p, q = softmax(z), softmax(w)
        final = [math.log(x) for x in p] if ranking == "published" else p
        scores = [q[i] / (1 - q[y] + 1e-6) + final[i] / (1 - final[y] + 1e-6) for i in range(6)]
        rank = {i: 1 + sum(other > scores[i] for other in scores) for i in range(6)}
        others = [i for i in range(6) if i != y]
        zipf = {i: (1 / rank[i]) / sum(1 / rank[j] for j in others) for i in others}
        hat = dict(zip(others, softmax([z[i] for i in others]), strict=True))
        target = -(p[y] ** 2 + 1 - mean) * math.log(p[y])
        non_target = -sum(zipf[i] * math.log(hat[i]) for i in others)
        weak = -sum((0.9 * (i == y) + 0.1 / 6) * math.log(q[i]) for i in range(6))
        losses.append(0.1 * (target + non_target + weak))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("ranking", ["published", "shares"])
def test_the_total_is_the_definition(ranking):
    assert total(LOGITS, WEAK, LABELS, ranking).item() == pytest.approx(slow_total(ranking), rel=1e-10)


def test_soft_labels_are_shares_of_the_other_classes_in_the_order_of_both_heads():
    logits = torch.tensor([[9.0, 1.0, 3.0, 2.0]])
    soft = ranked_labels(logits, torch.zeros(1, 4), torch.tensor([0]), "published")
    assert soft.sum().item() == pytest.approx(1)
    assert soft[0, 0] == 0
    assert soft[0].argsort(descending=True).tolist() == [2, 3, 1, 0]


def test_the_final_head_alone_ranks_as_published_and_both_do_by_their_shares():
    final, weak = torch.tensor([[20.0, 0.0, 8.0, 2.0], [0.0, 5.0, 0.0, 0.0]], dtype=torch.float64).split(1)
    labels = torch.tensor([0])
    first = [ranked_labels(final, weak, labels, ranking).argmax().item() for ranking in ("published", "shares")]
    assert first == [2, 1]


def test_two_classes_have_no_other_one_to_learn():
    logits, labels = LOGITS[:, :2].clone().requires_grad_(), torch.tensor([0, 1, 1, 0, 0])
    loss = non_target_loss(logits, ranked_labels(logits, WEAK[:, :2], labels, "published"), labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("logits", [torch.zeros(5, 6), torch.ones(5, 6), 50 * LOGITS.sign().float()])
def test_equal_and_large_logits_have_finite_gradients(logits):
    logits, weak = logits.clone().requires_grad_(), torch.zeros(5, 6, requires_grad=True)
    for ranking in ("published", "shares"):
        assert all(
            g.isfinite().all() for g in torch.autograd.grad(total(logits, weak, LABELS, ranking), [logits, weak])
        )


def test_offsets_of_logits_and_the_order_of_the_batch_do_not_matter():
    base = total(LOGITS, WEAK, LABELS)
    torch.testing.assert_close(total(LOGITS + 3, WEAK - 2, LABELS), base)
    torch.testing.assert_close(total(LOGITS.flip(0), WEAK.flip(0), LABELS.flip(0)), base)


def test_terms_are_the_weighted_losses_and_the_weak_head_reads_the_last_map_but_one(make, batch):
    given = {"target_weight": 2.0, "non_target_weight": 3.0, "weak_weight": 4.0, "ranking": "shares"}
    method = make("uskd", **given).eval()
    one = batch(method)
    out, labels = method.student(one.images, features=True), one.labels
    assert isinstance(method.weak, nn.Linear)
    weak = method.weak(out.stages[1].mean(dim=(2, 3)))
    expected = {
        "ce": F.cross_entropy(out.logits, labels),
        "target": 2 * target_loss(out.logits, labels, mean_square(out.logits, labels)),
        "non_target": 3 * non_target_loss(out.logits, ranked_labels(out.logits, weak, labels, "shares"), labels),
        "weak": 4 * weak_loss(weak, labels),
    }
    losses = {name: value.item() for name, value in method.losses(one).items()}
    assert losses == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-5)


def test_the_mean_is_the_whole_batchs(make, batch):
    class Another(Share):
        def mean(self, value):
            return value * 0 + 0.25

    method = make("uskd").eval()
    one = dataclasses.replace(batch(method), share=Another())
    logits = method.student(one.images)
    expected = 0.1 * target_loss(logits, one.labels, torch.tensor(0.25))
    assert method.losses(one)["target"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_gradient_passes_through_the_labels_that_the_student_makes():
    logits = LOGITS.clone().requires_grad_()
    mean = mean_square(logits, LABELS)
    assert not mean.requires_grad
    p = F.log_softmax(LOGITS, dim=1)[torch.arange(5), LABELS].exp()
    (gradient,) = torch.autograd.grad(target_loss(logits, LABELS, mean), logits)
    factor = (p**2 + 1 - mean) * (p - 1) / 5  # −P_y · d ln p_y / d z_y
    torch.testing.assert_close(gradient[torch.arange(5), LABELS], factor)


@pytest.mark.parametrize("student", ["wrn_16_1", "vit_tiny"])
def test_students_of_other_families(make, batch, student):
    method = make("uskd", student=student)
    terms = method.losses(batch(method))
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    assert method.weak.weight.grad is not None
