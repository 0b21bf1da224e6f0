from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.config import signature
from kdbench.method import Share, distillation
from kdbench.methods.mgd import PUBLISHED, Generator, mgd_loss

LAYERS = {"generate.0": "conv1", "generate.2": "conv2", "align": "align"}


@pytest.mark.parametrize("name", ["mgd_channel_mask", "mgd_spatial_mask"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    x, target, uniform = case.student["student_map"], case.fixed["teacher_map"], case.fixed["uniform"]
    generator = Generator(x.shape[1], target.shape[1]).double()
    generator.load_state_dict(
        {f"{ours}.{part}": case.fixed[f"{theirs}_{part}"] for ours, theirs in LAYERS.items()
         for part in ("weight", "bias") if f"{theirs}_{part}" in case.fixed}
    )  # fmt: skip
    limit = case.params["lambda"]
    kept = uniform >= limit if name == "mgd_channel_mask" else uniform <= 1 - limit
    case.check(case.params["alpha"] * mgd_loss(generator(x, kept), target))


def test_the_loss_is_its_definition():
    x, target = (torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    expected = sum((a - b) ** 2 for a, b in zip(x.flatten().tolist(), target.flatten().tolist(), strict=True)) / 3
    assert mgd_loss(x, target).item() == pytest.approx(expected, rel=1e-5)
    assert mgd_loss(x.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1)).item() == pytest.approx(expected, rel=1e-5)


def test_the_generator_is_its_definition():
    """One masked channel is as a map in which it is 0, behind the alignment."""
    generator = Generator(3, 2)
    x = torch.randn(4, 3, 5, 5)
    kept = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=torch.bool)[:, :, None, None]
    aligned = F.conv2d(x, generator.align.weight, generator.align.bias)
    for image in range(4):
        for channel in range(2):
            if not kept[image, channel]:
                aligned[image, channel] = 0
    first, _, second = generator.generate
    expected = F.conv2d(
        F.conv2d(aligned, first.weight, first.bias, padding=1).relu(), second.weight, second.bias, padding=1
    )
    torch.testing.assert_close(generator(x, kept), expected)


@pytest.mark.parametrize("mask", ["channels", "pixels"])
def test_terms_are_the_weighted_losses(make, batch, mask):
    method = make("mgd", teacher="resnet8x4", weight=2.0, masked=0.4, mask=mask).eval()
    one = batch(method)
    x, target = (net(one.images, features=True).stages[-1] for net in (method.student, method.teacher))
    _, channels, height, width = target.shape
    shape = (len(x), channels, 1, 1) if mask == "channels" else (len(x), 1, height, width)
    kept = torch.rand(shape, generator=one.streams("mask")) >= 0.4
    assert not kept.all()
    expected = 2 * mgd_loss(method.generator(x, kept), target).item()
    terms = method.losses(one)
    assert list(terms) == ["ce", "mgd"]
    assert terms["mgd"].item() == pytest.approx(expected * PUBLISHED / target[0].numel(), rel=1e-5)
    method.rescaled = False
    assert method.losses(one)["mgd"].item() == pytest.approx(expected, rel=1e-5)
    assert terms["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize(("masked", "kept"), [(0.0, 1.0), (1.0, 0.0), (0.3, 0.7)])
def test_the_share_of_the_mask(make, batch, masked, kept):
    method = make("mgd", masked=masked)
    assert method._kept(batch(method), torch.zeros(400, 64, 2, 2)).float().mean().item() == pytest.approx(
        kept, abs=0.06
    )


def test_the_mask_is_drawn_for_the_whole_batch_and_each_rank_takes_its_part(make, batch):
    class Second(Share):
        def own(self, whole):
            return whole[3:]

        def gather(self, x):
            return torch.cat([x, x])

    method = make("mgd", masked=0.5)
    one = batch(method)
    target = torch.zeros(6, 64, 2, 2)
    whole = method._kept(one, target)
    half = replace(one, images=one.images[3:], labels=one.labels[3:], share=Second())
    assert torch.equal(method._kept(half, target[3:]), whole[3:])
    assert not torch.equal(method._kept(batch(method, step=1), target), whole)


def test_mixed_images_are_allowed():
    assert signature.of_method("mgd").needs_classes == ""


def test_maps_of_zeros_have_a_finite_value_and_gradient():
    generator = Generator(3, 2)
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    mgd_loss(generator(x, torch.zeros(2, 2, 1, 1, dtype=torch.bool)), torch.zeros(2, 2, 4, 4)).backward()
    assert (x.grad == 0).all()
    assert all(p.grad.isfinite().all() for p in generator.generate.parameters())


def test_equal_widths_are_not_aligned(make):
    assert not list(make("mgd").generator.align.parameters())


def test_distillation_is_a_term_if_it_has_a_weight(make, batch):
    method = make("mgd", kd_weight=0.5, temperature=2.0).eval()
    one = batch(method)
    expected = 0.5 * distillation(method.student(one.images), method.teacher(one.images), 2.0).item()
    assert method.losses(one)["kd"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "side"),
    [("resnet8", "resnet18", 1), ("resnet18", "resnet8", 1), ("wrn_16_1", "resnet8x4", 2)],
)
def test_widths_and_resolutions_may_differ(make, batch, student, teacher, side):
    method = make("mgd", student=student, teacher=teacher, masked=0.0, weight=1.0)
    one = batch(method)
    x, target = (net(one.images, features=True).stages[-1] for net in (method.student, method.teacher))
    small = [F.adaptive_avg_pool2d(each, side) for each in (x, target)]
    generated = method.generator(small[0], torch.ones(len(x), 1, 1, 1))
    expected = mgd_loss(generated, small[1]).item() * PUBLISHED / small[1][0].numel()
    loss = method.losses(one)["mgd"]
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert next(method.student.parameters()).grad.abs().max() > 0
