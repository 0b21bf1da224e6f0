from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.methods.byot_tpami import Exit, hint_loss, logit_loss


def test_the_loss_is_the_reference(reference):
    case = reference("byot_tpami")
    params, labels = case.params, case.fixed["labels"]
    deepest, *shallow = case.student["exit_logits"]  # the deepest first, as the features
    target, *features = case.student["exit_features"]
    ce = torch.stack([F.cross_entropy(z, labels) for z in shallow]).sum()
    logit = torch.stack([logit_loss(z, deepest, params["temperature"]) for z in shallow]).sum()
    adapters = zip(case.fixed["adaptation_weight"], case.fixed["adaptation_bias"], strict=True)
    adapted = [F.linear(feature, *adapter) for feature, adapter in zip(features, adapters, strict=True)]
    hint = torch.stack([hint_loss(x, target) for x in adapted[1:]]).sum()  # none for the exit next to the deepest
    parts = {"ce_shallow_sum": ce, "soft_ce_sum": logit, "hint_sum": hint}
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {name: case.entry["parts"][name] for name in parts}, rel=1e-6
    )
    weights = params["ce_weight"], params["logit_weight"], params["hint_weight"]
    weighted = sum(weight * part for weight, part in zip(weights, parts.values(), strict=True))
    case.check(F.cross_entropy(deepest, labels) + weighted)


def test_exits_have_the_parameters_of_the_authors():
    exits = [Exit((64, 128, 256, 512)[stage:], 100) for stage in range(3)]
    assert sum(p.numel() for one in exits for p in one.parameters()) == 1_063_212


def test_terms_add_up_to_the_definition(make, batch):
    method = make(
        "byot_tpami", student="four_stages", image=(1, 16, 16), ce_weight=0.5, logit_weight=0.25, hint_weight=0.1
    ).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    ce = logit = hint = 0.0
    for number, (shallow, stage) in enumerate(zip(method.shallow, out.stages[:-1], strict=True)):
        mask = F.interpolate(shallow.attention(stage), stage.shape[2:], mode="bilinear").sigmoid()
        feature = shallow.blocks(stage * mask).mean((2, 3))
        logits = shallow.fc(feature)
        ce += F.cross_entropy(logits, one.labels).item()
        logit += -((out.logits / 3).softmax(1) * (logits / 3).log_softmax(1)).sum(1).mean().item()
        if number < 2:
            hint += (method.adapters[number](feature) - out.pooled).square().sum().sqrt().item()
    expected = {
        "ce": F.cross_entropy(out.logits, one.labels).item(),
        "exit_ce": 0.5 * ce,
        "exit_logit": 0.25 * logit,
        "exit_hint": 0.1 * hint,
    }
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)
    exits = method.exits(one.images)
    assert list(exits) == ["exit1", "exit2", "exit3"]
    torch.testing.assert_close(exits["exit3"], logits)


@pytest.mark.parametrize(("hints", "without"), [("published", 2), ("comment", 0)])
def test_one_exit_has_no_hint(make, batch, hints, without):
    method = make("byot_tpami", student="four_stages", image=(1, 16, 16), hints=hints)
    hint = method.losses(batch(method))["exit_hint"]
    weights = [one.blocks[0][0].weight for one in method.shallow]
    gradients = torch.autograd.grad(hint, weights, allow_unused=True)
    assert [gradient is None for gradient in gradients] == [number == without for number in range(3)]


def test_the_deepest_classifier_is_a_target_only(make, batch):
    method = make("byot_tpami")
    terms = method.losses(batch(method))
    last = list(method.student.layer3.parameters()) + list(method.student.fc.parameters())
    for name in ("exit_ce", "exit_logit", "exit_hint"):
        assert all(g is None for g in torch.autograd.grad(terms[name], last, allow_unused=True, retain_graph=True))


def test_the_hint_grows_with_the_root_of_the_batch_unless_it_is_scaled(make, batch):
    hints = {}
    for reference in (0, 6):
        method = make("byot_tpami", reference_batch=reference).eval()
        one = batch(method)
        twice = replace(one, images=one.images.repeat(2, 1, 1, 1), labels=one.labels.repeat(2))
        hints[reference] = [method.losses(each)["exit_hint"].item() for each in (one, twice)]
    assert hints[0][1] == pytest.approx(2**0.5 * hints[0][0], rel=1e-5)
    assert hints[6] == pytest.approx([hints[0][0]] * 2, rel=1e-5)


def test_equal_features_have_a_hint_of_zero_and_no_gradient():
    x = torch.ones(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(hint_loss(x, torch.ones(3, 4)), x)
    assert not gradient.any()


def test_maps_of_odd_sides_and_of_one_pixel_have_masks(make, batch):
    for image in ((1, 7, 5), (1, 1, 2)):
        method = make("byot_tpami", image=image)
        assert all(z.shape == (6, 4) for z in method.exits(batch(method).images).values())
    assert [len(one.blocks) for one in method.shallow] == [2, 1]
    assert all(isinstance(module, nn.Linear) for module in method.adapters)
