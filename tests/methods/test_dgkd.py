import dataclasses

import pytest
import torch

from kdbench.backbones.registry import build
from kdbench.method import RunError, Teacher
from kdbench.methods.dgkd import DGKD
from kdbench.methods.takd import averaged_distillation
from kdbench.plan import expand, request


@pytest.fixture
def several(make, gin_parameters):
    """The method with the teachers resnet20 and resnet14 twice, and other values of its parameters."""

    def method(**given):
        one = make("dgkd")
        torch.manual_seed(5)
        teachers = [Teacher(build(name, 4, 1)) for name in ("resnet20", "resnet14", "resnet14")]
        for number, teacher in enumerate(teachers):
            teacher.network.fc.weight.data.mul_(10 * (number + 1))  # so that their terms differ
        return DGKD(one.student, teachers, one.info, **{**gin_parameters("dgkd"), **given}).eval()

    return method


@pytest.mark.parametrize("name", ["dgkd_total", "dgkd_drop_teacher"])
def test_the_total_is_the_reference(reference, name):
    case = reference(name)
    share, temperature = case.params["lambda_"], case.params["temperature"]
    logits, targets = case.student["student_logits"], [case.fixed["teacher_logits"], *case.fixed["assistant_logits"]]
    ce = torch.nn.functional.cross_entropy(logits, case.fixed["labels"])
    kept = [target for number, target in enumerate(targets) if number not in case.params["dropped"]]
    kl = sum(averaged_distillation(logits, target, temperature, "elements") for target in kept)
    case.check((1 - share) * ce + share * kl)


def test_the_term_is_the_sum_over_those_that_teach(several, batch):
    method = several(dropped=1, kd_weight=2.0, temperature=3.0, ce_weight=0.5)
    one = batch(method)
    numbers = method.teaching(one)
    assert len(numbers) == 2
    logits = method.student(one.images)
    each = [averaged_distillation(logits, t.network(one.images), 3.0, "images").item() for t in method.teachers]
    losses = method.losses(one)
    assert losses["kd"].item() == pytest.approx(2 * sum(each[number] for number in numbers), rel=1e-5)
    assert losses["ce"].item() == pytest.approx(0.5 * method.cross_entropy(logits, one.labels).item(), rel=1e-5)
    whole = several(dropped=0, average="elements", kd_weight=2.0, temperature=3.0).losses(one)
    assert whole["kd"].item() == pytest.approx(2 * sum(each) / 4, rel=1e-5)


def test_other_teachers_are_left_out_in_each_step_and_all_equally_often(several, batch):
    method = several(dropped=1)
    taught = [tuple(method.teaching(batch(method, step=step))) for step in range(300)]
    counts = {pair: taught.count(pair) for pair in ((0, 1), (0, 2), (1, 2))}
    assert sum(counts.values()) == 300
    assert all(70 < count < 130 for count in counts.values())
    assert taught == [tuple(method.teaching(batch(method, step=step))) for step in range(300)], "a step draws the same"


def test_one_network_always_teaches(several, make, batch):
    method = several(dropped=7)
    assert len(method.teaching(batch(method))) == 1
    alone = make("dgkd")
    assert alone.teaching(batch(alone)) == [0]
    assert several(dropped=0).teaching(batch(alone)) == [0, 1, 2]


def test_the_default_has_no_cross_entropy(make, batch):
    method = make("dgkd")
    assert method.losses(batch(method))["ce"].item() == 0


def test_the_order_of_a_batch_does_not_matter(several, batch):
    method = several()
    one = batch(method)
    order = torch.arange(len(one.images)).flip(0)
    flipped = dataclasses.replace(one, images=one.images[order], labels=one.labels[order], index=one.index[order])
    before, after = (method.losses(each)["kd"].item() for each in (one, flipped))
    assert after == pytest.approx(before, rel=1e-5)


def test_each_network_of_the_chain_is_taught_by_all_above_it():
    words = ["methods=dgkd", "dataset=cifar100", "student=resnet8", "teacher=resnet56"]
    *_, last, student = expand.plan(request.parse(words))
    assert last.teacher == "resnet56+resnet32 dgkd+resnet20 dgkd"
    assert student.teacher == "resnet56+resnet32 dgkd+resnet20 dgkd+resnet14 dgkd"


def test_what_cannot_teach_is_refused(make, several):
    with pytest.raises(RunError, match="dgkd needs a chain of networks that get smaller"):
        make("dgkd", student="resnet14", teacher="resnet8")
    with pytest.raises(RunError, match="dropped=-1 must be at least 0"):
        several(dropped=-1)
