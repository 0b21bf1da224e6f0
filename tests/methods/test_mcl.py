import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import distillation
from kdbench.method.connectors import normalised
from kdbench.method.losses import supervised_contrast
from kdbench.methods.mcl import mutual_contrast

WEIGHTS = {"vcl": 0.1, "soft_vcl": 1.0, "icl": 0.1, "soft_icl": 1.0}

generator = torch.Generator().manual_seed(2)
EMBEDDINGS = list(F.normalize(torch.randn(3, 6, 4, generator=generator, dtype=torch.float64), dim=2).unbind())
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def test_the_total_is_the_reference(apart):
    case = apart("mcl")
    terms = mutual_contrast(list(case.student.values()), case.fixed["labels"], case.params["tau"], case.params["kd_T"])
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(WEIGHTS[name] * term for name, term in terms.items()))


def slow_contrast(anchors, others, temperature):
    """The definition in plain Python."""
    losses = []
    for i, anchor in enumerate(anchors.tolist()):
        row = {j: sum(a * b for a, b in zip(anchor, other, strict=True)) for j, other in enumerate(others.tolist())}
        del row[i]
        total = math.log(sum(math.exp(p / temperature) for p in row.values()))
        positives = [total - p / temperature for j, p in row.items() if LABELS[j] == LABELS[i]]
        losses.append(sum(positives) / len(positives) if positives else 0.0)
    return sum(losses) / len(losses)


def slow_kl(rows, target, temperature):
    """T² · KL of rows in plain Python; rows and target are nested lists."""
    total = 0.0
    for row, wanted in zip(rows.tolist(), target.tolist(), strict=True):
        q = [math.exp(x / temperature) for x in row]
        p = [math.exp(x / temperature) for x in wanted]
        total += sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(rows)


def test_terms_of_three_networks_are_their_definition():
    tau, temperature = 0.3, 2.0
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    s = [[one @ other.T / tau for other in EMBEDDINGS] for one in EMBEDDINGS]
    expected = {
        "vcl": sum(slow_contrast(v, v, tau) for v in EMBEDDINGS),
        "soft_vcl": sum(slow_kl(s[i][i], s[j][j], temperature) for i, j in pairs),
        "icl": sum(slow_contrast(EMBEDDINGS[i], EMBEDDINGS[j], tau) for i, j in pairs),
        "soft_icl": sum(slow_kl(s[i][j], s[j][i], temperature) for i, j in pairs),
    }
    terms = mutual_contrast(EMBEDDINGS, LABELS, tau, temperature)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-10)


def test_targets_of_the_divergences_have_no_gradient():
    one, other = (v.clone().requires_grad_() for v in EMBEDDINGS[:2])
    terms = mutual_contrast([one, other], LABELS, 0.3, 2.0)
    ours, theirs = one @ one.T / 0.3, (other @ other.T / 0.3).detach()
    expected = torch.autograd.grad(distillation(ours, theirs, 2.0), one)[0]
    torch.testing.assert_close(torch.autograd.grad(terms["soft_vcl"], one)[0], expected)


@pytest.mark.parametrize("products", [torch.zeros(4, 4), torch.full((4, 4), 10.0)])
def test_images_without_a_positive_count_as_nothing(products):
    products.requires_grad_()
    assert supervised_contrast(products, torch.arange(4)).item() == 0
    loss = supervised_contrast(products, torch.tensor([0, 0, 1, 2]))
    assert loss.item() == pytest.approx(math.log(3) / 2)
    assert torch.autograd.grad(loss, products)[0].isfinite().all()


@pytest.mark.parametrize("kd", ["all", "last"])
def test_terms_are_the_weighted_losses(make, batch, kd):
    given = {"cohort": (None, "resnet14"), "kd_weight": 0.5, "kd_networks": kd}
    weights = {"vcl_weight": 0.2, "soft_vcl_weight": 0.3, "icl_weight": 0.4, "soft_icl_weight": 0.6}
    method = make("mcl", **given, **weights).eval()
    one = batch(method)
    out = [network(one.images, features=True) for network in method.networks()]
    embeddings = [normalised(head(each.pooled)) for head, each in zip(method.heads, out, strict=True)]
    expected = mutual_contrast(embeddings, one.labels, 0.1, 3.0)
    terms = method.losses(one)
    for name, weight in zip(expected, weights.values(), strict=True):
        torch.testing.assert_close(terms[name], weight * expected[name])
    logits = [each.logits for each in out]
    mean = torch.stack(logits).mean(dim=0).detach()
    taught = logits if kd == "all" else logits[-1:]
    torch.testing.assert_close(terms["kd"], sum(0.5 * distillation(z, mean, 3.0) for z in taught))
    torch.testing.assert_close(terms["ce"], sum(F.cross_entropy(z, one.labels) for z in logits))
    assert terms.keys() == {"ce", *expected, "kd"}
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in method.parameters())


def test_each_anchor_comes_with_another_image_of_its_class(make, batch):
    method = make("mcl")
    one = batch(method)
    anchors, partners = one.index.chunk(2)
    assert torch.equal(*one.labels.chunk(2))
    assert not (anchors == partners).any()


@pytest.mark.parametrize("student", ["resnet8", "four_stages"])
def test_the_student_is_kept_and_the_others_are_shown(make, batch, student):
    method = make("mcl", student=student, image=(1, 16, 16)).eval()
    one = batch(method)
    assert "kd" not in method.losses(one)
    assert method.deployed() is method.student
    assert list(method.exits(one.images)) == ["peer1"]


def test_a_student_alone_is_refused(make):
    with pytest.raises(RunError, match=r"^mcl needs at least one network besides the student"):
        make("mcl", cohort=())
