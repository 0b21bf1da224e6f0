from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.cskd_spatial import cells_loss, second_head_loss


@pytest.mark.parametrize(("name", "form"), [("cskd_hard_total", "hard"), ("cskd_soft_total", "published")])
def test_the_total_is_the_reference(reference, name, form):
    case = reference(name)
    z, second, dense = (case.student[f"{which}_logits"] for which in ("student", "distill", "dense"))
    cells, labels = case.fixed["teacher_dense_logits"], case.fixed["labels"]
    grid = dense.transpose(1, 2).unflatten(2, (14, 14))
    alpha, nearness = case.params["alpha"], 1 - case.params["epoch"] / case.params["epochs"]
    loss = (1 - alpha) * F.cross_entropy(z, labels) + alpha * second_head_loss(second, cells, form, 1.0)
    case.check(loss + case.params["weight"] * cells_loss(grid, cells, nearness, form, 1.0))


def maps(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_each_cell_learns_its_mixture_and_counts_alike(form):
    ours, theirs, total = maps(0, 2, 5, 2, 3), maps(1, 2, 5, 2, 3), 0.0
    for image in range(2):
        for y in range(2):
            for x in range(3):
                target = 0.7 * theirs[image, :, y, x] + 0.3 * theirs[image].mean(dim=(1, 2))
                log_p = (ours[image, :, y, x] / 2 if form == "soft" else ours[image, :, y, x]).log_softmax(dim=0)
                log_q = (target / 2).log_softmax(dim=0)
                soft = 4 * (log_q.exp() * (log_q - log_p)).sum()
                total += (-log_p[target.argmax()] if form == "hard" else soft).item()
    assert cells_loss(ours, theirs, 0.7, form, 2.0).item() == pytest.approx(total / 12, rel=1e-9)


def test_the_published_form_differs_by_cells_and_classes():
    ours, theirs, second = maps(0, 2, 5, 2, 3), maps(1, 2, 5, 2, 3), maps(2, 2, 5)
    soft, published = (cells_loss(ours, theirs, 0.5, form, 1.0).item() for form in ("soft", "published"))
    assert published == pytest.approx(6 * soft)
    soft, published = (second_head_loss(second, theirs, form, 1.0).item() for form in ("soft", "published"))
    assert published == pytest.approx(soft / 5)


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "four_stages"), ("vit_tiny", "resnet8"), ("mobilenetv2", "resnet8")]
)
def test_terms_are_the_weighted_losses(make, batch, student, teacher):
    method = make("cskd_spatial", student=student, teacher=teacher, image=(1, 16, 16), alpha=0.25, weight=3.0).eval()
    method.info = replace(method.info, epochs=10)
    one = replace(batch(method), epoch=4)
    out, taught = (net(one.images, features=("unpooled",)) for net in (method.student, method.teacher))
    cells = [torch.einsum("bchw,kc->bkhw", x.unpooled, net.fc.weight) + net.fc.bias.view(1, -1, 1, 1)
             for x, net in ((out, method.student), (taught, method.teacher))]  # fmt: skip
    expected = {
        "ce": 0.75 * F.cross_entropy(out.logits, one.labels),
        "second": 0.25 * F.cross_entropy(method.head(out.pooled), cells[1].mean(dim=(2, 3)).argmax(dim=1)),
        "cells": 3 * cells_loss(*cells, 0.7, "hard", 1.0),
    }
    terms = method.losses(one)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}, rel=1e-4
    )
    sum(terms.values()).backward()
    assert all(p.grad is None for p in method.teacher.parameters())
