import csv
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.backbones import registry
from kdbench.config import settings
from kdbench.config.schedules import Cosine
from kdbench.config.settings import SGD, Augment, Dataset, Machine, Measures, Settings, Split
from kdbench.data import task as task_
from kdbench.data.augment import Augmenter
from kdbench.errors import RunError
from kdbench.method import Info, Method
from kdbench.run.batches import steps
from kdbench.run.budget import Budget
from kdbench.run.train import train
from kdbench.streams import Streams

DIGITS = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)
AUGMENT = Augment(padding=0.125, fill=0, flip=True, cutout=0.0)
RATE = SGD(lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)


def recipe(**changed):
    usual = dict(
        epochs=3.0, batch_size=16, schedule=Cosine(final=0.0), warmup=0.0, label_smoothing=0.0,
        precision="float32", clip_norm=0.0,
    )  # fmt: skip
    return settings.Train(**{**usual, **changed})


def task(validation=0.2):
    return task_.load(DIGITS, Split(validation=validation, seed=0), None, torch.device("cpu"))


class Plain(Method):
    """Cross-entropy, with what the tests want to see on the way."""

    def setup(self):
        self.seen = []

    def losses(self, batch):
        self.seen.append(batch.index.clone())
        return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}


class Pairs(Plain):
    """An image and its successor for every anchor."""

    images_per_anchor = 2

    def sample(self, anchors, streams):
        return torch.cat([anchors, (anchors + 1) % len(self.info.train_labels)])


def method(cls, its_task, seed=0):
    with Streams(seed).as_global("init"):
        student = registry.build("resnet8", its_task.classes, 1)
    return cls(student, [], Info(its_task.classes, its_task.train.labels, (1, 8, 8), 0.0, torch.device("cpu")))


def trained(tmp_path, cls=Plain, its_task=None, **changed):
    its_task = its_task or task()
    made = method(cls, its_task)
    machine = Machine("cpu", 0, False, False, 60.0, 1, "")
    given = Settings(DIGITS, Split(0.0, 0), AUGMENT, RATE, recipe(**changed), machine, Measures((), False, 0, ()))
    outcome = train(made, its_task, given, Streams(0), tmp_path / "epochs.csv")
    return made, outcome


@given(
    epochs=st.floats(0.5, 20),
    images=st.integers(100, 5000),
    batch=st.integers(2, 128),
    group=st.sampled_from([1, 2, 3]),
)
def test_no_method_gets_more_than_the_budget_nor_a_step_less(epochs, images, batch, group):
    if epochs * images < batch + group:
        return
    budget = Budget(recipe(epochs=epochs, batch_size=batch), images, group)
    seen = budget.steps * budget.per_step
    assert seen <= budget.total < seen + budget.per_step
    assert batch <= budget.per_step < batch + group


def test_an_epoch_is_n_images_whatever_the_sampler_draws():
    corsd = Budget(recipe(epochs=10, batch_size=128), 45_000, 3)
    plain = Budget(recipe(epochs=10, batch_size=128), 45_000, 1)
    assert (corsd.anchors, corsd.per_step) == (43, 129)
    assert corsd.epoch_after(math.ceil(45_000 / 129) - 1) == 1
    assert plain.epoch_after(math.ceil(45_000 / 128) - 1) == 1
    assert corsd.epoch_after(corsd.steps - 1) == plain.epoch_after(plain.steps - 1) == 10


def test_a_budget_below_one_step_is_an_error():
    with pytest.raises(RunError, match="less than one step of 16"):
        Budget(recipe(epochs=0.1), 100, 1)


def test_images_seen_are_counted_and_every_epoch_has_a_line(tmp_path):
    made, outcome = trained(tmp_path)
    assert outcome.images_seen == sum(map(len, made.seen)) == 3 * 72 // 16 * 16
    lines = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert float(lines[-1]["accuracy.val"]) == outcome.validation
    assert float(lines[0]["loss"]) == pytest.approx(float(lines[0]["loss.ce"]))
    assert outcome.best_validation == max(float(line["accuracy.val"]) for line in lines)


