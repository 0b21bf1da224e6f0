import pytest
import torch
import torch.nn.functional as F

from kdbench.errors import UserError
from kdbench.method import RunError
from kdbench.method.mixing import drawn_share, partners_of
from kdbench.methods.mixup import mixed, mixed_cross_entropy
from kdbench.plan import expand, request


def test_the_loss_is_the_reference(reference):
    case = reference("mixup")
    labels = case.fixed["labels"]
    case.check(mixed_cross_entropy(case.student["logits"], labels, labels[case.fixed["index"]], case.params["lam"]))


def test_mixed_labels_are_the_same_loss():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels, partners = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([1, 1, 0, 2, 3])
    target = mixed(F.one_hot(labels, 4).float(), F.one_hot(partners, 4).float(), 0.3)
    expected = F.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, partners, 0.3, 0.1), expected)


def test_images_and_their_classes_are_mixed_with_the_same_partners(make, batch):
    method = make("mixup", label_smoothing=0.1).eval()
    one = batch(method)
    share = drawn_share(one, 1.0)
    images, labels = partners_of(one, one.images, one.labels)
    places = [next(i for i, own in enumerate(one.images) if torch.equal(own, image)) for image in images]
    assert sorted(places) == list(range(6))
    assert torch.equal(labels, one.labels[places])
    expected = mixed_cross_entropy(
        method.student(share * one.images + (1 - share) * images), one.labels, labels, share, 0.1
    )
    terms = method.losses(one)
    assert terms.keys() == {"ce"}
    assert terms["ce"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_row_is_marked_and_images_that_are_mixed_already_are_refused():
    words = ["methods=mixup,cutmix,manifold_mixup,label_smoothing", "dataset=digits"]
    controls = {spec.method: spec.control for spec in expand.plan(request.parse(words))}
    mixing = {"mixup": True}
    assert controls == {"mixup": mixing, "cutmix": mixing, "manifold_mixup": mixing, "label_smoothing": {}}
    for name in ("mixup", "cutmix", "manifold_mixup"):
        with pytest.raises(UserError, match=rf"{name} cannot be trained on mixed images"):
            expand.plan(request.parse([f"methods={name}", "dataset=digits", "Mix.mixup=0.2"]))


@pytest.mark.parametrize(
    ("name", "label"), [("mixup", "Mixup"), ("cutmix", "CutMix"), ("manifold_mixup", "ManifoldMixup")]
)
def test_no_beta_distribution(make, name, label):
    with pytest.raises(RunError, match=rf"{label}\.alpha=0 must be above 0"):
        make(name, alpha=0.0)
