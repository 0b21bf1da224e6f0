import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import distillation
from kdbench.method.rotations import joint_labels
from kdbench.methods.hssakd import mutual_loss


def blocks(logits):
    """In the case the four rotations of an image follow one another; here the images of one rotation do."""
    return logits.unflatten(-2, (-1, 4)).transpose(-3, -2).flatten(-3, -2)


def test_the_loss_is_the_reference(reference):
    case = reference("hssakd_online")
    labels = case.fixed["labels"]
    z, q = (blocks(case.student[name]) for name in ("logits", "auxiliary_logits"))
    ce = sum(F.cross_entropy(each[: len(labels)], labels) for each in z)
    joint = sum(F.cross_entropy(each, joint_labels(labels)) for each in q.flatten(0, 1))
    mutual = mutual_loss([z[0], *q[0]], [z[1], *q[1]], case.params["temperature"])
    assert {"ce": (ce + joint).item(), "kl": mutual.item()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(ce + joint + mutual)


def test_terms_add_up_to_the_definition(make, batch):
    method = make("hssakd", joint_weight=0.5, mutual_weight=0.25, temperature=2.0).eval()
    one = batch(method)
    (student, peer), names = method.networks(), ("", "peer_")
    expected = dict.fromkeys(("ce", "joint_ce", "peer_ce", "peer_joint_ce", "mutual"), 0.0)
    for turns in range(4):
        images = one.images.rot90(turns, dims=(2, 3))
        all_logits = []
        for name, network, classifiers in zip(
            names, (student, peer), (method.classifiers, method.peer_classifiers), strict=True
        ):
            out = network(images, features=True)
            joint = [classifier(x).logits for classifier, x in zip(classifiers, out.stages, strict=True)]
            if turns == 0:
                expected[f"{name}ce"] = F.cross_entropy(out.logits, one.labels).item()
            labels = 4 * one.labels + turns
            expected[f"{name}joint_ce"] += 0.5 * sum(F.cross_entropy(q, labels).item() for q in joint) / 4
            all_logits.append([out.logits, *joint])
        for z, v in zip(*all_logits, strict=True):
            expected["mutual"] += 0.25 * (distillation(z, v, 2.0) + distillation(v, z, 2.0)).item() / 4
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)


def test_neither_network_learns_as_a_target():
    z, v = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(mutual_loss([z], [v], 3.0), z, retain_graph=True)
    (alone,) = torch.autograd.grad(distillation(z, v.detach(), 3.0), z)
    torch.testing.assert_close(gradient, alone)


def test_the_peer_is_an_exit_and_the_student_is_kept(make):
    method = make("hssakd", student="resnet8", peer="resnet14").eval()
    assert method.exits(torch.zeros(2, 1, 8, 8)).keys() == {"peer1"}
    assert method.deployed() is method.student


def test_peers_and_images_that_do_not_fit_are_refused(make):
    with pytest.raises(RunError, match="hssakd needs as many stages in the student as in its peer, not 4 and 3"):
        make("hssakd", student="four_stages", peer="resnet8", image=(1, 16, 16))
    with pytest.raises(RunError, match="hssakd needs square images"):
        make("hssakd", image=(1, 8, 10))
