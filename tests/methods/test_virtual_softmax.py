import pytest
import torch
import torch.nn.functional as F

from kdbench.method import RunError
from kdbench.methods.virtual_softmax import virtual_logit, with_virtual_class


def test_the_loss_is_the_reference(reference):
    case = reference("virtual_softmax")
    features, weight, labels = case.student["features"], case.student["weight"], case.fixed["labels"]
    logits = F.linear(features, weight, case.student["bias"])
    case.check(F.cross_entropy(with_virtual_class(logits, virtual_logit(features, weight, labels)), labels))


def test_without_a_bias_no_logit_of_the_true_class_is_above_the_virtual_one():
    generator = torch.Generator().manual_seed(0)
    features, weight = torch.randn(50, 5, generator=generator), torch.randn(4, 5, generator=generator)
    labels = torch.randint(4, (50,), generator=generator)
    virtual = virtual_logit(features, weight, labels)
    assert (F.linear(features, weight)[torch.arange(50), labels] <= virtual + 1e-5).all()
    torch.testing.assert_close(virtual, weight[labels].norm(dim=1) * features.norm(dim=1))


@pytest.mark.parametrize(("bias", "clip"), [(False, ()), (True, ()), (False, (0.5, 1.0))])
def test_the_term_is_the_cross_entropy_over_one_more_class(make, batch, bias, clip):
    method = make("virtual_softmax", bias=bias, clip=clip, label_smoothing=0.1).eval()
    one = batch(method)
    out = method.student(one.images, features=True)
    virtual = virtual_logit(out.pooled, method.student.fc.weight, one.labels)
    virtual = virtual.clamp(*clip) if clip else virtual
    logits = torch.cat([out.logits, virtual[:, None]], dim=1)
    expected = F.cross_entropy(logits, one.labels, label_smoothing=0.1)
    assert method.losses(one)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_the_classifier_has_a_bias_on_request_alone(make, batch, bias):
    method = make("virtual_softmax", bias=bias)
    method.losses(batch(method))["ce"].backward()
    own = method.student.fc.bias
    assert own.requires_grad == bias
    assert (own.grad is not None) == bias
    assert own.any().item() == bias


def test_zero_features_and_weights_have_finite_gradients():
    features, weight = torch.zeros(3, 5, requires_grad=True), torch.zeros(4, 5, requires_grad=True)
    loss = virtual_logit(features, weight, torch.tensor([0, 1, 2])).sum()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [features, weight]))


def test_one_bound_alone_is_refused(make):
    with pytest.raises(RunError, match=r"VirtualSoftmax\.clip must be two numbers"):
        make("virtual_softmax", clip=(1.0,))
