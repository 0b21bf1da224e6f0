"""A teacher as methods see it: frozen, on its own normalisation, with what was asked for."""

import pytest
import torch

from kdbench.backbones.registry import build
from kdbench.errors import UserError
from kdbench.method import Teacher

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    made = Teacher(build("resnet14", 10, 1))
    made.network(IMAGES)  # in training mode: running statistics of its own
    made.freeze()
    return made


def statistics(network):
    return {name: value.clone() for name, value in network.named_buffers()}


def test_a_frozen_teacher_is_in_evaluation_mode_and_has_no_gradient(teacher):
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    images = IMAGES.clone().requires_grad_()
    assert not teacher(images).logits.requires_grad


def test_freezing_reaches_the_method_that_trained_it(make, teacher):
    trained_by = make("byot")
    Teacher(trained_by.student, method=trained_by).freeze()
    assert not any(module.training for module in trained_by.modules())
    assert not any(parameter.requires_grad for parameter in trained_by.parameters())


def test_extras_come_on_request_alone(teacher):
    plain, with_extras = teacher(IMAGES), teacher(IMAGES, ("stem", "preactivations"))
    assert plain.stem is None
    assert plain.preactivations == ()
    assert torch.equal(with_extras.stem, teacher.network.stem(IMAGES))
    assert [x.shape for x in with_extras.preactivations] == [x.shape for x in with_extras.stages]
    assert torch.equal(plain.logits, with_extras.logits)
    assert torch.equal(plain.logits, teacher(IMAGES, ("logits",)).logits)


def test_a_word_that_is_no_output_is_refused_with_the_nearest(teacher):
    with pytest.raises(UserError, match=r"'preactivation'.*preactivations"):
        teacher(IMAGES, ("preactivation",))


def test_statistics_of_the_batch_change_the_output_and_leave_the_running_ones(teacher):
    before, usual = statistics(teacher.network), teacher(IMAGES).logits
    of_batch = teacher(IMAGES, batch_statistics=True).logits
    assert not torch.allclose(usual, of_batch)
    assert not torch.equal(of_batch[:2], teacher(IMAGES[:2], batch_statistics=True).logits), (
        "of the other images as well"
    )
    after = statistics(teacher.network)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(teacher(IMAGES).logits, usual)
    assert not any(module.training for module in teacher.network.modules())


def test_images_reach_the_teacher_in_its_own_normalisation(teacher):
    scale, shift = torch.tensor([[[0.5]]]), torch.tensor([[[0.2]]])
    other = Teacher(teacher.network, scale=scale, shift=shift)
    torch.testing.assert_close(other.own_normalisation(IMAGES), IMAGES * 0.5 + 0.2)
    assert torch.equal(other(IMAGES).logits, teacher(other.own_normalisation(IMAGES)).logits)
    assert teacher.own_normalisation(IMAGES) is IMAGES


def test_its_classifier_lets_the_gradient_through_and_gets_none(teacher):
    feature = torch.randn(4, 64, requires_grad=True)
    logits = teacher.network.classify(feature)
    assert torch.equal(logits, teacher.network.fc(feature))
    logits.square().sum().backward()
    assert feature.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
