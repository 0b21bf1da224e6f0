import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdbench.method import distillation
from kdbench.method.logits import standardised


@pytest.mark.parametrize("name", ["ls_kd_T2", "ls_kd_constant_row", "ls_kd_shift_scale"])
def test_the_divergence_is_the_reference(reference, name):
    case = reference(name)
    ours, theirs = standardised(case.student["student_logits"]), standardised(case.fixed["teacher_logits"])
    case.check(distillation(ours, theirs, case.params["base_temperature"]))


def test_the_terms_are_the_reference(reference):
    case = reference("ls_kd_total")
    z, t = case.student["student_logits"], case.fixed["teacher_logits"]
    parts = {
        "ce": case.params["ce_weight"] * F.cross_entropy(z, case.fixed["labels"]),
        "kd": case.params["kd_weight"]
        * distillation(standardised(z), standardised(t), case.params["base_temperature"]),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


def test_terms_are_the_definition(make, batch):
    method = make("ls_kd", ce_weight=0.5, kd_weight=3.0, temperature=1.5).eval()
    one = batch(method)
    terms = method.losses(one)
    z, t = (network(one.images).double().numpy(force=True) for network in (method.student, method.teacher))
    p, q = (np.exp((x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True) / 1.5) for x in (z, t))
    p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
    assert terms["kd"].item() == pytest.approx(3 * 1.5**2 * (q * np.log(q / p)).sum(1).mean(), rel=1e-4)
    assert terms["ce"].item() == pytest.approx(0.5 * make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


def test_offset_and_scale_of_the_logits_matter_to_the_cross_entropy_alone(make, batch):
    method = make("ls_kd").eval()
    one = batch(method)
    before = method.losses(one)
    with torch.no_grad():
        for factor, network in ((3.0, method.student), (0.5, method.teacher)):
            network.fc.weight.mul_(factor)
            network.fc.bias.mul_(factor).add_(2.0)
    after = method.losses(one)
    assert after["kd"].item() == pytest.approx(before["kd"].item(), rel=1e-3)
    assert after["ce"].item() != pytest.approx(before["ce"].item(), rel=1e-3)


def test_student_and_teacher_of_equal_shape_of_logits_have_nothing_to_learn():
    t = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert distillation(standardised(4 * t + 1), standardised(t), 2.0).item() == pytest.approx(0, abs=1e-12)
