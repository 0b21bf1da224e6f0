"""A teacher's outputs in training are read by the next method of a protocol and seed, and no weight shows it."""

import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from kdbench.backbones.backbone import Features
from kdbench.config import places
from kdbench.errors import UserError
from kdbench.launch import backlog, local
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.run.teacher_outputs import FOLDER
from kdbench.run.training_outputs import TrainingOutputs

WORDS = ["student=resnet8", "teacher=resnet14", "Train.epochs=1"]
ON = "Machine.teacher_cache_gib=0.1"


class Students:
    """Students of one teacher, each trained as if nobody had trained it before."""

    def __init__(self, taught):
        self.taught, self.folder = taught, taught.runs / FOLDER

    def specs(self, method, *words):
        given = {word.partition("=")[0] for word in words}
        usual = (word for word in WORDS if word.partition("=")[0] not in given)
        return self.taught.specs(*usual, f"methods={method}", *words)

    def train(self, method, *words, do=lambda specs, runs: local.inline(specs, runs, None)[-1]):
        """The weights, and the images that passed through the teacher or were read."""
        specs = self.specs(method, *words)
        shutil.rmtree(self.taught.runs / specs[-1].id, ignore_errors=True)
        result = do(backlog.open_runs(specs, self.taught.runs), self.taught.runs)
        assert result["status"] == "finished", result["error"]
        assert result["run"] == specs[-1].id
        return result["weights.sha256"], result["passes.teachers"], result.get("passes.teachers_read", 0)

    def files(self):
        return [path for path in self.folder.iterdir() if path.suffix]


@pytest.fixture
def students(taught):
    shutil.rmtree(taught.runs / FOLDER, ignore_errors=True)
    return Students(taught)


@pytest.mark.parametrize("value", ["-1", "1e9", "1e400"])
def test_an_absurd_size_is_refused_by_the_plan(students, value):
    with pytest.raises(UserError, match="teacher_cache_gib"):
        students.specs("kd", f"Machine.teacher_cache_gib={value}")


def test_without_the_setting_nothing_is_kept(students):
    students.train("kd")
    assert students.files() == []


def test_the_next_method_reads_what_the_first_one_computed(students):
    alone = {method: students.train(method) for method in ("kd", "rkd", "crd")}
    images = alone["kd"][1]
    assert students.train("kd", ON) == alone["kd"]
    for method, (weights, _, _) in alone.items():
        assert students.train(method, ON) == (weights, 0, images)


def test_both_precisions_and_seeds_keep_their_own(students):
    in_half = "Train.precision=bfloat16"
    alone = students.train("kd", in_half)
    students.train("kd", ON)
    assert students.train("kd", ON, in_half) == alone
    assert students.train("kd", ON, in_half) == (alone[0], 0, alone[1])
    assert students.train("kd", ON, "seeds=1")[2] == 0


def test_plug_ins_read_what_they_ask_for_and_compute_what_is_not_kept(students, own_plugins):
    places.add_plugins([str(Path(__file__).parents[1] / "contract/plugin")])
    students.train("kd", ON)
    _, computed, read = students.train("fsp", ON, "Train.epochs=2")
    assert computed
    assert not read
    weights, images, _ = students.train("srrl")
    assert students.train("srrl", ON) == (weights, 0, images)


