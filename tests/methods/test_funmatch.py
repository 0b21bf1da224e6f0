import dataclasses

import numpy as np
import pytest
import torch

import kdbench
from kdbench.backbones.registry import build
from kdbench.config import bindings
from kdbench.method import RunError, distillation
from kdbench.methods.funmatch import mixed
from kdbench.plan import expand, request
from kdbench.streams import Streams


def test_the_loss_is_the_reference(reference):
    case = reference("funmatch")
    case.check(distillation(case.student["student_logits"], case.fixed["teacher_logits"], case.params["temperature"]))


def test_mixed_images_are_the_reference(reference):
    case = reference("funmatch_mixup")
    images = mixed(case.fixed["images"], case.params["a"])
    np.testing.assert_allclose(images, case.entry["parts"]["images"], rtol=1e-6)
    assert images.norm().item() == pytest.approx(case.entry["loss"], rel=1e-6)


def test_each_image_is_mixed_with_the_one_before_it():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    assert mixed(images, 0.75).flatten().tolist() == [0.75, 0.75, 1.75, 2.75]
    assert torch.equal(mixed(images, 1.0), images)


def seen_by_both(method, one):
    """Images that the student and the teacher see in a step."""
    seen = []
    hooks = [
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        for network in (method.student, method.teacher)
    ]
    terms = method.losses(one)
    for hook in hooks:
        hook.remove()
    return *seen, terms


def test_both_networks_see_the_same_mixed_images_and_labels_play_no_part(make, batch):
    method = make("funmatch", temperature=2.0).eval()
    one = batch(method)
    first, second, terms = seen_by_both(method, one)
    assert torch.equal(first, second)
    share = method._share(one)
    assert torch.equal(first, mixed(one.images, share))
    assert terms.keys() == {"kd"}
    expected = distillation(method.student(first), method.teacher(first), 2.0)
    assert terms["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert method.losses(dataclasses.replace(one, labels=one.labels.flip(0))) == terms


def test_shares_are_drawn_from_the_step_and_the_larger_is_the_images_own(make, batch):
    method, one = make("funmatch"), batch(make("funmatch"))
    drawn = [method._share(dataclasses.replace(one, streams=Streams(0).within(step))) for step in range(400)]
    assert method._share(one) == method._share(one)
    assert all(0.5 <= share <= 1 for share in drawn)
    # max(b, 1 − b) of a uniform b has the mean ¾ and the standard deviation 1 / √48.
    assert np.mean(drawn) == pytest.approx(0.75, abs=4 / np.sqrt(48 * 400))
    narrow = make("funmatch", mixup=50.0)
    assert np.mean([narrow._share(dataclasses.replace(one, streams=Streams(0).within(s))) for s in range(20)]) < 0.6


def test_without_mixup_it_is_kd_without_labels(make, batch):
    method, kd = make("funmatch", mixup=0.0, temperature=4.0).eval(), make("kd", kd_weight=1.0).eval()
    one = batch(method)
    assert seen_by_both(method, one)[0] is one.images
    assert method.losses(one) == {"kd": kd.losses(one)["kd"]}


def test_mixing_is_marked_as_a_control_in_every_row():
    words = ["methods=funmatch,funmatch_no_mixup,funmatch_3x,kd", "dataset=digits", "teacher=resnet14"]
    marks = {spec.method: dict(spec.control) for spec in expand.plan(request.parse(words))}
    assert marks == {
        **{"funmatch": {"mixup": True}, "funmatch_3x": {"mixup": True, "budget": 3.0}},
        **{"funmatch_no_mixup": {}, "kd": {}, "ce": {}},
    }
    values = bindings.of_method("funmatch_no_mixup")
    assert (values["FunMatch.mixup"].value, values["FunMatch.temperature"].value) == (0.0, 1.0)


def test_a_negative_parameter_is_refused(make):
    with pytest.raises(RunError, match=r"FunMatch\.mixup=-1 must be at least 0"):
        make("funmatch", mixup=-1.0)


def test_it_may_be_put_into_another_loop():
    student, teacher = (build(name, 4, 1) for name in ("resnet8", "resnet14"))
    wrapped = kdbench.wrap(student, teacher, method="funmatch", classes=4)
    assert wrapped(torch.randn(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64)).keys() == {"kd"}
