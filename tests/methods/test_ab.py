import numpy as np
import pytest
import torch

from kdbench.method import RunError, distillation, second_task, softened_kl
from kdbench.method.connectors import Regressor
from kdbench.methods.ab import boundary_loss


def maps(batch=3, widths=(2, 4), sides=(4, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, side, side, generator=generator, dtype=torch.float64)
        for width, side in zip(widths, sides, strict=True)
    ]


def slow(student, teacher, margin):
    total = 0.0
    for stage, (ours, theirs) in enumerate(zip(student, teacher, strict=True), start=1):
        for p, t in zip(ours.numpy().ravel(), theirs.numpy().ravel(), strict=True):
            if t <= 0 and p > -margin:
                total += 2.0 ** (stage - len(student)) * (p + margin) ** 2
            if t > 0 and p <= margin:
                total += 2.0 ** (stage - len(student)) * (p - margin) ** 2
    return 3 / 1000 * total / len(student[0])


def test_the_loss_is_the_reference(reference):
    case = reference("ab")
    case.check(boundary_loss(case.maps("student"), case.maps("teacher"), case.params["margin"]))


def test_the_loss_behind_a_connector_is_the_reference(reference):
    case = reference("ab_connector")
    connector = Regressor((4, 2, 2), (5, 2, 2), relu=False).double()
    names = ("conv.weight", "conv.bias", "bn.weight", "bn.bias")
    connector.load_state_dict({name: case.fixed[name.replace(".", "_")] for name in names}, strict=False)
    first, second = case.maps("student")
    case.check(boundary_loss([first, connector(second)], case.maps("teacher"), case.params["margin"]))


@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_the_loss_is_its_definition(margin):
    student, teacher = maps(), maps(seed=1)
    teacher[0][0] = 0.0  # not active
    student[1][0], student[1][1] = -margin, margin  # on the margin of either side
    assert boundary_loss(student, teacher, margin).item() == pytest.approx(slow(student, teacher, margin), rel=1e-12)


def test_four_images_by_hand():
    """p = 0.5, −2, 0.5 and 3 where the teacher is active, inactive, inactive and active: 0.25, 0, 2.25 and 0."""
    student, teacher = (torch.tensor(x).view(4, 1, 1, 1) for x in ([0.5, -2.0, 0.5, 3.0], [0.1, -0.1, 0.0, 7.0]))
    assert boundary_loss([student], [teacher], 1.0).item() == pytest.approx(3 / 1000 * (0.25 + 2.25) / 4)


def test_gradients_are_those_of_finite_differences():
    (x,), (target,) = maps(widths=(2,), sides=(2,)), maps(widths=(2,), sides=(2,), seed=1)
    assert torch.autograd.gradcheck(lambda x: boundary_loss([x], [target], 1.0), x.requires_grad_())


def test_each_stage_counts_half_of_the_next():
    x = torch.full((2, 3, 4, 4), 0.5)
    one = boundary_loss([x], [-x], 1.0).item()
    assert one == pytest.approx(3 / 1000 * 1.5**2 * 48)
    assert boundary_loss([x, x, x], [-x, -x, -x], 1.0).item() == pytest.approx(1.75 * one)


def test_the_scale_of_the_teacher_and_the_size_and_order_of_the_batch_do_not_matter():
    student, teacher = maps(), maps(seed=1)
    loss = boundary_loss(student, teacher, 1.0)
    assert boundary_loss(student, [5 * x for x in teacher], 1.0) == loss
    assert boundary_loss([x.flip(0) for x in student], [x.flip(0) for x in teacher], 1.0) == pytest.approx(loss.item())
    twice = [[x.repeat(2, 1, 1, 1) for x in each] for each in (student, teacher)]
    assert boundary_loss(*twice, 1.0) == pytest.approx(loss.item())


def test_maps_of_zeros_have_a_finite_value_and_gradient():
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = boundary_loss([x], [torch.zeros(2, 3, 4, 4)], 1.0)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(3 / 1000 * 48)
    assert gradient.isfinite().all()


def test_phase_1_compares_the_connected_pre_activations_of_both(make, batch):
    method = make("ab", teacher="resnet8x4", margin=0.5)
    one = batch(method)
    ours, theirs = (net(one.images, features=("preactivations",)) for net in (method.student, method.teacher))
    connected = [c(x) for c, x in zip(method.connectors, ours.preactivations, strict=True)]
    assert min(x.min().item() for x in connected) < 0, "no ReLU"
    expected = boundary_loss(connected, theirs.preactivations, 0.5).item()
    terms = method.boundaries(one)
    assert list(terms) == ["ab"]
    assert terms["ab"].item() == pytest.approx(expected, rel=1e-5)


def test_networks_of_one_shape_need_no_connectors(make):
    assert not list(make("ab").connectors.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "stages"),
    [("resnet8", "resnet18", 3), ("resnet18", "resnet8", 3), ("wrn_16_1", "resnet18", 3), ("vgg8", "wrn_16_1", 3)],
)
def test_unequal_stages_widths_and_resolutions(make, batch, student, teacher, stages):
    method = make("ab", student=student, teacher=teacher)
    assert len(method.connectors) == stages
    loss = method.boundaries(batch(method))["ab"]
    loss.backward()
    trained = [p for p in method.phases()[0].trains if p.grad is not None]
    assert all(p.grad.isfinite().all() for p in trained)
    assert any(p is next(iter(method.student.parameters())) for p in trained)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_network_without_pre_activations_is_refused(make, role):
    with pytest.raises(
        RunError, match=r"^ab needs maps before the last ReLU of each stage, which VisionTransformer does not"
    ):
        make("ab", **{role: "vit_tiny"})


def test_phase_2_is_cross_entropy_alone(make, batch):
    method = make("ab").eval()
    one = batch(method)
    passed = method.teacher.images_passed
    terms = method.losses(one)
    assert list(terms) == ["ce"]
    assert terms["ce"] == make("ce").eval().losses(one)["ce"]
    assert method.teacher.images_passed == passed, "the teacher is not asked"


def test_the_other_objectives_of_phase_2(make, batch):
    method = make("ab", objective="kl", temperature=3.0).eval()
    one = batch(method)
    logits, target = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    assert list(terms) == ["kl"]
    assert terms["kl"].item() == pytest.approx(softened_kl(logits, target, 3.0).item(), rel=1e-5)
    method.objective, method.kd_weight = "ce", 0.5
    terms = method.losses(one)
    assert list(terms) == ["ce", "kd"]
    assert terms["kd"].item() == pytest.approx(0.5 * distillation(logits, target, 3.0).item(), rel=1e-5)


def test_phase_2_trains_all_but_the_connectors(make):
    method = make("ab", teacher="resnet8x4")
    second_task.attach(method, [0, 0, 1, 1])
    second = {id(p) for p in method.phases()[1].trains}
    trained = {name for name, p in method.named_parameters() if id(p) in second}
    assert trained == {name for name, _ in method.named_parameters() if not name.startswith("connectors.")}
    assert "second_head.fc.weight" in trained, "another task of the student, which methods do not know"


def test_share_and_place_of_phase_1(make):
    first, second = make("ab", share=0.25, on_top=True).phases()
    assert (first.share, first.on_top, first.rate, second.share) == (0.25, True, "constant", None)


def test_the_sign_of_a_teacher_neuron_decides_and_not_its_value():
    student, teacher = maps(), maps(seed=1)
    signs = [torch.from_numpy(np.sign(x.numpy())) for x in teacher]
    assert boundary_loss(student, teacher, 1.0) == boundary_loss(student, signs, 1.0)
