import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import RunError
from kdbench.method import Teacher, distillation
from kdbench.methods.sskd import head_loss, kept, kept_loss, originals, similarities

generator = torch.Generator().manual_seed(5)
PROJECTED = torch.randn(12, 4, generator=generator, dtype=torch.float64)  # three images in four rotations


def blocks(rows):
    """In the case the four rotations of an image follow one another; here the images of one rotation do."""
    return rows.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)


def test_the_loss_is_the_reference(reference):
    case = reference("sskd")
    labels, p = case.fixed["labels"], case.params
    z, projected = (blocks(case.student[name]) for name in ("logits", "projection"))
    t, theirs = (blocks(case.fixed[f"teacher_{name}"]) for name in ("logits", "projection"))
    images = len(labels)
    right = kept(t[images:], labels.repeat(3), p["ratio_tf"])
    found = kept(similarities(theirs), originals(images, labels.device), p["ratio_ss"])
    parts = {
        "ce": F.cross_entropy(z[:images], labels),
        "kd": distillation(z[:images], t[:images], p["kd_T"]),
        "tf": kept_loss(z[images:], t[images:], p["tf_T"], right),
        "ss": kept_loss(similarities(projected), similarities(theirs), p["ss_T"], found),
    }
    numbers = {"kept_tf": right.sum().item(), "kept_ss": found.sum().item()}
    assert {name: part.item() for name, part in parts.items()} | numbers == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(p[f"{name}_weight"] * part for name, part in parts.items()))


def test_similarities_and_the_loss_of_the_head_are_the_definition():
    rows = PROJECTED.tolist()

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    cosines = [[cosine(turned, own) for own in rows[:3]] for turned in rows[3:]]
    torch.testing.assert_close(similarities(PROJECTED), torch.tensor(cosines, dtype=torch.float64))
    losses = [math.log(sum(math.exp(c) for c in row)) - row[place % 3] for place, row in enumerate(cosines)]
    assert head_loss(PROJECTED).item() == pytest.approx(sum(losses) / 9, rel=1e-10)


def test_kept_are_the_right_rows_and_the_best_ranked_of_the_others():
    scores = torch.tensor([[3.0, 2, 1, 0], [2, 3, 1, 0], [1, 3, 2, 0], [0, 3, 2, 1], [0, 5, 1, 0.5]])
    answers = torch.tensor([0, 0, 0, 3, 2])  # ranks 0, 1, 2, 2, 1
    assert kept(scores, answers, 0.0).tolist() == [True, False, False, False, False]
    assert kept(scores, answers, 0.25).tolist() == [True, True, False, False, False]  # of rank 1, the larger share
    assert kept(scores, answers, 0.74).tolist() == [True, True, False, False, True]
    assert kept(scores, answers, 0.75).sum() == 4
    assert kept(scores, answers, 1.0).all()


def test_the_loss_of_kept_rows_is_their_mean_and_0_without_any():
    z, t = PROJECTED, PROJECTED.flip(0)
    keep = torch.tensor([True, False] * 6)
    torch.testing.assert_close(kept_loss(z, t, 2.0, keep), distillation(z[keep], t[keep], 2.0))
    assert kept_loss(z, t, 2.0, ~keep & keep) == 0


def test_features_that_are_zero_have_finite_gradients():
    projected = torch.zeros(12, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(head_loss(projected), projected)
    assert gradient.isfinite().all()


def test_terms_are_the_weighted_losses(make, batch):
    weights = {"ce_weight": 2.0, "kd_weight": 3.0, "rotated_weight": 4.0, "similarity_weight": 5.0}
    method = make("sskd", temperature=2.0, rotated_ratio=0.5, **weights).eval()
    one = batch(method)
    images = torch.cat([block.rot90(turns, dims=(2, 3)) for turns, block in enumerate(one.views())])
    ours, theirs = (network(images, features=True) for network in (method.student, method.teacher))
    head = method.teachers[0].method.head
    cosines, target = similarities(method.head(ours.pooled)), similarities(head(theirs.pooled))
    right = kept(theirs.logits[6:], one.labels[6:], 0.5)
    found = kept(target, torch.arange(6).repeat(3), 0.75)
    expected = {
        "ce": 2 * F.cross_entropy(ours.logits[:6], one.labels[:6]),
        "kd": 3 * distillation(ours.logits[:6], theirs.logits[:6], 2.0),
        "rotated": 4 * kept_loss(ours.logits[6:], theirs.logits[6:], 2.0, right),
        "similarity": 5 * kept_loss(cosines, target, 0.5, found),
    }
    terms = method.losses(one)
    assert {name: loss.item() for name, loss in terms.items()} == pytest.approx(
        {name: loss.item() for name, loss in expected.items()}, rel=1e-5
    )
    sum(terms.values()).backward()
    assert all(p.grad is None for p in method.teacher_head.parameters())
    assert all(p.grad is not None for p in method.head.parameters())


def test_the_copies_of_an_image_are_augmented_apart_and_all_passes_are_counted(make, batch):
    method = make("sskd")
    one = batch(method)
    first, second, *_ = one.views()
    assert not torch.equal(first, second)
    assert torch.equal(one.index, one.index[:6].repeat(4))
    method.losses(one)
    assert method.student.images_passed == method.teacher.images_passed == 24


@pytest.fixture
def of_the_head(gin_parameters):
    """What the file of the method that trains the head binds."""
    return gin_parameters("sskd_head")


def test_the_head_is_trained_on_the_frozen_network(make, batch, of_the_head):
    method = make("sskd", student="resnet14", **of_the_head)
    own, teachers = method.student.state_dict(), method.teacher.state_dict()
    assert all(torch.equal(own[name], teachers[name]) for name in own)
    assert {id(p) for p in method.parameters() if p.requires_grad} == {id(p) for p in method.head.parameters()}
    (phase,) = method.phases()
    assert (phase.passes, phase.rate, phase.share) == (0, "recipe", None)
    one = batch(method)
    terms = phase.losses(one)
    images = torch.cat([block.rot90(turns, dims=(2, 3)) for turns, block in enumerate(one.views())])
    expected = head_loss(method.head(method.teacher(images, features=True).pooled))
    assert terms.keys() == {"head"}
    assert terms["head"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert method.student.images_passed == 0
    terms["head"].backward()


def test_a_head_learns_to_find_the_originals(make, batch, of_the_head):
    method = make("sskd", student="resnet14", **of_the_head)
    one = batch(method)
    # The same images in each view, so that a copy differs by its rotation alone.
    one = replace(one, images=one.images[:6].repeat(4, 1, 1, 1))
    optimiser, losses = torch.optim.Adam(method.head.parameters(), lr=0.02), []
    for _ in range(60):
        losses.append(method.fit_head(one)["head"])
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(("student", "teacher"), [("four_stages", "resnet8"), ("vit_tiny", "resnet8x4")])
def test_networks_of_other_stages_and_widths(make, batch, student, teacher):
    method = make("sskd", student=student, teacher=teacher, image=(3, 16, 16))
    sum(method.losses(batch(method)).values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_images_that_cannot_be_rotated_and_teachers_without_a_head_are_refused(make, gin_parameters):
    with pytest.raises(RunError, match="sskd needs square images"):
        make("sskd", image=(1, 8, 10))
    method = make("sskd")
    with pytest.raises(RunError, match="sskd needs a teacher with a head, which a run of sskd_head trains"):
        type(method)(method.student, [Teacher(method.teacher)], method.info, **gin_parameters("sskd"))
