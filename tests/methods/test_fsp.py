import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.methods.fsp import fsp_loss, fsp_matrix


def maps(batch=3, widths=(2, 3, 4), sides=(8, 4, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, side, side, generator=generator, dtype=torch.float64)
        for width, side in zip(widths, sides, strict=True)
    ]


def slow_matrix(first, second, pool):
    """Of one image, (C, H, W) arrays; the first is the larger map."""
    ratio = first.shape[1] // second.shape[1]
    small = first.reshape(len(first), second.shape[1], ratio, second.shape[2], ratio)
    small = small.mean(axis=(2, 4)) if pool == "average" else small.max(axis=4).max(axis=2)
    pixels = [(row, column) for row in range(second.shape[1]) for column in range(second.shape[2])]
    return [[sum(a[p] * b[p] for p in pixels) / len(pixels) for b in second] for a in small]


@pytest.mark.parametrize("name", ["fsp", "fsp_downsampled"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    case.check(fsp_loss(case.maps("student"), case.maps("teacher")))


@pytest.mark.parametrize("pooling", ["average", "maximum"])
def test_the_loss_is_its_definition(pooling):
    student, teacher = maps(), maps(seed=1)
    expected = 0.0
    for place in (0, 1):
        matrices = [
            [slow_matrix(each[place][b].numpy(), each[place + 1][b].numpy(), pooling) for b in range(3)]
            for each in (student, teacher)
        ]
        ours, theirs = (torch.tensor(each, dtype=torch.float64) for each in matrices)
        assert torch.allclose(fsp_matrix(*student[place : place + 2], pooling), ours)
        expected += (ours - theirs).square().mean().item()
    assert fsp_loss(student, teacher, pooling).item() == pytest.approx(expected, rel=1e-12)


def test_the_smaller_map_may_be_the_first():
    small, large = maps(widths=(2, 3), sides=(2, 4))
    assert torch.allclose(fsp_matrix(small, large), fsp_matrix(large, small).transpose(1, 2))


def test_gradients_are_those_of_finite_differences():
    student, teacher = maps(batch=2), maps(batch=2, seed=1)
    assert torch.autograd.gradcheck(lambda *x: fsp_loss(x, teacher), [x.requires_grad_() for x in student])


@pytest.mark.parametrize("pooling", ["average", "maximum"])
def test_zero_maps_and_equal_rows_have_a_finite_value_and_gradient(pooling):
    teacher = maps(seed=1)
    for value in (0.0, 0.7):
        student = [torch.full_like(x, value).requires_grad_() for x in teacher]
        loss = fsp_loss(student, teacher, pooling)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, student))


def test_the_resolution_of_the_teacher_and_the_order_and_size_of_the_batch_do_not_matter():
    student, teacher = maps(), maps(seed=1)
    loss = fsp_loss(student, teacher).item()
    larger = [F.interpolate(x, scale_factor=2) for x in teacher]
    assert fsp_loss(student, larger).item() == pytest.approx(loss)
    assert fsp_loss([x.flip(0) for x in student], [x.flip(0) for x in teacher]).item() == pytest.approx(loss)
    assert fsp_loss(*([x.repeat(2, 1, 1, 1) for x in e] for e in (student, teacher))).item() == pytest.approx(loss)


def test_phase_1_is_the_weighted_loss_of_stem_and_stages(make, batch):
    method = make("fsp", weight=2.0, pooling="maximum").eval()
    one = batch(method)
    ours, theirs = (net(one.images, features=("stem",)) for net in (method.student, method.teacher))
    lists = [ours.stem, *ours.stages], [theirs.stem, *theirs.stages]
    term = method.relations(one)["fsp"].item()
    assert term == pytest.approx(2 * fsp_loss(*lists, "maximum").item(), rel=1e-5)
    assert term != pytest.approx(2 * fsp_loss(*lists).item(), rel=1e-3)


def test_phase_2_is_cross_entropy_and_distillation_if_wanted(make, batch):
    method = make("fsp").eval()
    one = batch(method)
    passed = method.teacher.images_passed
    terms = method.losses(one)
    assert list(terms) == ["ce"]
    assert terms["ce"] == make("ce").eval().losses(one)["ce"]
    assert method.teacher.images_passed == passed, "the teacher is not asked"
    method.kd_weight, method.temperature = 0.5, 2.0
    expected = 0.5 * distillation(method.student(one.images), method.teacher(one.images), 2.0).item()
    assert method.losses(one)["kd"].item() == pytest.approx(expected, rel=1e-5)


def test_joint_training_has_one_phase_with_both_terms(make, batch):
    method = make("fsp", joint=True, weight=3.0, kd_weight=0.5).eval()
    one = batch(method)
    (phase,) = method.phases()
    assert (phase.share, phase.losses, phase.trains) == (None, None, None)
    terms = method.losses(one)
    assert list(terms) == ["ce", "fsp", "kd"]
    assert terms["fsp"].item() == pytest.approx(method.relations(one)["fsp"].item(), rel=1e-6)


def test_share_and_place_of_phase_1(make):
    first, second = make("fsp", share=0.25, on_top=True).phases()
    assert (first.share, first.on_top, first.rate, second.share) == (0.25, True, "constant", None)


@pytest.mark.parametrize(
    ("student", "teacher", "widths"),
    [
        ("resnet8", "resnet8x4", ("16, 16, 32, 64", "32, 64, 128, 256")),
        ("resnet8", "resnet18", ("16, 16, 32, 64", "64, 64, 128, 256, 512")),
        ("wrn_16_1", "wrn_16_2", ("16, 16, 32, 64", "16, 32, 64, 128")),
    ],
)
def test_a_teacher_of_another_width_is_refused(make, student, teacher, widths):
    with pytest.raises(RunError, match=r"^fsp needs a teacher as wide as the student, map by map: ") as error:
        make("fsp", student=student, teacher=teacher)
    assert f"the student have {widths[0]} channels, those of the teacher {widths[1]}; a deeper" in str(error.value)


@pytest.mark.parametrize(("student", "teacher"), [("wrn_16_1", "resnet8"), ("vit_tiny", "vit_tiny")])
def test_networks_of_one_width_fit_whatever_their_family(make, batch, student, teacher):
    method = make("fsp", student=student, teacher=teacher)
    method.relations(batch(method))["fsp"].backward()
    assert next(method.student.parameters()).grad.isfinite().all()


def test_widths_are_found_without_a_trace(make):
    student = make("fsp").student
    assert student.training
    assert student.images_passed == 0
    untouched = dict(make("ce").student.named_buffers())
    assert all(torch.equal(value, untouched[name]) for name, value in student.named_buffers())
