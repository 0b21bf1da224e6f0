"""Methods that remember: of each image (ps_kd), of each class (ols, kdpp), and of the weights (ema)."""

import copy
import csv
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from kdbench.config.settings import Dataset, Split
from kdbench.data import task as tasks
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.loop.batches import unaugmented
from kdbench.run.resume import RESUME, Stopped, parse
from kdbench.store.folder import EPOCHS, RunFolder
from kdbench.streams import Streams

DIGITS = Dataset(source="digits", mean=(0.3,), std=(0.35,), mirrored=False)


# ps_kd: a row for each image.


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_predictions_on_the_host_give_nearly_the_same_training(run_all, tmp_path, dtype):
    (here,) = run_all(tmp_path, "methods=ps_kd")
    (there,) = run_all(tmp_path, "methods=ps_kd", "PSKD.place=host", f"PSKD.dtype={dtype}")
    assert here["status"] == there["status"] == "finished"
    assert (here["weights.sha256"] == there["weights.sha256"]) == (dtype == "float32")


def test_a_memory_over_its_limit_stops_the_run_with_one_sentence(run_all, tmp_path):
    (result,) = run_all(tmp_path, "methods=ps_kd", "PSKD.limit_gib=1e-6")
    assert result["status"] == "failed"
    sentence = (
        "a memory of 72 × 10 numbers (torch.float32) takes 0.0 GiB, more than its limit of 1e-06 GiB; "
        "take a smaller type or a higher limit"
    )
    assert result["error"] == sentence


def test_the_memory_is_part_of_the_state_of_training(plan, tmp_path):
    (spec,) = plan("methods=ps_kd", "Machine.checkpoint_every=0")
    asked = iter(range(6))
    with pytest.raises(Stopped):
        run(spec, tmp_path, None, Caller(stop=lambda: next(asked, None) is None))
    state = parse((RunFolder(tmp_path, spec.id) / RESUME).read_bytes())
    rows = state["method"]["predictions.rows"]
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(72))  # each image was met in the first five steps


# ols: a row for each class.


def test_a_matrix_is_gathered_over_an_epoch_and_used_in_the_next(make, batch):
    method = make("ols").eval()
    batches = [batch(method, step=step) for step in range(3)]
    assert all(method.losses(one)["soft"] == 0 for one in batches)
    assert not method.matrix.any(), "only swapped in at the end"
    logits = torch.cat([method.student(one.images) for one in batches]).detach()
    labels = torch.cat([one.labels for one in batches])
    method.after_epoch(1)
    for label in range(4):
        right = (logits.argmax(dim=1) == labels) & (labels == label)
        expected = logits[right].softmax(dim=1).mean(dim=0) if right.any() else torch.full((4,), 0.25)
        torch.testing.assert_close(method.matrix[label], expected)
    assert not method.sums.any()
    assert not method.counts.any()
    assert method.losses(batches[0])["soft"] > 0


def test_the_matrix_is_swapped_once_an_epoch(run_all, tmp_path):
    (result,) = run_all(tmp_path, "methods=ols")
    lines = list(csv.DictReader((tmp_path / result["run"] / EPOCHS).open()))
    soft = [float(line["loss.soft"]) for line in lines]
    # The step in which an epoch ends belongs to it: 72 images end in the fifth step of 16.
    assert soft[0] == 0
    assert all(value > 0 for value in soft[1:])


# kdpp: the teacher's mean feature of each class, before the first step.


@pytest.mark.parametrize("student", ["resnet8", "resnet8x4"])
def test_class_means_are_those_of_all_images_without_augmentation(make, student):
    task = tasks.load(DIGITS, Split(validation=0.2, seed=0), None, torch.device("cpu"))
    method = make("kdpp", labels=task.train.labels.tolist(), student=student).eval()
    with torch.no_grad():
        method.prepare(unaugmented(task, DIGITS, Streams(0)))
    pixels = task.train.images.permute(0, 3, 1, 2).float() / 255
    pooled = method.teach_images((pixels - 0.3) / 0.35).pooled
    for label in range(10):
        torch.testing.assert_close(method.class_means[label], pooled[task.train.labels == label].mean(dim=0))


def test_the_pass_before_the_first_step_is_counted_as_the_teachers(run_all, tmp_path):
    *_, result = run_all(tmp_path, "methods=kdpp")
    assert result["status"] == "finished", result.get("error")
    assert result["passes.student"] == result["images_seen"]
    assert result["passes.teachers"] == result["images_seen"] + 72


def test_class_means_are_not_gathered_again_by_a_run_that_resumes(run_all, plan, tmp_path):
    """They come from the state of training: the teacher's passes do not begin again."""
    *_, whole = run_all(tmp_path / "whole", "methods=kdpp")
    *teachers, spec = plan("methods=kdpp", "Machine.checkpoint_every=0")
    for teacher in teachers:
        run(teacher, tmp_path, None)
    asked = iter(range(3))
    with pytest.raises(Stopped):
        run(spec, tmp_path, None, Caller(stop=lambda: next(asked, None) is None))
    result = run(spec, tmp_path, None)
    assert result["weights.sha256"] == whole["weights.sha256"]
    assert result["passes.teachers"] == whole["passes.teachers"]


# ema: a moving average of the weights.


def test_the_average_follows_the_weights_after_each_step(make, batch):
    method = make("ema", decay=0.75)
    expected = copy.deepcopy(method.student.state_dict())
    optimiser = torch.optim.SGD(method.student.parameters(), lr=0.05)
    for step in range(3):
        one = batch(method, step=step)
        optimiser.zero_grad()
        sum(method.losses(one).values()).backward()
        optimiser.step()
        with torch.no_grad():
            method.after_step(one)
        for name, now in method.student.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * now if now.is_floating_point() else now.clone()
    for name, value in method.average.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not any(p.requires_grad or p.grad is not None for p in method.average.parameters())


def test_consistency_compares_with_the_average_in_evaluation_mode(make, batch):
    method = make("ema", consistency_weight=2.0)
    one = dataclasses.replace(batch(method), progress=0.5)
    with torch.no_grad():
        for parameter in method.average.parameters():
            parameter.mul_(1.1)
        target = method.average.eval()(one.images).softmax(dim=1)
        expected = F.mse_loss(make("ema").student(one.images).softmax(dim=1), target)
    before = copy.deepcopy(method.average.state_dict())
    assert method.train().losses(one)["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in method.average.state_dict().items())


def test_the_average_is_an_exit_and_exact_under_resume(run_all, plan, tmp_path):
    (whole,) = run_all(tmp_path / "whole", "methods=ema", "EMA.decay=0.9")
    assert whole["status"] == "finished", whole.get("error")
    assert {key for key in whole if key.startswith("exits.")} == {"exits.average", "exits.ensemble"}
    assert whole["passes.student"] == whole["images_seen"], "the average's passes are not the student's"
    assert whole["cost.parameters_training"] == whole["cost.parameters"], "the average is not trained"

    (spec,) = plan("methods=ema", "EMA.decay=0.9", "Machine.checkpoint_every=0")
    stops = 0
    while True:
        try:
            parts = run(spec, tmp_path / "parts", None, Caller(stop=lambda: True))
            break
        except Stopped:
            stops += 1
    assert stops > 5
    for key in ("weights.sha256", "exits.average", "accuracy.last", "calibration.nll"):
        assert parts[key] == whole[key], key


def test_the_average_learns(run_all, tmp_path):
    (result,) = run_all(tmp_path, "methods=ema", "EMA.decay=0.5")
    assert result["exits.average"] > 15, "chance is 10"
