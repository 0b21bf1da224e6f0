import numpy as np
import pytest
import torch

from kdbench.methods.sp import similarities, similarity_loss


def maps(*shapes):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", ["sp", "sp_resolution", "sp_equal_images", "sp_zero_map"])
def test_the_loss_is_the_reference(reference, name):
    case = reference(name)
    (x,), (t,) = (
        (case.maps("student"), case.maps("teacher"))
        if name == "sp"
        else ([case.student["student_map"]], [case.fixed["teacher_map"]])
    )
    case.check(similarity_loss(x, t))


def slow_similarities(x: np.ndarray) -> np.ndarray:
    g = np.array([[(a * b).sum() for b in x] for a in x])
    return np.array([row / np.sqrt((row**2).sum()) for row in g])


def test_the_loss_is_its_definition():
    x, t = maps((5, 3, 4, 4), (5, 6, 2, 2))
    a, b = slow_similarities(x.detach().numpy()), slow_similarities(t.detach().numpy())
    assert similarity_loss(x, t).item() == pytest.approx(((a - b) ** 2).sum() / 25, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: similarity_loss(x, t.detach()), x)


def test_a_map_of_zeros_has_a_moderate_gradient():
    x, t = maps((4, 3, 2, 2), (4, 3, 2, 2))
    usual = torch.autograd.grad(similarity_loss(x, t.detach()), x)[0].norm()
    with torch.no_grad():
        x[1] = 0
    (gradient,) = torch.autograd.grad(similarity_loss(x, t.detach()), x)
    assert gradient.isfinite().all()
    assert 0 < gradient.norm() < 10 * usual
    nothing = torch.zeros_like(x).requires_grad_()
    loss = similarity_loss(nothing, t.detach())
    assert loss.item() == pytest.approx(0.25)  # B rows of length 1 over B²
    assert (torch.autograd.grad(loss, nothing)[0] == 0).all()


def test_images_that_are_all_equal_teach_nothing():
    x, t = maps((1, 3, 2, 2), (4, 3, 2, 2))
    same = x.detach().repeat(4, 1, 1, 1).requires_grad_()
    loss = similarity_loss(same, t.detach())
    assert loss.isfinite()
    assert torch.autograd.grad(loss, same)[0].isfinite().all()
    torch.testing.assert_close(similarity_loss(same, 3 * same), torch.zeros((), dtype=torch.float64))


def test_similarities_ignore_scale_and_rotation_and_follow_the_order_of_images():
    (x,) = maps((5, 3, 2, 2))
    torch.testing.assert_close(similarities(-4 * x.flip(1).transpose(2, 3)), similarities(x))
    torch.testing.assert_close(similarities(x.flip(0)), similarities(x).flip(0, 1))


def test_terms_are_the_weighted_losses_of_the_deepest_maps(make, batch):
    method = make("sp").eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages[-1] for network in (method.student, method.teacher))
    losses = method.losses(one)
    assert losses["similarity"].item() == pytest.approx(3000 * similarity_loss(x, t).item(), rel=1e-5)
    assert losses["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_added_with_its_weight_and_temperature(make, batch, temperature):
    terms = []
    for name in ("sp", "kd"):
        method = make(name, kd_weight=0.5, temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        terms.append(method.losses(batch(method))["kd"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("sp"))
    base = make("sp").losses(one)
    assert base.keys() == {"ce", "similarity"}
    changed = make("sp", similarity_weight=30.0).losses(one)
    assert changed["similarity"].item() == pytest.approx(base["similarity"].item() / 100)


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "mobilenetv2"), ("mobilenetv2", "wrn_16_1")])
def test_stages_resolutions_and_widths_may_differ(make, batch, student, teacher):
    method = make("sp", student=student, teacher=teacher, image=(1, 16, 16)).eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages[-1] for network in (method.student, method.teacher))
    assert method.losses(one)["similarity"].item() == pytest.approx(3000 * similarity_loss(x, t).item(), rel=1e-5)


def test_products_are_not_in_half_precision(make, batch):
    method = make("sp").eval()
    one = batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(one)["similarity"]
        x, t = (network(one.images, features=True).stages[-1].float() for network in (method.student, method.teacher))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(3000 * similarity_loss(x, t).item(), rel=1e-5)
