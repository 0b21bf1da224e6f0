import pytest
import torch

from kdbench.backbones.registry import build
from kdbench.method import Teacher, distillation
from kdbench.methods.rco import RCO
from kdbench.plan import expand, request


@pytest.fixture
def along_the_route(make, gin_parameters):
    """The method with four states of a teacher, and other values of its parameters."""

    def method(**given):
        one = make("rco")
        torch.manual_seed(5)
        states = [Teacher(build("resnet14", 4, 1)) for _ in range(4)]
        for number, state in enumerate(states):
            state.network.fc.weight.data.mul_(10 * (number + 1))
        return RCO(one.student, states, one.info, **{**gin_parameters("rco"), **given}).eval()

    return method


@pytest.mark.parametrize(
    ("progress", "state"), [(0.0, 0), (0.249, 0), (0.25, 1), (0.5, 2), (0.74, 2), (0.75, 3), (0.999, 3)]
)
def test_each_state_teaches_for_an_equal_share_of_the_training(along_the_route, batch, progress, state):
    method = along_the_route(ce_weight=0.5, kd_weight=2.0, temperature=3.0)
    one = batch(method, progress=progress)
    logits, losses = method.student(one.images), method.losses(one)
    each = [2 * distillation(logits, t.network(one.images), 3.0).item() for t in method.teachers]
    assert losses["kd"].item() == pytest.approx(each[state], rel=1e-5)
    assert sum(value == pytest.approx(each[state], rel=1e-5) for value in each) == 1
    assert losses["ce"].item() == pytest.approx(0.5 * method.cross_entropy(logits, one.labels).item(), rel=1e-5)


def test_a_teacher_of_one_state_is_that_of_kd(make, batch):
    method, kd = make("rco"), make("kd")
    one = batch(method, progress=0.9)
    losses, expected = method.losses(one), kd.losses(one)
    assert {n: v.item() for n, v in losses.items()} == pytest.approx({n: v.item() for n, v in expected.items()})


def test_the_teacher_is_trained_as_ever_and_keeps_four_states():
    words = ["dataset=cifar100", "student=resnet8", "teacher=resnet56"]
    teacher, student = expand.plan(request.parse(["methods=rco", *words]))
    plain, _ = expand.plan(request.parse(["methods=kd", *words]))
    assert (teacher.method, teacher.student) == ("ce_four_states", "resnet56")
    assert teacher.protocol == plain.protocol
    assert "Teaching.states = 4" in teacher.config
    assert student.teacher_runs == (teacher.id,)
