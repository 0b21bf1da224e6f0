import dataclasses
import math

import pytest
import torch

from kdbench.method import RunError
from kdbench.method.mixing import drawn_share, partners_of
from kdbench.methods.manifold_mixup import mixed_binary_cross_entropy
from kdbench.methods.mixup import mixed_cross_entropy
from kdbench.streams import Streams


def test_both_losses_are_the_reference(reference):
    case = reference("manifold_mixup")
    labels, share = case.fixed["labels"], case.params["lam"]
    given = case.student["logits"], labels, labels[case.fixed["index"]], share
    assert mixed_cross_entropy(*given).item() == pytest.approx(case.entry["parts"]["ce_form"], rel=1e-9)
    case.check(mixed_binary_cross_entropy(*given))


def test_sure_and_very_wrong_probabilities_are_finite():
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 0.0, 200.0], [0.0, 0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    loss = mixed_binary_cross_entropy(logits, labels, labels, 1.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_network_without_batch_statistics_mixes_the_map_that_it_says(make, batch):
    for layer in range(4):
        method = make("manifold_mixup", layers=(layer,)).eval()
        one = batch(method)
        out, share = method.student(one.images, features=True), drawn_share(one, 2.0)
        maps = (one.images, *out.stages)[layer]
        partners, labels = partners_of(one, maps, one.labels)
        x = share * maps + (1 - share) * partners
        logits = (method.student(x, features=True) if layer == 0 else method.student.run_from(layer, x)).logits
        before = method.student.images_passed
        terms = method.losses(one)
        assert method.student.images_passed - before == 6
        expected = mixed_cross_entropy(logits, one.labels, labels, share)
        assert terms["ce"].item() == pytest.approx(expected.item(), rel=1e-5)
        published = make("manifold_mixup", layers=(layer,), loss="bce").eval().losses(one)
        expected = mixed_binary_cross_entropy(logits, one.labels, labels, share)
        assert published["bce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_layers_are_equally_likely(make, batch, monkeypatch):
    method, drawn = make("manifold_mixup"), []
    one = batch(method)
    zero = torch.zeros(6, 4, requires_grad=True)
    monkeypatch.setattr(method, "_mixed_at", lambda layer, each, share: (drawn.append(layer), (zero, one.labels))[1])
    for step in range(300):
        method.losses(dataclasses.replace(one, streams=Streams(0).within(step)))
    assert [drawn.count(layer) / 300 for layer in range(3)] == pytest.approx([1 / 3] * 3, abs=0.1)


@pytest.mark.parametrize("student", ["resnet18", "vit_tiny"])
def test_the_deepest_map_of_other_students(make, batch, student):
    last = len(make("manifold_mixup", student=student, image=(3, 16, 16)).student.stage_modules())
    method = make("manifold_mixup", student=student, image=(3, 16, 16), layers=(last,))
    (loss,) = method.losses(batch(method)).values()
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_a_layer_that_the_student_lacks_is_refused(make):
    for layers in ((4,), (-1,), ()):
        with pytest.raises(RunError, match=r"manifold_mixup needs ManifoldMixup\.layers from 0 to 3"):
            make("manifold_mixup", layers=layers)
