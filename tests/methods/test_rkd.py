import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdbench.methods import rkd
from kdbench.methods.rkd import angle_loss, angles, distance_loss, relative_distances


def features(batch: int = 14, dim: int = 6, other: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), torch.randn(batch, other, generator=generator, dtype=torch.float64) * 3 + 1


def smooth_l1(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def slow_distances(x: np.ndarray) -> np.ndarray:
    distances = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x])
    return distances / distances[distances > 0].mean()


def slow_angle(x: np.ndarray, i: int, j: int, k: int) -> float:
    a, b = x[j] - x[i], x[k] - x[i]
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths > 0 else 0.0


@pytest.mark.parametrize(("case", "loss"), [("rkd_distance", distance_loss), ("rkd_angle", angle_loss)])
def test_each_loss_is_the_reference(reference, case, loss):
    case = reference(case)
    case.check(loss(case.student["student_features"], case.fixed["teacher_features"]))


def test_the_total_is_the_reference(reference):
    case = reference("rkd_total")
    x, t = case.student["student_features"], case.fixed["teacher_features"]
    case.check(case.params["distance_weight"] * distance_loss(x, t) + case.params["angle_weight"] * angle_loss(x, t))


def test_losses_are_their_definitions():
    x, t = features()
    with torch.no_grad():
        x[3] = x[8]  # two images that coincide for the student, not for the teacher
    a, b = x.detach().numpy(), t.numpy()
    distance = np.mean([smooth_l1(d) for d in (slow_distances(a) - slow_distances(b)).ravel()])
    assert distance_loss(x, t).item() == pytest.approx(distance, rel=1e-10)
    places = range(len(a))
    angle = np.mean(
        [smooth_l1(slow_angle(a, i, j, k) - slow_angle(b, i, j, k)) for i in places for j in places for k in places]
    )
    assert angle_loss(x, t).item() == pytest.approx(angle, rel=1e-10)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_gradients_are_those_of_finite_differences(loss):
    x, t = features(batch=6)
    assert torch.autograd.gradcheck(lambda x: loss(x, t), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_all_rows_equal(loss, dtype):
    """Finite, and nothing to learn from, whichever of the two networks has collapsed."""
    _, t = features()
    t = t.to(dtype)
    x = torch.full((14, 6), 0.7, dtype=dtype, requires_grad=True)
    value = loss(x, t)
    (gradient,) = torch.autograd.grad(value, x)
    assert value.isfinite()
    assert value > 0
    assert (gradient == 0).all()
    spread = t.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(spread, x.detach()), spread)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_some_rows_equal(loss):
    """The gradient of the coinciding rows is of the size of the others', not of 1 / ε."""
    x, t = features()
    size = torch.autograd.grad(loss(x, t), x)[0].norm()
    with torch.no_grad():
        x[3] = x[8]
        x[2] = x[8]
    (gradient,) = torch.autograd.grad(loss(x, t), x)
    assert gradient.isfinite().all()
    assert 0 < gradient.norm() < 3 * size


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_no_dependence_on_the_batch_size(loss):
    x, t = features()
    torch.testing.assert_close(loss(x.repeat(2, 1), t.repeat(2, 1)), loss(x, t))


@pytest.mark.parametrize("relation", [relative_distances, angles])
def test_relations_are_blind_to_scale_and_place(relation):
    x, _ = features()
    torch.testing.assert_close(relation(5 * x + 2), relation(x))


def test_terms_are_the_weighted_losses_of_the_pooled_features(make, batch):
    method = make("rkd").eval()
    one = batch(method)
    losses = method.losses(one)
    x = method.student(one.images, features=True).pooled
    t = method.teacher(one.images, features=True).pooled
    assert losses["distance"].item() == pytest.approx(25 * distance_loss(x, t).item(), rel=1e-5)
    assert losses["angle"].item() == pytest.approx(50 * angle_loss(x, t).item(), rel=1e-5)
    assert method.losses(one)["ce"].item() == pytest.approx(make("ce").eval().losses(one)["ce"].item(), rel=1e-5)


def test_widths_of_student_and_teacher_may_differ(make, batch):
    method = make("rkd", student="resnet8", teacher="resnet8x4")
    assert all(loss.isfinite() for loss in method.losses(batch(method)).values())


def test_blocks_of_triples_are_the_whole(monkeypatch):
    x, t = features(batch=14)
    whole = angle_loss(x, t)
    (gradient,) = torch.autograd.grad(whole, x)
    monkeypatch.setattr(rkd, "WHOLE", 6 * 14**2)  # the last block has two vertices
    loss = angle_loss(x, t)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(2 * loss, x)[0], 2 * gradient, rtol=1e-10, atol=1e-15)


class Memory(TorchDispatchMode):
    """The most bytes that storages made inside take at once, as they are when operations end."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.most = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (place := tensor.untyped_storage().data_ptr()) not in self.live:
                size = tensor.untyped_storage().nbytes()
                self.live.add(place)
                self.now, self.most = self.now + size, max(self.most, self.now + size)
                weakref.finalize(tensor.untyped_storage(), self._freed, place, size)
        return out

    def _freed(self, place, size):
        self.live.discard(place)
        self.now -= size


def test_a_large_batch_takes_no_more_than_64_mib():
    generator = torch.Generator().manual_seed(2)
    x, t = (torch.randn(256, 64, generator=generator) for _ in range(2))
    x.requires_grad_()
    with Memory() as memory:
        angle_loss(x, t).backward()
    assert 4 * rkd.WHOLE <= memory.most <= 64 * 2**20


def test_blocks_count_as_a_forward_pass():
    def flops(batch):
        x, t = (torch.randn(batch, 4).requires_grad_(needs) for needs in (True, False))
        with FlopCounterMode(display=False) as counter:
            angle_loss(x, t)
        return counter.get_total_flops()

    assert flops(160) * 128**3 == flops(128) * 160**3
