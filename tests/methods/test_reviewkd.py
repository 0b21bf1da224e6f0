import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.method.connectors import pooled
from kdbench.methods.reviewkd import Review, hcl


def loaded(case):
    """The fusions of a case, whose lowest level is 1."""
    ours, theirs = case.maps("student"), case.maps("teacher")
    review = Review([x.shape[1] for x in ours], [x.shape[1] for x in theirs]).double()
    names = {"conv1.conv": "conv1", "conv1.bn": "bn1", "conv2.conv": "conv2", "conv2.bn": "bn2", "attention": "att"}
    state = {}
    for level in range(len(ours)):
        for ours_, theirs_ in names.items():
            for part in ("weight", "bias"):
                if (value := case.fixed.get(f"{theirs_}_{level + 1}_{part}")) is not None:
                    state[f"{level}.{ours_}.{part}"] = value
    missing, unexpected = review.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in name or "tracked" in name for name in missing)
    return review


def total(outputs, targets):
    return torch.stack([hcl(x, t) for x, t in zip(outputs, targets, strict=True)]).sum()


@pytest.mark.parametrize("name", ["reviewkd_hcl", "reviewkd_hcl_sizes"])
def test_the_hierarchical_context_loss_is_the_reference(reference, name):
    case = reference(name)
    ours, theirs = case.maps("student"), case.maps("teacher")
    for level, value in enumerate(case.entry.get("parts", {}).values()):
        assert hcl(ours[level], theirs[level]).item() == pytest.approx(value, rel=1e-6)
    case.check(total(ours, theirs))


@pytest.mark.parametrize("name", ["reviewkd_full", "reviewkd_upsampled"])
def test_the_fused_outputs_are_the_reference(reference, name):
    case = reference(name)
    targets = case.maps("teacher")
    outputs = loaded(case)(case.maps("student"), [t.shape[2:] for t in targets])
    for output, value in zip(outputs, case.entry["parts"].values(), strict=True):
        assert output.abs().mean().item() == pytest.approx(value, rel=1e-6)
    case.check(total(outputs, targets))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_the_hierarchical_context_loss_is_its_definition(side):
    generator = torch.Generator().manual_seed(side)
    x, target = (torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64) for _ in range(2))
    value, weight, weights = F.mse_loss(x, target).item(), 1.0, 1.0
    for smaller in (4, 2, 1):
        if smaller < side:
            weight /= 2
            weights += weight
            value += weight * F.mse_loss(*(pooled(y, (smaller, smaller)) for y in (x, target))).item()
    assert hcl(x, target).item() == pytest.approx(value / weights, rel=1e-10)


def slow_level(fusion, x, above, size):
    """A level image by image and pixel by pixel, but for its convolutions."""
    x = fusion.conv1(x)
    if above is not None:
        fused = torch.zeros_like(x)
        for b in range(len(x)):
            for i in range(x.shape[2]):
                for j in range(x.shape[3]):
                    r = above[b, :, i * above.shape[2] // x.shape[2], j * above.shape[3] // x.shape[3]]
                    both = torch.cat([x[b, :, i, j], r])
                    a = torch.sigmoid(fusion.attention.weight[:, :, 0, 0] @ both + fusion.attention.bias)
                    fused[b, :, i, j] = a[0] * x[b, :, i, j] + a[1] * r
        x = fused
    rows, columns = ([i * side // n for i in range(n)] for n, side in zip(size, x.shape[2:], strict=True))
    x = x[:, :, rows][:, :, :, columns]
    return fusion.conv2(x), x


@torch.no_grad()
def test_fusion_is_its_definition():
    """The student's maps have other resolutions than the teacher's, smaller and larger."""
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, c, side, side, generator=generator, dtype=torch.float64)
        for c, side in ((3, 6), (5, 2), (6, 4), (4, 1))
    ]
    review = Review([3, 5, 6, 4], [7, 6, 2, 3]).double()
    sizes = [(3, 3), (4, 4), (2, 2), (1, 1)]
    above, expected = None, []
    for fusion, x, size in zip(reversed(review), reversed(maps), reversed(sizes), strict=True):
        output, above = slow_level(fusion, x, above, size)
        expected.insert(0, output)
    for output, other in zip(review(maps, sizes), expected, strict=True):
        torch.testing.assert_close(output, other)


def test_the_fused_maps_are_as_wide_as_the_students_feature_and_not_wider_than_512():
    assert Review([16, 32, 64], [8, 8, 8])[0].conv1.conv.out_channels == 64
    assert Review([16, 32, 1280], [8, 8, 8])[0].conv1.conv.out_channels == 512


@pytest.mark.parametrize("student_maps", ["active", "preactivation"])
@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "resnet18"), ("vgg8", "wrn_16_1")])
def test_the_term_is_the_weighted_loss_of_the_deepest_stages(make, batch, student, teacher, student_maps):
    method = make(
        "reviewkd", student=student, teacher=teacher, image=(1, 16, 16), weight=3.0, ramp=0.0, student_maps=student_maps
    ).eval()
    one = batch(method)
    ours, theirs = (n(one.images, features=("preactivations",)) for n in (method.student, method.teacher))
    maps = ours.stages if student_maps == "active" else ours.preactivations
    targets = [*theirs.preactivations[-3:], theirs.pooled[:, :, None, None]]
    outputs = method.review([*maps[-3:], ours.pooled[:, :, None, None]], [t.shape[2:] for t in targets])
    losses = method.losses(one)
    assert losses.keys() == {"ce", "reviewkd"}
    assert losses["reviewkd"].item() == pytest.approx(3 * total(outputs, targets).item(), rel=1e-5)


def test_the_weight_grows_in_a_line_and_then_stays(make, batch):
    method = make("reviewkd", ramp=0.2).eval()
    one = batch(method)
    at = {p: method.losses(type(one)(one.images, one.labels, one.index, 0, one.streams, progress=p)) for p in
          (0.0, 0.05, 0.1, 0.2, 0.6)}  # fmt: skip
    shares = {p: (losses["reviewkd"] / at[0.6]["reviewkd"]).item() for p, losses in at.items()}
    assert shares == pytest.approx({0.0: 0.0, 0.05: 0.25, 0.1: 0.5, 0.2: 1.0, 0.6: 1.0}, rel=1e-5)


def test_maps_of_zeros_and_equal_images():
    review = Review([3, 5], [4, 6])
    targets = [torch.zeros(4, 4, 2, 2), torch.zeros(4, 6, 1, 1)]
    for value in (0.0, 1.0):
        maps = [torch.full((4, 3, 4, 4), value).requires_grad_(), torch.full((4, 5, 1, 1), value).requires_grad_()]
        outputs = review(maps, [t.shape[2:] for t in targets])
        assert all(g.isfinite().all() for g in torch.autograd.grad(total(outputs, targets), maps))


def test_networks_without_pre_activations_are_refused(make):
    with pytest.raises(RunError, match="last ReLU of each stage, which VisionTransformer does not offer; use another"):
        make("reviewkd", teacher="vit_tiny")
    assert make("reviewkd", student="vit_tiny")
    with pytest.raises(
        RunError,
        match="needs maps before the last ReLU of each stage, which VisionTransformer does not offer; use 'active'",
    ):
        make("reviewkd", student="vit_tiny", student_maps="preactivation")


def test_kd_comes_in_addition(make, batch):
    method = make("reviewkd", kd_weight=2.0, temperature=3.0).eval()
    one = batch(method)
    expected = 2 * distillation(method.student(one.images), method.teacher(one.images), 3.0)
    assert method.losses(one)["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
