import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError, distillation
from kdbench.method.mixing import drawn_share, partners_of
from kdbench.methods.mixskd import adversarial_loss, blended, discriminator, map_loss, mutual_loss


def apart(case):
    """The logits of each exit as a leaf of its own, as the norms of the reference are; and the maps."""
    logits = [z.clone().requires_grad_() for z in case.student.pop("exit_logits").detach()]
    maps = [value for name, value in case.student.items() if name.startswith("exit_map_")]
    case.student = {f"exit_logits_{n}": z for n, z in enumerate(logits)} | case.student
    return logits, maps


def test_the_total_is_the_reference(reference):
    case = reference("mixskd")
    exits, maps = apart(case)
    labels, index, share = case.fixed["labels"], case.fixed["index"], case.params["lam"]
    fused, fused_mixed = case.student["ensemble_logits"], case.student["ensemble_mixup_logits"]
    plain, mixed = zip(*(z.chunk(2) for z in exits), strict=True)
    plain_maps, mixed_maps = zip(*(x.chunk(2) for x in maps), strict=True)
    ce = sum(F.cross_entropy(z, labels) for z in plain)
    mixed_ce = sum(
        blended(F.cross_entropy(z, labels), F.cross_entropy(z, labels[index]), share)
        for z in (*mixed, fused, fused_mixed)
    )
    means = [blended(z, z[index], share) for z in plain]
    kd = mutual_loss(means, mixed, fused, fused_mixed, case.params["temperature"])
    maps = map_loss([blended(x, x[index], share) for x in plain_maps], mixed_maps)
    parts = {"ce_original": ce, "ce_mixup": mixed_ce, "kl": kd, "feature": maps}
    for name, part in parts.items():
        assert part.item() == pytest.approx(case.entry["parts"][name], rel=1e-9)
    assert (ce + kd + maps).item() == pytest.approx(case.entry["parts"]["total_cifar_script"], rel=1e-9)
    case.check(ce + mixed_ce + kd + maps)


def test_the_discriminators_loss_is_the_reference(reference):
    case = reference("mixskd_adversarial")
    rows = {kind: [case.student.pop(f"{kind}_map_{n}") for n in range(1, 5)] for kind in ("mixed", "mixup")}
    maps = {kind: torch.stack(each).detach().requires_grad_() for kind, each in rows.items()}
    judge = discriminator(3).double()
    names = {"0.weight": "W1", "0.bias": "b1", "2.weight": "W2", "2.bias": "b2"}
    values = {name: case.student[key] for name, key in names.items()}
    case.student = maps | case.student
    judged = [torch.func.functional_call(judge, values, (x.mean(dim=(2, 3)),)) for x in maps.values()]
    case.check(adversarial_loss(*judged))


def by_hand(method, one):
    """The terms with weights 1, each exit on its own, from what the method draws."""
    images, labels = one.images, one.labels
    share, (order,) = drawn_share(one, method.alpha), partners_of(one, torch.arange(len(labels)))
    mixed = share * images + (1 - share) * images[order]
    out = method.student(torch.cat([images, mixed]), features=True)
    exits = [branch(stage) for branch, stage in zip(method.branches, out.stages, strict=False)] + [out]
    plain, z_mixed = zip(*(each.logits.split(len(images)) for each in exits), strict=True)
    maps, mixed_maps = zip(*(each.stages[-1].split(len(images)) for each in exits), strict=True)
    mean_maps = [share * x + (1 - share) * x[order] for x in maps]
    means = [share * z + (1 - share) * z[order] for z in plain]

    def fusion(several):
        return method.fusion.fc(method.fusion.conv(torch.cat(several, dim=1)).mean(dim=(2, 3)))

    fused, fused_mixed = fusion(mean_maps), fusion(mixed_maps)
    soft = share * F.one_hot(labels, 4) + (1 - share) * F.one_hot(labels[order], 4)
    kd = distillation(means[-1], fused_mixed, 3.0) + distillation(z_mixed[-1], fused, 3.0)
    kd += sum(distillation(a, b, 3.0) + distillation(b, a, 3.0) for a, b in zip(means[:-1], z_mixed[:-1], strict=True))
    adversary = 0
    for judge, mean, other in zip(method.discriminators, mean_maps, mixed_maps, strict=True):
        first, second = (judge(x.mean(dim=(2, 3))).sigmoid().log() for x in (mean, other))
        not_first, not_second = ((1 - judge(x.mean(dim=(2, 3))).sigmoid()).log() for x in (mean, other))
        right = [first[:, 0], not_first[:, 1], not_second[:, 0], second[:, 1]]
        adversary -= torch.stack(right).mean()
    return {
        "ce": sum(F.cross_entropy(z, labels) for z in plain),
        "mixed_ce": sum(F.cross_entropy(z, soft) for z in (*z_mixed, fused, fused_mixed)),
        "kd": kd,
        "maps": sum((a - b).square().mean() for a, b in zip(mean_maps, mixed_maps, strict=True)),
        "adversary": adversary,
    }


