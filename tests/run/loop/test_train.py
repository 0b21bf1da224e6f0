"""The training loop: what it counts and writes, which rate and gradient it takes, and the phases of a method."""

import csv
import math
from itertools import count

import pytest
import torch

from kdbench.config.optimisers import AdamW
from kdbench.errors import RunError
from kdbench.method import Phase, optimiser
from kdbench.run.checkpoint import weights_sha256
from kdbench.run.evaluate import accuracy
from kdbench.run.loop.budget import Budget
from kdbench.run.resume import Keeper, Stopped
from kdbench.store.folder import RunFolder


def test_images_seen_are_counted_and_every_epoch_has_a_line(small, tmp_path):
    made, outcome = small.trained(tmp_path)
    assert outcome.images_seen == sum(map(len, made.seen)) == 3 * 72 // 16 * 16
    lines = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert float(lines[-1]["accuracy.val"]) == outcome.validation
    assert float(lines[0]["loss"]) == pytest.approx(float(lines[0]["loss.ce"]))
    assert outcome.best_validation == max(float(line["accuracy.val"]) for line in lines)


def test_without_a_validation_split_nothing_is_best(small, tmp_path):
    _, outcome = small.trained(tmp_path, its_task=small.task(0.0))
    assert outcome.validation is None
    assert outcome.best is None


def test_the_best_weights_are_those_of_the_best_epoch(small, tmp_path):
    its_task = small.task()
    made, outcome = small.trained(tmp_path, its_task=its_task, epochs=6)
    made.student.load_state_dict(outcome.best)
    assert accuracy(made.student, its_task.validation, small.DIGITS) == outcome.best_validation


def test_the_learning_rate_warms_up_and_follows_the_schedule(small, tmp_path, monkeypatch):
    rates = []
    step = optimiser.SGD.step
    monkeypatch.setattr(
        optimiser.SGD, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    small.trained(tmp_path, epochs=4.0, warmup=1.0, batch_size=9)
    budget = Budget(small.recipe(epochs=4.0, batch_size=9, warmup=1.0), 72, 1)
    assert budget.warmup_steps == 8
    cosine = [0.05 * 0.5 * (1 + math.cos(math.pi * k / budget.steps)) for k in range(budget.steps)]
    expected = [rate * min(1.0, (k + 1) / 8) for k, rate in enumerate(cosine)]
    assert rates == pytest.approx(expected)


def test_clipping_bounds_the_gradient(small, tmp_path, monkeypatch):
    norms = []
    step = optimiser.SGD.step

    def watched(self, *a):
        norms.append(torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]).norm().item())
        return step(self, *a)

    monkeypatch.setattr(optimiser.SGD, "step", watched)
    small.trained(tmp_path, clip_norm=0.1)
    assert max(norms) <= 0.1 * 1.001
    norms.clear()
    (tmp_path / "epochs.csv").unlink()
    small.trained(tmp_path, clip_norm=0.0)
    assert max(norms) > 0.2


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_term(small, tmp_path):
    class Broken(small.Plain):
        def losses(self, batch):
            return {**super().losses(batch), "extra": torch.log(torch.tensor(-1.0))}

    with pytest.raises(RunError, match=r"the loss is not finite at step \d+ \(term extra\)"):
        small.trained(tmp_path, Broken)


@pytest.mark.parametrize("hook", ["update", "after_step"])
def test_images_that_pass_outside_the_losses_count_too(small, tmp_path, hook):
    """A method may look at the batch again where it updates, and declares it."""

    class Again(small.Plain):
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
        small.trained(tmp_path, Again)
    Again.passes = 2
    _, outcome = small.trained(tmp_path, Again)
    assert outcome.passes["passes.student"] == outcome.images_seen


def test_bfloat16_trains_and_differs_from_float32(small, tmp_path):
    half, _ = small.trained(tmp_path / "a", precision="bfloat16")
    full, _ = small.trained(tmp_path / "b")
    weights = [m.student.fc.weight for m in (half, full)]
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights)
    assert not torch.equal(*weights)


def two_phases(plain, **first):
    """A method whose first phase trains all but the classifier on another loss; it notes what it meets in each step."""

    class TwoPhases(plain):
        def setup(self):
            super().setup()
            self.weights, self.momenta = [], []

        def phases(self):
            body = list(self.student.body().parameters())
            return (
                Phase(**{"name": "maps", "share": 0.4, "losses": self.maps, "trains": body, **first}),
                Phase("classes", trains=list(self.student.parameters())),
            )

        def optimisers(self, parameters, sgd):
            self.mine = super().optimisers(parameters, sgd)
            return self.mine

        def maps(self, batch):
            self.note(batch)
            return {"maps": self.student(batch.images, features=True).pooled.square().mean()}

        def losses(self, batch):
            self.note(batch)
            return {"ce": self.cross_entropy(self.student(batch.images), batch.labels)}

        def note(self, batch):
            self.seen.append(batch)
            self.weights.append({name: p.detach().clone() for name, p in self.student.named_parameters()})
            self.momenta.append(len(self.mine["sgd"].state))

    return TwoPhases


STEPS, FIRST = 13, 5  # of three epochs of 72 images, 16 a step, and of a first phase with 0.4 of them


