import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.methods.afd import Attention, matching_loss


def maps(*shapes, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def loaded(case):
    """The attention module with the weights of a reference case."""
    widths, target_widths = ([x.shape[1] for x in case.maps(whose)] for whose in ("student", "teacher"))
    attention = Attention(widths, target_widths, case.params["qk_dim"]).double()
    layers = {"bilinear": "bilinear"}
    layers |= {f"keys.{n}": f"key_{n}" for n in range(len(widths))}
    layers |= {f"queries.{n}": f"query_{n}" for n in range(len(target_widths))}
    weights = {
        f"{ours}.{place}.{part}": case.fixed[f"{theirs}{infix}_{part}"]
        for ours, theirs in layers.items()
        for place, infix in enumerate(("", "_bn"))
        for part in ("weight", "bias")
    }
    positions = {"positions": case.fixed["position_student"], "target_positions": case.fixed["position_teacher"]}
    attention.load_state_dict(attention.state_dict() | weights | positions)
    return attention


def test_attention_and_loss_are_the_reference(reference):
    case = reference("afd")
    x, t = case.maps("student"), case.maps("teacher")
    attention = loaded(case)(x, t)
    means = attention.mean(dim=0).flatten().tolist()
    assert means == pytest.approx(np.ravel(case.entry["parts"]["attention"]).tolist(), rel=1e-6)
    case.check(matching_loss(x, t, attention))


def test_the_loss_is_its_definition():
    x, t = maps((3, 2, 4, 4), (3, 5, 2, 2)), maps((3, 3, 4, 4), (3, 4, 2, 2), (3, 6, 1, 1), seed=5)
    attention = torch.rand(3, 3, 2, dtype=torch.float64)
    expected = 0.0
    for b in range(3):
        for j, target in enumerate(t):
            v = target[b].square().mean(0)
            for i, each in enumerate(x):
                u = F.adaptive_avg_pool2d(each[b].square().mean(0)[None], v.shape)[0]
                u, w = (a.detach().numpy() for a in (u, v))
                distance = ((u / np.sqrt((u**2).sum()) - w / np.sqrt((w**2).sum())) ** 2).mean()
                expected += attention[b, j, i].item() * distance / 3
    assert matching_loss(x, t, attention).item() == pytest.approx(expected, rel=1e-10)


def test_gradients_are_those_of_finite_differences(reference):
    case = reference("afd")
    attention, targets = loaded(case), case.maps("teacher")
    assert torch.autograd.gradcheck(
        lambda x, y: matching_loss([x, y], targets, attention([x, y], targets)), case.maps("student"), fast_mode=True
    )


def test_attention_is_a_distribution_over_the_students_stages():
    x, t = maps((6, 2, 4, 4), (6, 5, 2, 2)), maps((6, 3, 4, 4), (6, 4, 2, 2), (6, 6, 1, 1), seed=5)
    attention = Attention([2, 5], [3, 4, 6], 8).double()
    alpha = attention(x, t)
    assert alpha.shape == (6, 3, 2)
    torch.testing.assert_close(alpha.sum(dim=2), torch.ones(6, 3, dtype=torch.float64))
    assert (alpha > 0).all()
    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(attention([m[shuffled] for m in x], [m[shuffled] for m in t]), alpha[shuffled])


def test_the_shift_of_all_keys_does_not_matter():
    x, t = maps((6, 2, 4, 4), (6, 5, 2, 2)), maps((6, 3, 4, 4), (6, 4, 2, 2), seed=5)
    attention = Attention([2, 5], [3, 4], 8).double()
    before = attention(x, t)
    attention.bilinear[1].bias += torch.randn(16)
    torch.testing.assert_close(attention(x, t), before)


def test_maps_of_zeros_have_a_finite_gradient():
    x, t = maps((4, 3, 4, 4), (4, 4, 2, 2)), maps((4, 3, 4, 4), (4, 4, 2, 2), seed=5)
    attention = Attention([3, 4], [3, 4], 8).double()
    with torch.no_grad():
        x[0][0] = 0
        t[0][1] = 0
        x[1][2] = x[1][3]
    loss = matching_loss(x, t, attention(x, t))
    gradients = torch.autograd.grad(loss, [*x, *(p for p in attention.parameters() if p.requires_grad)])
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients)
    assert max(g.norm() for g in gradients) < 10


def test_terms_are_the_weighted_losses(make, batch):
    method = make("afd", teacher="resnet8x4").eval()
    one = batch(method)
    x, t = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    losses = method.losses(one)
    matching = matching_loss(x, t, method.attention(x, t))
    assert losses["matching"].item() == pytest.approx(200 * matching.item(), rel=1e-5)
    assert losses["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_added_with_its_weight_and_temperature(make, batch, temperature):
    terms = []
    for name in ("afd", "kd"):
        method = make(name, kd_weight=0.5, temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        terms.append(method.losses(batch(method))["kd"].item())
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("afd"))
    base = make("afd").losses(one)
    assert base.keys() == {"ce", "matching", "kd"}
    changed = make("afd", matching_weight=2.0, kd_weight=1.8).losses(one)
    assert changed["matching"].item() == pytest.approx(base["matching"].item() / 100)
    assert changed["kd"].item() == pytest.approx(base["kd"].item() * 2)
    assert "kd" not in make("afd", kd_weight=0.0).losses(one)
    assert make("afd", dim=16).attention.positions.shape == (3, 16)


def test_student_and_attention_learn_from_the_matching(make, batch):
    method = make("afd")
    method.losses(batch(method))["matching"].backward()
    learning = [p for p in method.attention.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    assert all(p.grad is not None for p in method.student.body().parameters())


@pytest.mark.parametrize(("student", "teacher"), [("resnet8", "mobilenetv2"), ("mobilenetv2", "wrn_16_1")])
def test_stages_resolutions_and_widths_may_differ(make, batch, student, teacher):
    method = make("afd", student=student, teacher=teacher, image=(1, 16, 16))
    losses = method.losses(batch(method))
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["matching"] > 0


def test_attention_is_not_in_half_precision(make, batch):
    method = make("afd").eval()
    one = batch(method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(one)["matching"]
        x, t = (
            [m.float() for m in network(one.images, features=True).stages]
            for network in (method.student, method.teacher)
        )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(200 * matching_loss(x, t, method.attention(x, t)).item(), rel=1e-5)