def test_terms_are_the_weighted_losses_of_all_exits(make, batch):
    weights = {"mixed_ce_weight": 2.0, "kd_weight": 3.0, "map_weight": 4.0, "adversary_weight": 5.0}
    method = make("mixskd", **weights).eval()
    assert len(method.branches) == len(method.discriminators) - 1 == 2
    one = batch(method)
    factors = dict(zip(("ce", "mixed_ce", "kd", "maps", "adversary"), (1, 2, 3, 4, 5), strict=True))
    expected = {name: factors[name] * value.item() for name, value in by_hand(method, one).items()}
    assert {name: value.item() for name, value in method.losses(one).items()} == pytest.approx(expected, rel=1e-4)


def test_two_images_pass_for_each_anchor_in_one_pass(make, batch):
    method = make("mixskd")
    before = method.student.images_passed
    method.losses(batch(method))
    assert method.student.images_passed - before == 12 == method.passes * 6
    assert method.student.stage_modules()[0] is not method.branches[0].stages[0]


def test_targets_have_no_gradient_and_maps_have_one_on_both_sides():
    generator = torch.Generator().manual_seed(0)
    mean, other, fused, fused_mixed = torch.randn(4, 3, 5, generator=generator).unbind()
    tensors = [x.clone().requires_grad_() for x in (mean, other, fused, fused_mixed)]
    loss = mutual_loss([tensors[0]], [tensors[1]], tensors[2], tensors[3], 3.0)
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    assert [g is None for g in gradients] == [False, False, True, True]
    one, two = (torch.randn(2, 3, 2, 2, generator=generator).requires_grad_() for _ in range(2))
    first, second = torch.autograd.grad(map_loss([one], [two]), [one, two])
    torch.testing.assert_close(first, -second)
    assert first.abs().max() > 0


@pytest.mark.parametrize("adversary", ["reversed", "published"])
def test_the_features_climb_where_the_discriminators_descend(make, batch, adversary):
    gradients = []
    for how in ("published", adversary):
        method = make("mixskd", adversary=how)
        term = method.losses(batch(method))["adversary"]
        gradients.append(
            torch.autograd.grad(
                term, [method.discriminators[0][0].weight, method.branches[0].stages[0][0].conv1.weight]
            )
        )
    sign = 1 if adversary == "published" else -1
    torch.testing.assert_close(gradients[1][0], gradients[0][0])
    torch.testing.assert_close(gradients[1][1], sign * gradients[0][1])
    assert gradients[0][1].abs().max() > 0


def test_without_an_adversary_there_are_no_discriminators(make, batch):
    method = make("mixskd", adversary="off")
    assert not list(method.discriminators.parameters())
    assert set(method.losses(batch(method))) == {"ce", "mixed_ce", "kd", "maps"}


def test_shares_are_drawn_from_beta_and_each_image_is_a_partner_once(make, batch):
    method = make("mixskd")
    steps = [batch(method, step=step) for step in range(400)]
    shares = torch.tensor([drawn_share(one, 0.4) for one in steps])
    orders = [partners_of(one, torch.arange(6))[0] for one in steps]
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert shares.var().item() == pytest.approx(0.25 / 1.8, abs=0.02)  # a²/((2a)²(2a + 1)) of Beta(a, a)
    assert all(sorted(order.tolist()) == list(range(6)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) > 100


def test_exits_are_those_of_the_stages_and_the_fusion(make, batch):
    method = make("mixskd").eval()
    exits = method.exits(batch(method).images)
    assert list(exits) == ["exit1", "exit2", "fused"]
    assert all(logits.shape == (6, 4) for logits in exits.values())


def test_a_share_that_cannot_be_drawn_is_refused(make):
    with pytest.raises(RunError, match=r"MixSKD\.alpha=0 must be above 0"):
        make("mixskd", alpha=0.0)


@pytest.mark.parametrize("student", ["wrn_16_1", "vit_tiny"])
def test_students_of_other_families(make, batch, student):
    method = make("mixskd", student=student)
    sum(method.losses(batch(method)).values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
