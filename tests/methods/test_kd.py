import pytest
import torch
import torch.nn.functional as F


def test_terms_are_the_definition(make, batch):
    method = make("kd").eval()  # so that the student can be asked twice
    one = batch(method)
    losses = method.losses(one)
    student = method.student(one.images).double()
    teacher = method.teacher(one.images).double()
    p, q = F.softmax(student / 4, 1), F.softmax(teacher / 4, 1)
    kl = (q * (q / p).log()).sum() / len(p)
    ce = -F.log_softmax(student, 1)[torch.arange(len(p)), one.labels].mean()
    assert losses["kd"].item() == pytest.approx(0.9 * 16 * kl.item(), rel=1e-4)
    assert losses["ce"].item() == pytest.approx(0.1 * ce.item(), rel=1e-5)


def test_parameters_reach_their_terms(make, batch):
    one = batch(make("kd"))
    base = make("kd").losses(one)
    doubled = make("kd", ce_weight=0.2, kd_weight=1.8).losses(one)
    assert {n: v.item() for n, v in doubled.items()} == pytest.approx({n: 2 * v.item() for n, v in base.items()})


def test_the_temperature_reaches_the_divergence(make, batch):
    values = []
    for temperature in (1.0, 4.0):
        method = make("kd", temperature=temperature)
        method.teacher.fc.weight.mul_(20)  # with logits near 0 all temperatures are the same
        values.append(method.losses(batch(method))["kd"].item())
    assert values[0] != pytest.approx(values[1], rel=0.05)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it(make, batch):
    method = make("kd", student="resnet14").eval()
    method.student.load_state_dict(method.teacher.state_dict())
    assert method.losses(batch(method))["kd"].item() == pytest.approx(0, abs=1e-6)
