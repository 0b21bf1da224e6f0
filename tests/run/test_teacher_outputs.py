"""A teacher's outputs on the test images are computed by the first run alone, and no result shows which run that was."""

import json
import resource
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from kdbench.launch import backlog, local
from kdbench.run import arithmetic, evaluate, teacher_outputs
from kdbench.run.teacher_outputs import FOLDER, OutputsOnTest

TIMES = ("seconds.", "cost.images_per_second", "cost.peak", "provenance.", "convergence.seconds")


def measured(result):
    """The entries of a result that are the same each time."""
    return {key: value for key, value in result.items() if not key.startswith(TIMES)}


WORDS = ["methods=kd", "student=resnet8", "teacher=resnet14", "Train.epochs=0.5"]


class Runs:
    """Students of one finished teacher, each trained as if nobody had trained it before."""

    def __init__(self, taught, monkeypatch):
        self.taught, self.folder, self.passed = taught, taught.runs / FOLDER, 0
        outputs = evaluate._outputs

        def counted(network, x, pooled):
            self.passed += len(x)
            return outputs(network, x, pooled)

        monkeypatch.setattr(evaluate, "_outputs", counted)

    def student(self, *words):
        """The result of a student, and the test images that passed through networks for it."""
        given = {word.partition("=")[0] for word in words}
        specs = self.taught.specs(*(word for word in WORDS if word.partition("=")[0] not in given), *words)
        self.passed = 0
        local.inline(backlog.open_runs(specs, self.taught.runs), self.taught.runs, None)
        result = backlog.results(specs, self.taught.runs)[-1]
        assert result["status"] == "finished", result["error"]
        shutil.rmtree(self.taught.runs / result["run"])
        return measured(result), self.passed

    def files(self):
        return sorted(self.folder.iterdir())


@pytest.fixture
def runs(taught, monkeypatch):
    student = taught.do(*WORDS)[-1]
    shutil.rmtree(taught.runs / student["run"])
    shutil.rmtree(taught.runs / FOLDER, ignore_errors=True)
    return Runs(taught, monkeypatch)


def test_the_second_run_reads_them_and_has_the_same_result(runs):
    without, images = runs.student("Machine.teacher_cache=False")
    assert not runs.folder.exists()
    first, first_images = runs.student()
    second, second_images = runs.student()
    assert json.dumps(first) == json.dumps(second) == json.dumps(without)
    assert (first_images, second_images) == (images, images // 2)
    assert len(runs.files()) == 1, "one file for both"


@pytest.mark.parametrize("method", ["rkd", "crd"])
def test_other_methods_read_the_same_file(runs, method):
    runs.student()
    before = runs.files()
    runs.student(f"methods={method}")
    assert runs.files() == before


@pytest.mark.parametrize("damage", ["short", "changed", "a link", "a folder"])
def test_a_damaged_file_is_ignored_and_written_again(runs, tmp_path, damage):
    first = runs.student()
    (path,) = runs.files()
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.unlink()
    if damage == "a link":
        (tmp_path / "elsewhere").write_bytes(whole)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes(changed if damage == "changed" else whole[:-4])
    assert runs.student() == first
    if damage == "a folder":
        assert path.is_dir()
    else:
        assert not path.is_symlink()
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_to_is_not_used(runs):
    without = runs.student("Machine.teacher_cache=False")
    runs.folder.write_text("a file, so that nothing can be written below it")
    try:
        assert runs.student() == without
    finally:
        runs.folder.unlink()


def test_on_a_full_disk_nothing_is_kept(tmp_path, small):
    outputs, compute = evaluated(small, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        assert torch.equal(outputs()["own"], compute()["own"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_is_not_kept(tmp_path, small, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "AT_MOST", 1000)
    evaluated(small, tmp_path)[0]()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    ["nothing", "weights", "architecture", "images", "mean", "scale", "features", "threads", "version", "tf32"],
)
def test_whatever_changes_a_bit_has_a_file_of_its_own(tmp_path, small, change):
    evaluated(small, tmp_path)[0]()
    with arithmetic.kept():
        if change == "threads":
            torch.set_num_threads(torch.get_num_threads() + 1)
        elif change == "tf32":
            torch.backends.cuda.matmul.allow_tf32 = True
        outputs, compute = evaluated(small, tmp_path, change)
        assert all(torch.equal(value, compute()[name]) for name, value in outputs().items())
    assert len(list(tmp_path.iterdir())) == (1 if change == "nothing" else 2)


def evaluated(small, folder, changed=""):
    """Two functions: a network's outputs as they are kept in a folder, and as they are computed."""
    task = small.task()
    task.test.training_is_over()
    test, network, dataset = task.test.read(), small.built(small.Plain, task).student.eval(), small.DIGITS
    names, scale = ["own"], None
    if changed == "weights":
        next(network.parameters()).data[0] += 1
    elif changed == "architecture":
        next(each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)).eps = 0.5
    elif changed == "images":
        test.images[-1, 0, 0, 0] ^= 1
    elif changed == "mean":
        dataset = replace(dataset, mean=(0.4,))
    elif changed == "scale":
        scale = torch.full((1, 1, 1), 2.0)
    elif changed == "features":
        names = ["own", "features"]

    def of_batch(x):
        out = network(x if scale is None else x * scale, features=True)
        return dict(zip(names, (out.logits, out.pooled), strict=False))

    def compute():
        return evaluate.all_logits(of_batch, test, dataset)

    kept = OutputsOnTest(folder, {"provenance.torch": "3" if changed == "version" else "2"})
    return lambda: kept.get(network, [scale, None], test, dataset, names, 500, compute), compute
