import pytest
import torch.nn.functional as F

from kdbench.methods.mlkd import divergences, masked_mean, relation_losses, unsure


def test_the_losses_are_the_reference(reference, gin_parameters):
    case, parameters = reference("mlkd_one_view_total"), gin_parameters("mlkd_one_view")
    z, t = case.student["student_logits"], case.fixed["teacher_logits"]
    temperatures, weight = parameters["temperatures"], parameters["kd_weight"]
    classes, images = relation_losses(z, t, temperatures, "share")
    parts = {
        "ce": parameters["ce_weight"] * F.cross_entropy(z, case.fixed["labels"]),
        "kd": weight * masked_mean(divergences(z, t, temperatures).sum(dim=0), unsure(t), "share"),
        "cc": weight * classes,
        "bc": weight * images,
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


@pytest.mark.parametrize("mask", ["share", "image", "off"])
def test_terms_are_the_weighted_losses(make, batch, mask):
    given = {"ce_weight": 0.5, "kd_weight": 2.0, "temperatures": (4.0, 2.0), "mask": mask, "reference_batch": 3}
    method = make("mlkd_one_view", **given).eval()
    method.teacher.fc.weight.mul_(20)
    one = batch(method)
    z, t = method.student(one.images), method.teacher(one.images)
    terms = method.losses(one)
    kd = masked_mean(divergences(z, t, (4.0, 2.0)).sum(dim=0), unsure(t), mask)
    expected = [
        0.5 * F.cross_entropy(z, one.labels),
        *(2 * x for x in (kd, *relation_losses(z, t, (4.0, 2.0), mask, 3))),
    ]
    assert list(terms) == ["ce", "kd", "classes", "images"]
    assert [x.item() for x in terms.values()] == pytest.approx([x.item() for x in expected], rel=1e-4)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it(make, batch):
    method = make("mlkd_one_view", student="resnet14").eval()
    method.student.load_state_dict(method.teacher.state_dict())
    terms = method.losses(batch(method))
    assert [terms[each].item() for each in ("kd", "classes", "images")] == pytest.approx([0, 0, 0], abs=1e-6)
