"""How long runs will take, from finished runs like them."""

import pytest

from kdbench.launch.slurm import estimate
from kdbench.plan import expand, request
from kdbench.store.folder import RunFolder


def spec(method="ce", *words):
    return expand.plan(request.parse([f"methods={method}", "dataset=digits", *words]))[-1]


def finished(runs, spec, seconds, status="finished"):
    folder = RunFolder(runs, spec.id)
    folder.begin(spec.config)
    folder.finish({**spec.identity(), "status": status, "seconds.total": seconds})
    return spec.id


def test_the_median_of_the_same_method(tmp_path):
    past = {finished(tmp_path, spec("ce", f"seeds={seed}"), seconds) for seed, seconds in ((0, 10), (1, 30), (2, 20))}
    finished(tmp_path, spec("byot"), 1000)
    finished(tmp_path, spec("ce", "seeds=7"), 1000, "failed")
    assert estimate.Past(tmp_path).seconds(spec("ce", "seeds=3")) == (20, past)


def test_else_of_other_methods_of_the_protocol(tmp_path):
    finished(tmp_path, spec("ce"), 10)
    assert estimate.Past(tmp_path).seconds(spec("byot"))[0] == 10


def test_else_of_other_budgets_of_the_dataset_and_student(tmp_path):
    finished(tmp_path, spec("ce", "Train.epochs=30"), 10)
    assert estimate.Past(tmp_path).seconds(spec("byot", "Train.epochs=90"))[0] == pytest.approx(30)
    assert estimate.Past(tmp_path).seconds(spec("ce_3x", "Train.epochs=90"))[0] == pytest.approx(90)
    assert estimate.Past(tmp_path).seconds(spec("ce", "student=resnet14")) == (None, set())


def test_nothing_is_known_of_a_folder_that_is_not_there(tmp_path):
    assert estimate.Past(tmp_path / "runs").seconds(spec()) == (None, set())


def test_hours_of_gpus_and_cores(tmp_path):
    finished(tmp_path, spec("ce", "student=resnet14"), 3600)
    past = estimate.Past(tmp_path)
    one, other = spec("ce", "student=resnet14", "seeds=1"), spec("ce")
    assert estimate.sentence([[one]], past, 1, 1, "GPU") == "estimate: 1 GPU-hours, from 1 finished run"
    assert estimate.sentence([[one], [one]], past, 1, 4, "CPU") == "estimate: 8 CPU-hours, from 1 finished run"
    # Two GPUs do two runs at a time, or one of them has nothing to do.
    assert estimate.sentence([[one, one]], past, 2, 2, "GPU") == "estimate: 2 GPU-hours, from 1 finished run"
    assert estimate.sentence([[one]], past, 2, 2, "GPU") == "estimate: 2 GPU-hours, from 1 finished run"
    assert "1 GPU-hours for 1 of 2 runs, " in estimate.sentence([[one], [other]], past, 1, 1, "GPU")
    assert estimate.sentence([[other]], past, 1, 1, "GPU") == "no estimate: no finished run like it"
    assert estimate.sentence([[other], [other]], past, 1, 1, "GPU") == "no estimate: no finished run like them"