def damage(path, kind):
    size = path.stat().st_size
    if kind == "cut":
        os.truncate(path, size // 2)
    elif kind == "changed":
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(bytes(size))


@pytest.mark.parametrize("kind", ["cut", "changed", "zeros"])
def test_damaged_records_are_computed_and_written_again(students, kind):
    weights, images, _ = students.train("kd", ON)
    (path,) = students.files()
    whole = path.read_bytes()
    damage(path, kind)
    again, computed, read = students.train("kd", ON)
    assert (again, computed + read) == (weights, images)
    assert computed >= 24
    assert (read > 0) == (kind in ("cut", "changed"))
    assert path.read_bytes() == whole


def test_a_run_that_is_stopped_after_every_step(students):
    weights, images, _ = students.train("rkd")

    def interrupted(specs, runs):
        while True:
            try:
                return run(specs[-1], runs, None, Caller(stop=lambda: True))
            except Stopped:
                continue

    assert students.train("rkd", ON, do=interrupted) == (weights, images, 0)
    assert students.train("rkd", ON, do=interrupted) == (weights, 0, images)


def test_what_cannot_be_written_is_computed(students):
    weights, images, _ = students.train("kd")
    shutil.rmtree(students.folder, ignore_errors=True)
    students.folder.write_text("a file, so that nothing can be written below it")
    try:
        assert students.train("kd", ON) == (weights, images, 0)
    finally:
        students.folder.unlink()


class Network:
    """Logits (B, 2) and pooled features (B, 3) of images, counted."""

    def __init__(self):
        self.computed = []

    def outputs(self, kept, step, images):
        def compute():
            self.computed.append(step)
            return Features(images.mean(dim=(2, 3))[:, :2].contiguous(), (), images.amax(dim=(2, 3)))

        return kept.get(step, images, (2, 3), compute)


BATCHES = [torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(step)) for step in range(6)]


def kept_in(folder, most=1 << 20):
    return TrainingOutputs(folder, lambda: ["a teacher"], most)


def test_two_that_write_at_once_and_one_that_reads(tmp_path):
    network, first, second = Network(), kept_in(tmp_path), kept_in(tmp_path)
    for step, images in enumerate(BATCHES):
        one, other = (
            network.outputs(kept, step, images) for kept in ((first, second) if step % 2 else (second, first))
        )
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.pooled, other.pooled)
    assert network.computed == [0, 1, 2, 3, 4, 5]
    assert [network.outputs(kept_in(tmp_path), step, BATCHES[step]).logits.shape for step in (5, 0)] == [(4, 2), (4, 2)]
    assert len(network.computed) == 6


@pytest.mark.parametrize("change", ["a value", "the layout", "the precision", "the order"])
def test_other_images_are_computed_and_leave_the_record(tmp_path, change):
    network, images = Network(), BATCHES[0].clone()
    network.outputs(kept_in(tmp_path), 0, BATCHES[0])
    if change == "a value":
        images[3, 2, 4, 4] += 1e-7
    elif change == "the layout":
        images = images.contiguous(memory_format=torch.channels_last)
    elif change == "the order":
        images = images.flip(0)
    with torch.autocast("cpu", enabled=change == "the precision"):
        network.outputs(kept_in(tmp_path), 0, images)
    assert network.computed == [0, 0]
    network.outputs(kept_in(tmp_path), 0, BATCHES[0])
    assert network.computed == [0, 0]


def test_on_a_full_disk_the_rest_is_computed(tmp_path):
    network, kept = Network(), kept_in(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        for _ in range(2):
            for step, images in enumerate(BATCHES):
                assert torch.equal(network.outputs(kept, step, images).pooled, images.amax(dim=(2, 3)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert network.computed == [*range(6), *range(6)], "switched off for this run"
    assert network.outputs(kept_in(tmp_path), 0, BATCHES[0]).logits.shape == (4, 2)
    assert len(network.computed) == 12, "and the next one reads what is there"


def test_steps_beyond_the_limit_are_computed(tmp_path):
    network = Network()
    for _ in range(2):
        for step, images in enumerate(BATCHES):
            network.outputs(kept_in(tmp_path, most=450), step, images)
    assert network.computed == [*range(6), 3, 4, 5]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 450


@pytest.mark.parametrize("other", ["a link", "a folder", "a pipe"])
def test_only_regular_files_are_used(tmp_path, other):
    network = Network()
    network.outputs(kept_in(tmp_path / "kept"), 0, BATCHES[0])
    (path,) = (tmp_path / "kept").iterdir()
    path.unlink()
    if other == "a link":
        (tmp_path / "elsewhere").write_text("untouched")
        path.symlink_to(tmp_path / "elsewhere")
    elif other == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    network.outputs(kept_in(tmp_path / "kept"), 0, BATCHES[0])
    assert network.computed == [0, 0]
    assert other != "a link" or (tmp_path / "elsewhere").read_text() == "untouched"
