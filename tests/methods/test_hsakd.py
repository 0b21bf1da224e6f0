import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import distillation
from kdbench.methods.hsakd import joint_loss


def blocks(logits):
    """In the case the four rotations of an image follow one another; here the images of one rotation do."""
    return logits.unflatten(-2, (-1, 4)).transpose(-3, -2).flatten(-3, -2)


def test_the_loss_is_the_reference(reference):
    case = reference("hsakd")
    labels, temperature = case.fixed["labels"], case.params["temperature"]
    z, q = (blocks(case.student[name]) for name in ("logits", "auxiliary_logits"))
    t, targets = (blocks(case.fixed[name]) for name in ("teacher_logits", "teacher_auxiliary_logits"))
    parts = {
        "ce": F.cross_entropy(z[: len(labels)], labels),
        "kl": distillation(z, t, temperature) + joint_loss(q, targets, temperature),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


def test_terms_add_up_to_the_definition(make, batch):
    method = make("hsakd", kd_weight=0.5, joint_weight=0.25, temperature=2.0).eval()
    one = batch(method)
    trained = method.teachers[0].method
    expected = {"ce": 0.0, "kd": 0.0, "joint": 0.0}
    for turns in range(4):
        images = one.images.rot90(turns, dims=(2, 3))
        ours, theirs = (network(images, features=True) for network in (method.student, method.teacher))
        if turns == 0:
            expected["ce"] = F.cross_entropy(ours.logits, one.labels).item()
        expected["kd"] += 0.5 * distillation(ours.logits, theirs.logits, 2.0).item() / 4
        for own, other, x, y in zip(method.classifiers, trained.classifiers, ours.stages, theirs.stages, strict=True):
            expected["joint"] += 0.25 * distillation(own(x).logits, other(y).logits, 2.0).item() / 4
    assert {name: loss.item() for name, loss in method.losses(one).items()} == pytest.approx(expected, rel=1e-5)


def test_classifiers_learn_from_the_teachers_alone_which_stay_as_they_are(make, batch):
    method = make("hsakd")
    terms, own = method.losses(batch(method)), list(method.classifiers.parameters())
    reached = {
        name: [g is not None for g in torch.autograd.grad(term, own, retain_graph=True, allow_unused=True)]
        for name, term in terms.items()
    }
    assert not any(reached["ce"] + reached["kd"])
    assert all(reached["joint"])
    assert not any(p.requires_grad for p in method.teachers[0].method.parameters())
    assert not any(name.startswith("teacher") for name, _ in method.named_parameters())


def test_passes_of_the_teacher_are_counted(make, batch):
    method = make("hsakd")
    method.losses(batch(method))
    assert method.student.images_passed == method.teacher.images_passed == 24


def test_classifiers_of_four_stages_and_of_other_widths(make, batch):
    method = make("hsakd", student="four_stages", teacher="four_stages", image=(3, 16, 16))
    assert len(method.classifiers) == 4
    method = make("hsakd", teacher="resnet8x4", image=(3, 16, 16))
    sum(method.losses(batch(method)).values()).backward()


def test_networks_and_images_that_do_not_fit_are_refused(make):
    with pytest.raises(RunError, match="hsakd needs as many stages in the student as in the teacher, not 3 and 4"):
        make("hsakd", teacher="four_stages", image=(1, 16, 16))
    with pytest.raises(RunError, match="needs square images"):
        make("hsakd", image=(1, 8, 10))


def test_a_teacher_without_classifiers_is_refused(make):
    method = make("hsakd")
    with pytest.raises(RunError, match="hsakd needs a teacher with joint classifiers"):
        type(method)(method.student, make("kd").teachers, method.info, kd_weight=1.0, joint_weight=1.0, temperature=3.0)