def test_parameters_that_a_phase_does_not_train_stay_the_same_bits(small, tmp_path):
    method, outcome = small.trained(tmp_path, two_phases(small.Plain))
    assert len(method.seen) == STEPS
    assert outcome.images_seen == STEPS * 16
    start, switch, end = method.weights[0], method.weights[FIRST], method.weights[-1]
    for name, value in start.items():
        classifier = name.startswith("fc.")
        assert torch.equal(value, switch[name]) == classifier, f"{name} in the first phase"
        assert not torch.equal(switch[name], end[name]), f"{name} in the second phase"


def test_each_phase_begins_with_a_fresh_optimiser(small, tmp_path):
    method, _ = small.trained(tmp_path, two_phases(small.Plain))
    at_switch = [step for step in range(STEPS) if not method.momenta[step]]
    assert at_switch == [0, FIRST], "momentum is lost there, and nowhere else"


def test_a_step_knows_how_far_phase_and_training_are(small, tmp_path):
    method, _ = small.trained(tmp_path, two_phases(small.Plain))
    assert [b.progress for b in method.seen] == [step / STEPS for step in range(STEPS)]
    first, second = range(FIRST), range(STEPS - FIRST)
    expected = [step / FIRST for step in first] + [step / (STEPS - FIRST) for step in second]
    assert [b.phase_progress for b in method.seen] == expected


def test_a_phase_on_top_adds_its_images(small, tmp_path):
    method, outcome = small.trained(tmp_path, two_phases(small.Plain, on_top=True))
    assert outcome.images_seen == len(method.seen) * 16 == (STEPS + FIRST) * 16
    assert outcome.passes["passes.student"] == outcome.images_seen
    lines = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert int(lines[-1]["images"]) == outcome.images_seen


def test_a_phase_meets_the_batches_that_one_phase_alone_would_meet(small, tmp_path):
    plain, _ = small.trained(tmp_path / "a")
    phased, _ = small.trained(tmp_path / "b", two_phases(small.Plain))
    assert all(torch.equal(index, batch.index) for index, batch in zip(plain.seen, phased.seen, strict=True))


@pytest.mark.parametrize("on_top", [False, True])
def test_stopped_before_at_and_after_the_switch_training_ends_in_the_same_bits(small, tmp_path, on_top):
    cls = two_phases(small.Plain, on_top=on_top)
    undisturbed, expected = small.trained(tmp_path / "undisturbed", cls)
    lines = [line.split(",")[3:] for line in (tmp_path / "undisturbed/epochs.csv").read_text().splitlines()]
    for after in (FIRST - 1, FIRST, FIRST + 1):
        folder = RunFolder(tmp_path, f"stopped{after}")
        asked = count(1)
        keeper = Keeper(folder, {}, 1000.0, stop=lambda asked=asked, after=after: next(asked) == after)
        folder.path.mkdir()
        with pytest.raises(Stopped):
            small.trained(folder.path, cls, keeper=keeper)
        method, outcome = small.trained(folder.path, cls, keeper=Keeper(folder, {}, 1000.0))
        assert len(method.seen) == len(undisturbed.seen) - after
        assert weights_sha256(method.state_dict()) == weights_sha256(undisturbed.state_dict())
        assert outcome.images_seen == expected.images_seen
        assert [line.split(",")[3:] for line in (folder / "epochs.csv").read_text().splitlines()] == lines


def test_the_rate_of_each_phase_is_its_own(small, tmp_path, monkeypatch):
    rates = []
    step = optimiser.SGD.step
    monkeypatch.setattr(
        optimiser.SGD, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    small.trained(tmp_path, two_phases(small.Plain, rate="constant"))
    second = [0.05 * 0.5 * (1 + math.cos(math.pi * k / (STEPS - FIRST))) for k in range(STEPS - FIRST)]
    assert rates == pytest.approx([0.05] * FIRST + second)


ADAMW = AdamW(lr=1e-3, betas=(0.9, 0.99), weight_decay=0.05, decay_vectors=False)


def test_adamw_that_is_interrupted_after_every_step_ends_in_the_same_bits(small, tmp_path):
    def train(folder, stop):
        folder = RunFolder(folder, "adamw")
        folder.begin("")
        keeper = Keeper(folder, {}, 0.0, stop)
        made, _ = small.trained(folder.path, keeper=keeper, optimiser=ADAMW, epochs=2.0, accumulate=2)
        return weights_sha256(made.state_dict())

    whole, stops = train(tmp_path / "whole", lambda: False), 0
    while True:
        try:
            parts = train(tmp_path / "parts", lambda: True)
            break
        except Stopped:
            stops += 1
    assert (stops, parts) == (8, whole)


def test_a_method_that_reads_a_setting_of_sgd_is_refused_under_adamw(small, tmp_path):
    class Momentum(small.Plain):
        def optimisers(self, parameters, settings):
            return {"own": torch.optim.SGD(parameters, settings.lr, settings.momentum)}

    small.trained(tmp_path, Momentum, epochs=1.0)
    with pytest.raises(RunError, match=r"Momentum\.optimisers reads 'momentum', which AdamW does not have"):
        small.trained(tmp_path, Momentum, optimiser=ADAMW, epochs=1.0)
