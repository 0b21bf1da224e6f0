"""Properties of every method's losses, in each of its phases, on tiny networks and images."""

from dataclasses import replace

import pytest
import torch
from examples import each_method
from torch import nn

from kdbench.config import places, signature
from kdbench.errors import RunError

NAMES = sorted(places.sources())
WITH_TEACHER = [name for name in NAMES if signature.of_method(name).attributes.get("needs_teacher")]
ORDERED = {
    "cc": "neighbours are those of the batch's order",
    "crd": "draws the negatives of each image by its place",
    "dhkd": "drops numbers of each image by its place",
    "funmatch": "mixes each image with the one before it",
    "mgd": "draws the mask of each image by its place",
    "semckd": "rows of similarities enter a network in the batch's order",
}
"""Methods whose loss depends on the order of the batch, and why."""
FLOOR = {
    "nkd": "is a cross-entropy with the teacher's probabilities, whose entropy remains",
    "skd": "gives the student's logits the scale of an untrained teacher's, at which no cross-entropy is small",
}
"""Methods whose loss has most of its first value as its least, and why."""
SQUARE = {
    "hsakd": "rotates images",
    "hsakd_teacher": "rotates images",
    "hssakd": "rotates images",
    "sla_sd": "rotates images",
    "sskd": "rotates images",
}
"""Methods that need square images, and why."""
WITH_OFFSET = {
    "dtkd": "temperatures are made of the largest logits",
    "mse_logits": "the student learns the logits themselves",
    "revision": "the student learns the logits themselves where the teacher is right",
    "annealing": "the student learns the logits themselves",
    "ats": "the logit of the label is divided by another number than the rest",
    "dhkd": "the second classifier learns the logits themselves",
}
"""Methods whose loss depends on an offset of the teacher's logits, and why."""


def fitting(make, name, student, **given):
    """The method with a teacher that it accepts: resnet14, else one of the student's architecture."""
    try:
        return make(name, student=student, **given)
    except RunError:
        return make(name, student=student, teacher=student, **given)


def phases(method):
    """The losses of each phase, and what it trains."""
    for phase in method.phases():
        trained = method.parameters() if phase.trains is None else phase.trains
        yield phase.losses or method.losses, [p for p in trained if p.requires_grad]


def check_finite(method, batch):
    """In each phase, finite terms and finite gradients of all that the phase trains; they reach something."""
    for losses, trained in phases(method):
        terms = losses(batch)
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        gradients = torch.autograd.grad(sum(terms.values()), trained)
        assert all(gradient.isfinite().all() for gradient in gradients)
        yield gradients


def values(method, batch):
    """All terms of all phases, without the names."""
    return [term.item() for losses, _ in phases(method) for term in losses(batch).values()]


@pytest.mark.parametrize(
    ("student", "image"), [("resnet8", (1, 8, 8)), ("resnet8x4", (3, 16, 12)), ("four_stages", (3, 16, 16))]
)
@pytest.mark.parametrize("name", each_method(NAMES))
def test_steps_reach_all_parameters(make, batch, name, student, image):
    channels, height, width = image
    method = fitting(make, name, student, image=(channels, height, height if name in SQUARE else width))
    for gradients in check_finite(method, batch(method, progress=0.5)):
        assert any(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize("name", each_method(NAMES))
def test_a_few_steps_lower_the_loss(make, batch, name):
    # CRD's banks stand still here: while they move, its loss may rise.
    method = make(name, batch_size=12, **({"momentum": 1.0} if name == "crd" else {}))
    one = batch(method, anchors=12, progress=0.5)
    *_, last = phases(method)
    for losses, trained in phases(method):
        optimiser, totals = torch.optim.SGD(trained, lr=0.02, momentum=0.9), []
        for _ in range(12):
            loss = sum(losses(one).values())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 5.0)  # weights of terms are made for smaller rates at the beginning
            optimiser.step()
            totals.append(loss.item())
        assert min(totals[-3:]) < (0.9 if losses == last[0] and name not in FLOOR else 0.99) * totals[0]


@pytest.mark.parametrize("name", each_method(NAMES))
def test_bfloat16(make, batch, name):
    method, other = make(name), make(name)
    one = batch(method, progress=0.5)
    expected = values(other, one)
    with torch.autocast("cpu", torch.bfloat16):
        terms = [losses(one) for losses, _ in phases(method)]
    assert all(term.dtype == torch.float32 for each in terms for term in each.values())
    assert [term.item() for each in terms for term in each.values()] == pytest.approx(expected, rel=0.2, abs=0.02)
    for each, (_, trained) in zip(terms, phases(method), strict=True):
        gradients = torch.autograd.grad(sum(each.values()), trained)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", each_method(NAMES))
def test_identical_images_give_no_nan(make, batch, name):
    method = make(name)
    list(check_finite(method, batch(method, identical=True, progress=0.5)))


@pytest.mark.parametrize("name", each_method(WITH_TEACHER))
def test_maps_that_are_zero_give_no_nan(make, batch, name):
    method = make(name)
    for module in method.student.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    one = batch(method, progress=0.5)
    out = method.student(one.images, features=("preactivations",))
    assert not any(x.any() for x in (*out.stages, *out.preactivations, out.pooled))
    list(check_finite(method, one))


@pytest.mark.parametrize("name", each_method(name for name in WITH_TEACHER if name not in ORDERED))
def test_the_order_of_the_batch_does_not_matter(make, batch, name):
    method = make(name)
    one = batch(method, progress=0.5)
    images = torch.arange(len(one.images)).view(one.view_count, -1)
    order = images[:, torch.randperm(images.shape[1], generator=torch.Generator().manual_seed(0))].flatten()
    permuted = replace(one, images=one.images[order], labels=one.labels[order], index=one.index[order])
    assert values(make(name), permuted) == pytest.approx(values(method, one), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", each_method(name for name in WITH_TEACHER if name not in WITH_OFFSET))
def test_an_offset_of_the_teachers_logits_does_not_matter(make, batch, name):
    parameters = {"kd_weight": 1.0} if "kd_weight" in signature.of_method(name).parameters else {}
    method, other = make(name, **parameters), make(name, **parameters)
    one = batch(method, progress=0.5)
    with torch.no_grad():
        other.teacher.fc.bias += 3.0
    assert values(other, one) == pytest.approx(values(method, one), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "four_stages"), ("four_stages", "resnet8")], ids=["teacher", "student"]
)
@pytest.mark.parametrize("name", each_method(WITH_TEACHER))
def test_a_network_with_one_stage_more(make, batch, name, student, teacher):
    refused = None
    try:
        method = make(name, student=student, teacher=teacher, image=(1, 16, 16))
        list(check_finite(method, batch(method, progress=0.5)))
    except RunError as refusal:
        refused = str(refusal)
    assert refused is None or refused.startswith(f"{name} needs")
