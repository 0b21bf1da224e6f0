import numpy as np
import pytest
import torch
from torch import nn

from kdbench.method import RunError, distillation
from kdbench.methods.catkd import binarised, catkd_loss, class_maps


@pytest.mark.parametrize("name", ["catkd_normalised", "catkd_plain", "catkd_binary", "catkd_zero_map"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    ours = class_maps(case.student["student_map"], case.student["student_fc_weight"])
    theirs = class_maps(case.fixed["teacher_map"], case.fixed["teacher_fc_weight"])
    params = case.params
    case.check(
        catkd_loss(ours, binarised(theirs) if params["binarize"] else theirs, params["resolution"], params["normalize"])
    )


def test_a_map_of_zeros_has_no_gradient(reference):
    case = reference("catkd_zero_map")
    x = case.student["student_map"]
    ours = class_maps(x, case.student["student_fc_weight"])
    theirs = class_maps(case.fixed["teacher_map"], case.fixed["teacher_fc_weight"])
    (gradient,) = torch.autograd.grad(catkd_loss(ours, theirs, 2, normalise=True), x)
    zero = x.detach().flatten(1).abs().sum(dim=1) == 0
    assert zero.sum() == 1
    assert (gradient[zero] == 0).all()
    assert (gradient[~zero] != 0).any()
    assert gradient.norm() < 1


def slow(x, weight, resolution, normalise):
    """Class maps of one image, class by class and pixel by pixel, averaged over blocks."""
    width, height, _ = x.shape
    step = height // resolution
    maps = np.zeros((len(weight), resolution, resolution))
    for k, row in enumerate(weight):
        for i in range(resolution * step):
            for j in range(resolution * step):
                maps[k, i // step, j // step] += sum(row[c] * x[c, i, j] for c in range(width)) / step**2
    return maps / np.sqrt((maps**2).sum(axis=(1, 2), keepdims=True)) if normalise else maps


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_its_definition(normalise):
    generator = torch.Generator().manual_seed(1)
    x, target, weight, other = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 5, 4, 4), (3, 6, 8, 8), (7, 5), (7, 6))
    )
    ours, theirs = (
        np.array([slow(image, w.numpy(), 2, normalise) for image in m.numpy()])
        for m, w in ((x, weight), (target, other))
    )
    loss = catkd_loss(class_maps(x, weight), class_maps(target, other), 2, normalise)
    assert loss.item() == pytest.approx(((ours - theirs) ** 2).mean(), rel=1e-10)


@pytest.mark.parametrize("network", ["resnet8", "wrn_16_1", "mobilenetv2", "shufflenetv2_x0_5", "vit_tiny"])
def test_the_average_of_class_maps_is_the_logits_but_for_the_bias(make, batch, network):
    """Also where the classifier reads the map behind further layers."""
    method = make("catkd", student=network, image=(1, 16, 16))
    out = method.student.eval()(batch(method).images, features=("unpooled",))
    fc = method.student.fc
    logits = class_maps(out.unpooled, fc.weight).mean(dim=(2, 3)) + fc.bias
    torch.testing.assert_close(logits, out.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("binarise", [False, True])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_term_is_the_weighted_loss(make, batch, binarise, normalise):
    method = make("catkd", teacher="wrn_16_1", image=(1, 16, 16), weight=3.0, binarise=binarise, normalise=normalise)
    one = batch(method.eval())
    ours, theirs = (
        class_maps(network(one.images, features=("unpooled",)).unpooled, network.fc.weight)
        for network in (method.student, method.teacher)
    )
    loss = catkd_loss(ours, binarised(theirs) if binarise else theirs, 2, normalise)
    losses = method.losses(one)
    assert losses.keys() == {"ce", "catkd"}
    assert losses["catkd"].item() == pytest.approx(3 * loss.item(), rel=1e-4)


def test_the_students_classifier_learns_from_the_loss_and_its_bias_does_not(make, batch):
    method = make("catkd", image=(1, 16, 16))
    method.losses(batch(method))["catkd"].backward()
    assert method.student.fc.weight.grad.abs().max() > 0
    assert method.student.fc.bias.grad is None
    assert method.teacher.fc.weight.grad is None


def test_running_statistics_move_once_a_step(make, batch):
    method = make("catkd", student="wrn_16_1", image=(1, 16, 16))
    method.losses(batch(method))
    counts = [m.num_batches_tracked.item() for m in method.student.modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(counts) == {1}


def test_a_resolution_of_nothing_is_refused(make):
    with pytest.raises(RunError, match=r"CATKD.resolution=0 must be at least 1 pixel"):
        make("catkd", resolution=0)


def test_a_classifier_that_reads_something_else_is_refused(make):
    """A network of a library whose head widens the averaged map."""
    pytest.importorskip("timm")
    with pytest.raises(
        RunError, match="catkd needs a teacher whose classifier reads the average of its deepest map: the map has"
    ):
        make("catkd", teacher="timm/mobilenetv3_small_050", image=(3, 32, 32))


def test_kd_comes_in_addition(make, batch):
    method = make("catkd", kd_weight=2.0, temperature=3.0).eval()
    one = batch(method)
    expected = 2 * distillation(method.student(one.images), method.teacher(one.images), 3.0)
    assert method.losses(one)["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
