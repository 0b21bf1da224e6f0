import math

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.cds import contrastive_loss

generator = torch.Generator().manual_seed(6)
EMBEDDINGS = F.normalize(torch.randn(8, 3, generator=generator, dtype=torch.float64), dim=1)
LABELS = torch.tensor([0, 1, 1, 2, 0, 1, 1, 2])


@pytest.mark.parametrize("name", ["cds_supcon", "cds_simclr"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    embeddings = torch.cat([case.student["view_1"], case.student["view_2"]])
    labels = case.fixed.get("labels", torch.arange(4)).repeat(2)
    case.check(contrastive_loss(embeddings, labels, case.params["temperature"]))


def slow_loss(temperature):
    """The definition in plain Python."""
    rows, labels = EMBEDDINGS.tolist(), LABELS.tolist()
    losses = []
    for i, row in enumerate(rows):
        products = {j: sum(a * b for a, b in zip(row, rows[j], strict=True)) / temperature for j in range(8) if j != i}
        total = math.log(sum(math.exp(p) for p in products.values()))
        positives = [total - p for j, p in products.items() if labels[j] == labels[i]]
        losses.append(sum(positives) / len(positives))
    return sum(losses) / 8


def test_the_loss_is_the_definition():
    assert contrastive_loss(EMBEDDINGS, LABELS, 0.3).item() == pytest.approx(slow_loss(0.3), rel=1e-10)


@pytest.mark.parametrize("embeddings", [torch.zeros(8, 3), torch.ones(8, 3), EMBEDDINGS.float()])
def test_equal_and_lonely_images_are_finite(embeddings):
    for labels in (LABELS, torch.arange(8)):
        x = embeddings.clone().requires_grad_()
        loss = contrastive_loss(x, labels, 0.07)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, x)[0].isfinite().all()
    assert contrastive_loss(embeddings[:1], LABELS[:1], 0.07) == 0


@pytest.mark.parametrize("supervision", ["labels", "views"])
def test_terms_are_the_weighted_losses_of_all_stages(make, batch, supervision):
    method = make("cds", weight=2.0, temperature=0.5, supervision=supervision).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    pooled = [exit_.blocks(x).mean(dim=(2, 3)) for exit_, x in zip(method.shallow, out.stages, strict=False)]
    labels = one.labels if supervision == "labels" else torch.arange(6).repeat(2)
    contrast = sum(contrastive_loss(F.normalize(x, dim=1), labels, 0.5) for x in (*pooled, out.pooled))
    assert [x.shape for x in pooled] == [out.pooled.shape] * 2
    terms = method.losses(one)
    assert terms["ce"].item() == pytest.approx(F.cross_entropy(out.logits[:6], one.labels[:6]).item(), rel=1e-5)
    assert terms["contrast"].item() == pytest.approx(2 * contrast.item(), rel=1e-4)


def test_the_classifier_learns_from_the_first_view_alone(make, batch):
    method = make("cds").eval()
    one = batch(method)
    images = one.images.requires_grad_()
    (gradient,) = torch.autograd.grad(method.losses(one)["ce"], images)
    assert gradient[:6].abs().max() > 0
    assert gradient[6:].abs().max() == 0


@pytest.mark.parametrize(("student", "exits"), [("resnet8", 2), ("wrn_16_1", 2), ("vit_tiny", None)])
def test_each_stage_but_the_last_has_an_exit(make, batch, student, exits):
    method = make("cds", student=student)
    assert len(method.shallow) == len(method.stage_shapes()) - 1 == (exits or len(method.shallow))
    sum(method.losses(batch(method)).values()).backward()
    gradients = [p.grad for p in method.shallow.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
