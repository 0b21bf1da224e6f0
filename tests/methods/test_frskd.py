import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.method import distillation
from kdbench.methods.at import attention_loss
from kdbench.methods.frskd import Pyramid, pooled_to


def test_the_loss_is_the_reference(reference):
    case = reference("frskd")
    params, labels = case.params, case.fixed["labels"]
    logits, refined = case.student["logits"], case.student["bifpn_logits"]
    targets = [value for name, value in sorted(case.fixed.items()) if name.startswith("bifpn_map_")]
    maps = [value for name, value in sorted(case.student.items()) if name.startswith("map")]
    parts = {
        "ce": F.cross_entropy(logits, labels),
        "ce_bifpn": F.cross_entropy(refined, labels),
        "kl": distillation(logits, refined.detach(), params["temperature"]),
        "attention": attention_loss(maps, targets, "squared"),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    weighted = params["alpha"] * parts["kl"] + params["beta"] * parts["attention"]
    case.check(parts["ce"] + parts["ce_bifpn"] + weighted)


@pytest.mark.parametrize(
    ("widths", "count"),
    [
        ((64, 128, 256, 512), 6_375_794),
        ((16, 32, 64), 113_325),
        ((32, 64, 128), 411_885),
        ((64, 128, 256), 1_565_037),
    ],
)
def test_the_pyramid_has_the_parameters_of_the_authors(widths, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in Pyramid(widths, 100, 2).parameters()) == count


def unit(fusion: nn.Module, *maps: torch.Tensor) -> torch.Tensor:
    """A fusion of maps with equal weights, written out."""
    x = sum(maps) / (len(maps) + 1e-6)
    for layer in fusion.convolutions:
        x = layer(x)
    return x


def test_the_pyramid_goes_up_and_down_again():
    torch.manual_seed(0)
    pyramid = Pyramid((3, 4, 5), 6, 2).double().eval()
    stages = [torch.randn(2, width, side, side).double() for width, side in ((3, 8), (4, 4), (5, 2))]
    one, two, three = (x.clamp(min=0) for x in stages)
    deepest = pyramid.lateral[2](three)
    middle = unit(
        pyramid.up_fusion[1],
        pyramid.lateral[1](two),
        pyramid.up[1](deepest.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    )
    first = unit(
        pyramid.up_fusion[0],
        pyramid.lateral[0](one),
        pyramid.up[0](middle.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    )
    # All maps are positive, so that the zeros that are added change nothing.
    second = unit(
        *(pyramid.down_fusion[0], pyramid.second_lateral[0](two), middle),
        pyramid.down[0](F.max_pool2d(F.pad(first, (0, 1, 0, 1)), 3, 2)),
    )
    third = unit(
        *(pyramid.down_fusion[1], pyramid.second_lateral[1](three)),
        pyramid.down[1](F.max_pool2d(F.pad(second, (0, 1, 0, 1)), 3, 2)),
    )
    logits, refined = pyramid(stages)
    for got, expected in zip(refined, (first, second, third), strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(logits, pyramid.fc(third.mean((2, 3))))


def test_fusion_weights_that_are_negative_leave_a_map_out():
    pyramid = Pyramid((3, 4), 6, 1).eval()
    fusion = pyramid.up_fusion[0]
    fusion.weights.data = torch.tensor([1.0, -1.0])
    x, other = torch.rand(2, 2, 3, 4, 4)
    torch.testing.assert_close(fusion(x, other), fusion(x, torch.zeros_like(other)))


@pytest.mark.parametrize(
    ("side", "wanted"), [(8, 4), (7, 4), (5, 2), (8, 2), (16, 2), (4, 4), (7, 5), (1, 1), (2, 1), (4, 8)]
)
def test_maxima_lead_to_any_size(side, wanted):
    x = torch.arange(float(side * side)).view(1, 1, side, side)
    result = pooled_to(x, (wanted, side))
    assert result.shape == (1, 1, wanted, side)
    assert result.max() == x.max()


def test_terms_add_up_to_the_definition(make, batch):
    method = make("frskd", student="four_stages", image=(1, 16, 16), kd_weight=0.5, attention_weight=3.0).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    logits, refined = method.pyramid(out.stages)
    expected = {
        "ce": F.cross_entropy(out.logits, one.labels).item(),
        "pyramid_ce": F.cross_entropy(logits, one.labels).item(),
        "kd": 0.5 * distillation(out.logits, logits, 4.0).item(),
        "attention": 3.0 * attention_loss(out.stages, refined, "squared").item(),
    }
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(method.exits(one.images), {"pyramid": logits})


def test_the_pyramid_learns_from_its_labels_alone_and_sends_that_on(make, batch):
    method = make("frskd")
    terms = method.losses(batch(method))
    pyramid, stem = list(method.pyramid.parameters()), [method.student.conv1.weight]
    for name in ("ce", "kd", "attention"):
        gradients = torch.autograd.grad(terms[name], pyramid, allow_unused=True, retain_graph=True)
        assert all(gradient is None for gradient in gradients)
    gradients = torch.autograd.grad(terms["pyramid_ce"], [*pyramid, *stem])
    assert all(gradient.any() for gradient in gradients if gradient.dim() > 1)
