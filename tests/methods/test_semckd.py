from dataclasses import replace

import numpy as np
import pytest
import torch

from kdbench.method import RunError, Share, distillation
from kdbench.methods.semckd import Calibration, Embedding, mean_squares, semckd_loss


def test_the_loss_is_the_reference(reference):
    case = reference("semckd_loss")
    errors = torch.stack([
        torch.stack(
            [mean_squares(case.student[f"student_{i}{j}"], case.fixed[f"teacher_{i}{j}"]) for j in range(2)], dim=1
        )
        for i in range(2)
    ], dim=1)  # fmt: skip
    case.check(semckd_loss(errors, case.student["attention"]))


def test_the_whole_is_the_reference(reference):
    case = reference("semckd_full")
    ours, theirs = case.maps("student"), case.maps("teacher")
    widths, targets = ([x.shape[1] for x in maps] for maps in (ours, theirs))
    calibration = Calibration(widths, targets, len(ours[0]), case.params["soft"]).double()
    state = {}
    for stage in range(2):
        for name, embedding in (("query", "queries"), ("key", "keys")):
            for layer in (1, 2):
                for part in ("weight", "bias"):
                    state[f"{embedding}.{stage}.linear{layer}.{part}"] = case.fixed[f"{name}_{stage}_{part}{layer}"]
        for other in range(2):
            place, pair = f"projectors.{stage}.{other}", f"{stage}{other}"
            state[f"{place}.2.weight"] = case.fixed[f"conv3_{pair}_weight"]
            for layer in (1, 2):
                state[f"{place}.{layer - 1}.conv.weight"] = case.fixed[f"conv{layer}_{pair}_weight"]
                for part in ("weight", "bias"):
                    state[f"{place}.{layer - 1}.bn.{part}"] = case.fixed[f"bn{layer}_{pair}_{part}"]
    missing, unexpected = calibration.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in name or "tracked" in name for name in missing)
    attention = calibration.attention(ours, theirs, Share())
    for row, expected in zip(attention.mean(dim=0).tolist(), case.entry["parts"]["attention"], strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
    case.check(semckd_loss(calibration.errors(ours, theirs), attention))


def stages(images=8):
    generator = torch.Generator().manual_seed(2)
    shapes = ([(3, 4), (5, 2)], [(2, 8), (6, 2), (4, 1)])
    return [
        [torch.randn(images, c, side, side, generator=generator, dtype=torch.float64) for c, side in each]
        for each in shapes
    ]


def slow_attention(calibration, ours, theirs):
    """Stage by stage and image by image, in NumPy."""

    def embedded(embedding, x):
        rows = x.flatten(1).numpy()
        vectors = []
        for a in rows:
            similar = np.array([(a * b).sum() for b in rows])
            hidden = np.maximum(embedding.linear1.weight.numpy() @ similar + embedding.linear1.bias.numpy(), 0)
            out = embedding.linear2.weight.numpy() @ hidden + embedding.linear2.bias.numpy()
            vectors.append(out / np.sqrt((out**2).sum()))
        return np.array(vectors)

    queries = [embedded(e, x) for e, x in zip(calibration.queries, ours, strict=True)]
    keys = [embedded(e, x) for e, x in zip(calibration.keys, theirs, strict=True)]
    energies = np.array([[[(q[b] * k[b]).sum() for k in keys] for q in queries] for b in range(len(ours[0]))])
    weights = np.exp(energies / calibration.softness)
    return weights / weights.sum(axis=2, keepdims=True)


@torch.no_grad()
@pytest.mark.parametrize("softness", [1.0, 0.5])
def test_the_attention_is_its_definition(softness):
    ours, theirs = stages()
    calibration = Calibration([3, 5], [2, 6, 4], 8, softness).double()
    attention = calibration.attention(ours, theirs, Share())
    np.testing.assert_allclose(attention.numpy(), slow_attention(calibration, ours, theirs), rtol=1e-8)


@torch.no_grad()
def test_each_pair_of_stages_is_compared_at_the_lower_resolution():
    ours, theirs = stages()
    calibration = Calibration([3, 5], [2, 6, 4], 8, 1.0).double()
    errors = calibration.errors(ours, theirs)
    assert errors.shape == (8, 2, 3)
    for i, x in enumerate(ours):
        for j, target in enumerate(theirs):
            side = min(x.shape[2], target.shape[2])
            x_, target_ = (y.unflatten(3, (side, -1)).unflatten(2, (side, -1)).mean(dim=(3, 5)) for y in (x, target))
            expected = [((a - b) ** 2).mean() for a, b in zip(calibration.projectors[i][j](x_), target_, strict=True)]
            torch.testing.assert_close(errors[:, i, j], torch.stack(expected))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_maps_of_zeros_and_equal_images(value):
    calibration = Calibration([3, 5], [2], 8, 1.0)
    maps = [torch.full((8, 3, 4, 4), value).requires_grad_(), torch.full((8, 5, 2, 2), value).requires_grad_()]
    target = [torch.ones(8, 2, 4, 4)]
    loss = semckd_loss(calibration.errors(maps, target), calibration.attention(maps, target, Share()))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, maps))


def test_an_embedding_of_zeros_is_zero_and_has_no_gradient():
    embedding = Embedding(8)
    for parameter in embedding.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.ones(8, 8, requires_grad=True)
    out = embedding(x)
    assert (out == 0).all()
    assert (torch.autograd.grad(out.sum(), x)[0] == 0).all()


def test_the_terms_are_the_weighted_losses(make, batch):
    method = make("semckd", teacher="resnet18", weight=3.0, kd_weight=0.0).eval()
    one = batch(method)
    ours, theirs = (network(one.images, features=True).stages for network in (method.student, method.teacher))
    loss = semckd_loss(method.calibration.errors(ours, theirs), method.calibration.attention(ours, theirs, Share()))
    losses = method.losses(one)
    assert losses.keys() == {"ce", "semckd"}
    assert losses["semckd"].item() == pytest.approx(3 * loss.item(), rel=1e-5)
    assert make("semckd").losses(one).keys() == {"ce", "semckd", "kd"}


def test_the_order_of_the_images_matters(make, batch):
    """The networks of the attention read rows whose places are those of the images."""
    method = make("semckd").eval()
    one = batch(method)
    other = replace(one, images=one.images.roll(1, 0), labels=one.labels.roll(1))
    terms = [method.losses(each) for each in (one, other)]
    assert terms[0]["ce"].item() == pytest.approx(terms[1]["ce"].item(), rel=1e-5)
    assert terms[0]["semckd"].item() != pytest.approx(terms[1]["semckd"].item(), rel=1e-4)


def test_another_number_of_images_is_refused(make, batch):
    method = make("semckd")
    with pytest.raises(RunError, match=r"all 6 images of a step, and got 5: leave Train.accumulate out"):
        method.losses(batch(method, anchors=5))


def test_kd_comes_in_addition(make, batch):
    method = make("semckd", kd_weight=2.0, temperature=3.0).eval()
    one = batch(method)
    expected = 2 * distillation(method.student(one.images), method.teacher(one.images), 3.0)
    assert method.losses(one)["kd"].item() == pytest.approx(expected.item(), rel=1e-5)
