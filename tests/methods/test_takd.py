import dataclasses

import numpy as np
import pytest
import torch

from kdbench.method import RunError
from kdbench.methods.takd import averaged_distillation
from kdbench.plan import expand, request


def runs(*words):
    """(method, student, teachers) of each run that a command plans."""
    planned = expand.plan(request.parse(["dataset=cifar100", *words]))
    return [(spec.method, spec.student, spec.teacher) for spec in planned]


def test_the_total_is_the_reference(reference):
    case = reference("takd_total")
    share, temperature = case.params["lambda_"], case.params["temperature"]
    logits, target = case.student["student_logits"], case.fixed["teacher_logits"]
    ce = torch.nn.functional.cross_entropy(logits, case.fixed["labels"])
    kl = averaged_distillation(logits, target, temperature, "elements")
    case.check((1 - share) * ce + share * kl)


def test_both_averages_are_their_definitions():
    z, t = (torch.randn(4, 5, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (1, 2))
    p, q = (np.exp(x.numpy() / 3) / np.exp(x.numpy() / 3).sum(axis=1, keepdims=True) for x in (z, t))
    kl = [sum(b * np.log(b / a) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    assert averaged_distillation(z, t, 3.0, "images").item() == pytest.approx(9 * np.mean(kl), rel=1e-10)
    assert averaged_distillation(z, t, 3.0, "elements").item() == pytest.approx(9 * np.mean(kl) / 5, rel=1e-10)


def test_terms_are_those_of_kd_with_its_weights(make, batch):
    method, kd = make("takd"), make("kd")
    one = batch(method)
    losses, expected = method.losses(one), kd.losses(one)
    assert {n: v.item() for n, v in losses.items()} == pytest.approx({n: v.item() for n, v in expected.items()})


def test_parameters_reach_their_terms(make, batch):
    values = {}
    for name, given in {
        "base": {},
        "weights": {"ce_weight": 0.2, "kd_weight": 1.8},
        "hot": {"temperature": 1.0},
        "elements": {"average": "elements"},
    }.items():
        method = make("takd", **given)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        values[name] = {term: value.item() for term, value in method.losses(batch(method)).items()}
    base = values["base"]
    assert values["weights"] == pytest.approx({term: 2 * value for term, value in base.items()})
    assert values["hot"]["kd"] != pytest.approx(base["kd"], rel=0.05)
    assert values["elements"] == pytest.approx({"ce": base["ce"], "kd": base["kd"] / 4})


def test_an_image_counts_the_same_wherever_it_is_and_offsets_of_logits_do_not(make, batch):
    method = make("takd").eval()
    one = batch(method)
    order = torch.arange(len(one.images)).flip(0)
    flipped = dataclasses.replace(one, images=one.images[order], labels=one.labels[order], index=one.index[order])
    before, after = (sum(method.losses(each).values()).item() for each in (one, flipped))
    assert after == pytest.approx(before, rel=1e-5)
    method.student.fc.bias.data += 3.0
    assert sum(method.losses(one).values()).item() == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(
    ("teacher", "student", "chain"),
    [
        ("resnet110", "resnet8", ["resnet32", "resnet20", "resnet14"]),
        ("resnet56", "resnet20", ["resnet32"]),
        ("resnet20", "resnet8", ["resnet14"]),
        ("resnet20", "resnet14", []),
    ],
)
def test_each_network_of_the_chain_is_taught_by_the_one_above_it(teacher, student, chain):
    above = [teacher, *(f"{name} takd" for name in chain)]
    expected = [("ce", teacher, None), *zip(["takd"] * len(above), [*chain, student], above, strict=True)]
    assert runs("methods=takd", f"student={student}", f"teacher={teacher}") == expected


def test_a_network_is_not_taught_by_a_smaller_one(make):
    sentence = (
        r"takd needs a chain of networks that get smaller: one with [\d,]+ parameters would teach one with [\d,]+;"
    )
    with pytest.raises(RunError, match=sentence):
        make("takd", student="resnet14", teacher="resnet8")
    assert make("takd", student="resnet14", teacher="resnet14")


def test_networks_of_unequal_families(make, batch):
    method = make("takd", student="wrn_16_1", teacher="shufflenetv2_x0_5")
    assert sum(method.losses(batch(method)).values()).isfinite()
