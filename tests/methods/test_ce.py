import pytest
import torch.nn.functional as F

from kdbench.methods.ce import CE


def test_the_loss_is_the_cross_entropy_of_the_student(make, batch):
    method = make("ce")
    one = batch(method)
    losses = method.losses(one)
    assert list(losses) == ["ce"]
    assert losses["ce"].item() == pytest.approx(
        F.cross_entropy(method.student(one.images), one.labels).item(), rel=1e-5
    )


@pytest.mark.parametrize(("recipe", "own", "applied"), [(0.2, None, 0.2), (0.2, 0.0, 0.0), (0.0, 0.1, 0.1)])
def test_its_own_label_smoothing_comes_before_the_recipes(make, batch, recipe, own, applied):
    method = make("ce", label_smoothing=recipe)
    method = CE(method.student, [], method.info, label_smoothing=own).eval()
    one = batch(method)
    expected = F.cross_entropy(method.student(one.images), one.labels, label_smoothing=applied)
    assert method.losses(one)["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_needs_no_teacher():
    assert not CE.needs_teacher
    assert CE.images_per_anchor == 1
