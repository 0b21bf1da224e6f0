import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.method import RunError, distillation
from kdbench.methods.dkd import dkd_loss
from kdbench.methods.nkd import nkd_loss
from kdbench.methods.sdd import region_logits, regions, sdd_loss

BASES = ["kd", "dkd", "nkd"]


def loss_of(method, logits, target, labels):
    return sdd_loss(method.of_regions(logits, target, labels), target, labels)


@pytest.mark.parametrize("name", ["kd", "dkd", "nkd_repaired", "nkd_as_published"])
def test_the_loss_is_the_reference(make, reference, name):
    case = reference(f"sdd_{name}")
    method = make("sdd", base=name.partition("_")[0], published_mask=name == "nkd_as_published", **case.params)
    logits, target = (x.transpose(1, 2) for x in (case.student["student_regions"], case.fixed["teacher_regions"]))
    case.check(loss_of(method, logits, target, case.fixed["labels"]))


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_the_loss_from_maps_is_the_reference(make, reference, base):
    case = reference(f"sdd_{base}_from_maps")
    method = make("sdd", base=base, **{**case.params, "scales": tuple(case.params["scales"])})
    logits, target = (
        region_logits(
            tensors[f"{whose}_map"], linear(tensors[f"{whose}_weight"], tensors[f"{whose}_bias"]), method.scales
        )
        for whose, tensors in (("student", case.student), ("teacher", case.fixed))
    )
    labels = case.fixed["labels"]
    right = target.argmax(dim=2) == labels[:, None]
    assert (right != right[:, :1]).double().mean().item() == pytest.approx(case.entry["parts"]["doubled_share"])
    case.check(loss_of(method, logits, target, labels))


def linear(weight, bias):
    """A classifier of these very tensors, so that they get the gradient."""
    return lambda x: F.linear(x, weight, bias)


@pytest.mark.parametrize("size", [(4, 4), (2, 2), (1, 1), (7, 5)])
def test_regions_are_those_of_adaptive_pooling(size):
    x = torch.randn(3, 6, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = regions(*size, (1, 2, 4)).double()
    expected = torch.cat([F.adaptive_avg_pool2d(x, scale).flatten(2) for scale in (1, 2, 4)], dim=2)
    torch.testing.assert_close(x.flatten(2) @ weights, expected, rtol=1e-6, atol=1e-6)
    assert weights.shape[1] == 21
    assert weights.sum(dim=0).tolist() == pytest.approx([1] * 21)


def test_the_loss_is_its_definition(make):
    generator = torch.Generator().manual_seed(1)
    z, t = (2 * torch.randn(4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(6, (4,), generator=generator)
    total = 0.0
    for i, y in enumerate(labels.tolist()):
        whole = t[i, 0].argmax().item() == y
        for r in range(5):
            p, q = ([math.exp(v / 4) for v in row[i, r].tolist()] for row in (z, t))
            kl = sum(b / sum(q) * math.log(b / sum(q) / (a / sum(p))) for a, b in zip(p, q, strict=True))
            total += (1 if (t[i, r].argmax().item() == y) == whole else 2) * 16 * kl
    assert loss_of(make("sdd"), z, t, labels).item() == pytest.approx(total / 20, rel=1e-10)


@pytest.mark.parametrize("base", BASES)
def test_the_whole_map_alone_is_the_base(make, batch, base):
    method = make(
        "sdd", base=base, scales=(1,), ce_weight=0.5, kd_weight=3.0, warmup_epochs=4, alpha=2.0, beta=5.0
    ).eval()
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    whole = {
        "kd": lambda: distillation(z, t, 4.0),
        "dkd": lambda: dkd_loss(z, t, one.labels, 2.0, 5.0, 4.0),
        "nkd": lambda: nkd_loss(z, t, one.labels, 8.0, 4.0),
    }
    terms = method.losses(one)
    assert terms["sdd"].item() == pytest.approx(3 / 4 * whole[base]().item(), rel=1e-4)
    assert terms["ce"].item() == pytest.approx(0.5 * make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("base", ["kd", "dkd"])
def test_equal_regions_have_nothing_to_learn(make, base):
    generator = torch.Generator().manual_seed(2)
    t = torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)
    z, labels = t.clone().requires_grad_(), torch.tensor([0, 1, 2, 3])
    loss = loss_of(make("sdd", base=base), z, t, labels)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-10)
    assert gradient.abs().max() < 1e-10


@pytest.mark.parametrize("base", BASES)
def test_maps_of_zeros_and_equal_images(make, base):
    method = make("sdd", base=base)
    classifier, labels = nn.Linear(3, 6), torch.tensor([0, 1])
    for x in (torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)):
        x.requires_grad_()
        logits = region_logits(x, classifier, (1, 2, 4))
        (gradient,) = torch.autograd.grad(loss_of(method, logits, logits.detach() + 1, labels), x)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("wrn_16_1", "mobilenetv2")])
def test_networks_of_other_resolutions_and_widths(make, batch, student, teacher):
    method = make("sdd", student=student, teacher=teacher, scales=(1, 2, 4)).eval()
    one = batch(method)
    out = method.student(one.images, features=("unpooled",))
    logits = region_logits(out.unpooled, method.student.fc, method.scales)
    assert logits.shape == (6, 21, 4)
    torch.testing.assert_close(logits[:, 0], out.logits, rtol=1e-4, atol=1e-5)
    assert all(term.isfinite() for term in method.losses(one).values())


@pytest.mark.parametrize("scales", [(), (2, 4), (1, 0)])
def test_scales_begin_with_the_whole_map(make, scales):
    with pytest.raises(RunError, match="must begin with 1"):
        make("sdd", scales=scales)


def test_a_classifier_that_reads_something_else_is_refused(make):
    """A network of a library whose head widens the averaged map."""
    pytest.importorskip("timm")
    with pytest.raises(
        RunError, match="sdd needs a teacher whose classifier reads the average of its deepest map: the map has"
    ):
        make("sdd", teacher="timm/mobilenetv3_small_050", image=(3, 32, 32))