def test_a_structured_sampler_meets_the_same_anchors_in_the_same_order(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    plain, _ = trained(tmp_path / "a", Plain, epochs=4)
    pairs, outcome = trained(tmp_path / "b", Pairs, epochs=4)
    anchors = torch.cat([index[: len(index) // 2] for index in pairs.seen])
    assert torch.equal(anchors, torch.cat(plain.seen)[: len(anchors)])
    assert outcome.images_seen == 2 * len(anchors)


def test_batches_from_the_middle_are_those_of_the_whole():
    its_task = task()
    made = method(Pairs, its_task)
    augmenter = Augmenter(its_task.train.images, AUGMENT, DIGITS)
    budget = Budget(recipe(), len(its_task.train), 2)
    whole = list(steps(made, its_task, augmenter, Streams(0), budget))
    rest = list(steps(made, its_task, augmenter, Streams(0), budget, first=5))
    assert [b.step for b in rest] == list(range(5, budget.steps))
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[5:], rest, strict=True))


def test_without_a_validation_split_nothing_is_best(tmp_path):
    _, outcome = trained(tmp_path, its_task=task(0.0))
    assert outcome.validation is None
    assert outcome.best is None


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path):
    its_task = task()
    made, outcome = trained(tmp_path, its_task=its_task, epochs=6)
    from kdbench.run.evaluate import accuracy

    made.student.load_state_dict(outcome.best)
    assert accuracy(made.student, its_task.validation, DIGITS) == outcome.best_validation


def test_the_learning_rate_warms_up_and_follows_the_schedule(tmp_path, monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    trained(tmp_path, epochs=4.0, warmup=1.0, batch_size=9)
    budget = Budget(recipe(epochs=4.0, batch_size=9, warmup=1.0), 72, 1)
    assert budget.warmup_steps == 8
    cosine = [0.05 * 0.5 * (1 + math.cos(math.pi * k / budget.steps)) for k in range(budget.steps)]
    expected = [rate * min(1.0, (k + 1) / 8) for k, rate in enumerate(cosine)]
    assert rates == pytest.approx(expected)


def test_clipping_bounds_the_gradient(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.SGD.step

    def watched(self, *a):
        norms.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]).norm().item())
        return step(self, *a)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    trained(tmp_path, clip_norm=0.1)
    assert max(norms) <= 0.1 * 1.001
    norms.clear()
    (tmp_path / "epochs.csv").unlink()
    trained(tmp_path, clip_norm=0.0)
    assert max(norms) > 0.2


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(tmp_path):
    class Broken(Plain):
        def losses(self, batch):
            return {**super().losses(batch), "extra": torch.log(torch.tensor(-1.0))}

    with pytest.raises(RunError, match=r"the loss is not finite at step \d+ \(term extra\)"):
        trained(tmp_path, Broken)


def test_a_sampler_that_loses_its_anchors_is_an_error(tmp_path):
    class Lost(Pairs):
        def sample(self, anchors, streams):
            return super().sample(anchors, streams).flip(0)

    with pytest.raises(RunError, match="must return its anchors"):
        trained(tmp_path, Lost)


@pytest.mark.parametrize("hook", ["update", "after_step"])
def test_images_that_pass_outside_the_losses_count_too(tmp_path, hook):
    """A method may look at the batch again where it updates, and declares it."""

    class Again(Plain):
        def losses(self, batch):
            self.images = batch.images
            return super().losses(batch)

        def update(self, terms, update):
            super().update(terms, update)
            if hook == "update":
                self.student(self.images)

        def after_step(self, batch):
            if hook == "after_step":
                self.student(batch.images)

    with pytest.raises(RunError, match="Again declares 1 image through the student for each anchor, but 2 pass"):
        trained(tmp_path, Again)
    Again.passes = 2
    _, outcome = trained(tmp_path, Again)
    assert outcome.passes["passes.student"] == outcome.images_seen


def test_bfloat16_trains_and_differs_from_float32(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    half, _ = trained(tmp_path / "a", precision="bfloat16")
    full, _ = trained(tmp_path / "b")
    weights = [m.student.fc.weight for m in (half, full)]
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights)
    assert not torch.equal(*weights)
