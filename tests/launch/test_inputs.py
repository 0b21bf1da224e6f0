"""Images and teachers that cannot be read are reported in one sentence, before anything starts, in a dry run too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.backbones import registry
from kdbench.cli.main import main
from kdbench.config import places
from kdbench.data import memory
from kdbench.data.readers import registry as readers
from kdbench.errors import UserError
from kdbench.launch import inputs
from kdbench.plan import expand, request
from kdbench.store.folder import CHECKPOINT, RunFolder

DIGITS = expand.plan(request.parse(["methods=kd", "dataset=digits", "seeds=0,1"]))


@pytest.fixture
def data(tmp_path):
    """CIFAR-10 with one image in a class."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(10):
            folder = tmp_path / "data" / "cifar10" / part / f"{number}"
            folder.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "1.png")
    return tmp_path / "data"


def plan(capsys, tmp_path, data, *words):
    """Exit status of a dry run, and its lines on standard error."""
    status = main(["run", *words, "--dry-run", "--runs", str(tmp_path / "runs"), "--data", str(data)])
    assert not (tmp_path / "runs").exists()
    return status, capsys.readouterr().err.splitlines()


def test_the_folder_of_a_dataset_is_checked_before_anything_starts(tmp_path):
    inputs.check(DIGITS, tmp_path, None)
    specs = expand.plan(request.parse(["methods=ce", "dataset=digits,cifar10"]))
    with pytest.raises(UserError, match="cifar10 needs a data folder"):
        inputs.check(specs, tmp_path, None)
    with pytest.raises(UserError, match="does not exist or is not a folder"):
        inputs.check(specs, tmp_path, tmp_path / "none")
    assert inputs.check(specs, tmp_path, None, dry_run=True) == []
    (sentence,) = inputs.check(specs, tmp_path, tmp_path, dry_run=True)
    assert sentence == f"the images of cifar10 are not in {tmp_path}; without --dry-run they are downloaded"


def test_the_room_for_outputs_of_teachers_is_stated(tmp_path):
    words = ["methods=ce,kd,rkd", "dataset=digits", "seeds=0,1", "Machine.teacher_cache_gib=2"]
    (sentence,) = inputs.check(expand.plan(request.parse(words)), tmp_path, None)
    assert sentence == (
        "the outputs of teachers in training take at most 2 GiB in RUNS/.teachers for each teacher and seed, in all 4 GiB, "
        "shared by 4 runs (Machine.teacher_cache_gib)"
    )


def test_a_bad_image_is_reported_once_for_all_runs(tmp_path, data, capsys):
    assert plan(capsys, tmp_path, data, "methods=ce,kd", "dataset=cifar10", "seeds=0-4") == (0, [])
    bad = data / "cifar10" / "test" / "3" / "2.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n torn")
    status, (line,) = plan(capsys, tmp_path, data, "methods=ce,kd", "dataset=cifar10", "seeds=0-4")
    assert status == 2
    assert line.startswith(f"kdbench: {bad} cannot be read as an image: ")
    bad.rename(bad.with_suffix(".txt"))
    bad.with_suffix(".txt").write_text("notes")
    assert plan(capsys, tmp_path, data, "methods=ce", "dataset=cifar10") == (
        0,
        [f"kdbench: 1 file in {data / 'cifar10'} passed by, not being images: 2.txt"],
    )


def test_images_with_other_channels_than_the_description_are_refused(tmp_path, data, capsys):
    words = ["methods=ce", "dataset=cifar10", "Dataset.mean=(0.5,)", "Dataset.std=(0.5,)"]
    status, (line,) = plan(capsys, tmp_path, data, *words)
    assert status == 2
    assert "Dataset.mean has 1 values but images of 'cifar10' have 3 channels" in line


READER = """
READERS = {{"mine": ("read", {{"needs_folder": True}})}}


def read(source, folder):
    import numpy as np
    from kdbench.data.readers.arrays import Arrays
    {body}
    images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3
    return Arrays(images, labels, images, labels, ("a", "b", "c"))
"""


@pytest.fixture
def mine(tmp_path, own_plugins):
    """Writes a plug-in dataset of three classes, which its reader does not declare."""

    def write(body="pass"):
        for name, text in {
            "readers/mine.py": READER.format(body=body),
            "gin/dataset/mine.gin": "Dataset.source = 'mine'\nDataset.mean = (0.3,)\nDataset.std = (0.3,)\n"
            "Dataset.mirrored = False\nDefaults.student = 'resnet8'\nDefaults.teacher = 'resnet20'\n"
            "Defaults.recipe = 'quick'\n",
        }.items():
            path = tmp_path / f"plugin{len(body)}" / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
        places.add_plugins([str(tmp_path / f"plugin{len(body)}")])

    return write


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise ValueError('no such archive')", "the reader of 'mine' fails: no such archive"),
        ("{}['labels']", "KeyError: 'labels' (read, plugin12/readers/mine.py:8)"),
        ("open(folder / 'list.txt')", "FileNotFoundError: [Errno 2] No such file or directory: "),
        ("return None", "the reader of 'mine' returns NoneType, not Arrays"),
    ],
)
def test_a_reader_that_fails_is_reported_before_anything_starts(tmp_path, mine, capsys, body, sentence):
    mine(body)
    status, (line,) = plan(capsys, tmp_path, tmp_path, "methods=ce", "dataset=mine")
    assert status == 2
    assert sentence in line


def test_a_weight_file_is_compared_with_the_classes_of_the_images(tmp_path, mine, capsys):
    mine()
    torch.save(registry.build("resnet8", 10, 1).state_dict(), tmp_path / "w.pt")
    status, (line,) = plan(capsys, tmp_path, tmp_path, "methods=ce,kd", "dataset=mine", f"teacher={tmp_path}/w.pt")
    assert status == 2
    assert "nearest is resnet8: of another shape fc.weight (it has 10 classes, here 3)" in line


def test_a_weight_file_near_chance_is_reported(tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(registry.build("resnet8", 10, 1).state_dict(), tmp_path / "w.pt")
    status, (line,) = plan(capsys, tmp_path, tmp_path, "methods=kd", "dataset=digits", f"teacher={tmp_path}/w.pt")
    assert status == 0
    assert "the teacher w.pt is right on " in line
    assert "near chance (10.0 %)" in line


def end(runs: Path, spec, **changes):
    folder = RunFolder(runs, spec.id)
    folder.begin(spec.config)
    from kdbench.run import checkpoint

    weights = registry.build(spec.student, 10, 1).state_dict()
    checkpoint.save(folder / CHECKPOINT, spec.student, weights, {})
    sha256 = checkpoint.weights_sha256(weights)
    checksums = {"weights.sha256": sha256, "data.sha256": readers.read("digits", None).digest()}
    folder.finish({**spec.identity(), "status": "finished", **checksums, **changes})
    return folder


def test_a_finished_teacher_is_read_before_anything_starts(tmp_path):
    teacher, *students = DIGITS
    folder = end(tmp_path, teacher)
    assert inputs.check(students, tmp_path, None) == []
    assert inputs.check([teacher, *students], tmp_path, None) == []
    content = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{teacher.id} cannot teach: .* it is truncated or damaged"):
        inputs.check(students, tmp_path, None)
    inputs.check([teacher, *students], tmp_path, None)  # which trains it again
    (folder / CHECKPOINT).write_bytes(content)
    content = torch.load(folder / CHECKPOINT)
    for changes in ({"backbone": "gone"}, {"backbone": 3}, {"method": []}, {"method": {"state": 1}}, {"student": None}):
        torch.save({**content, **changes}, folder / CHECKPOINT)
        with pytest.raises(UserError, match=teacher.id) as error:
            inputs.check(students, tmp_path, None)
        assert "\n" not in str(error.value)
    end(tmp_path, teacher, **{"weights.sha256": "0" * 64})
    with pytest.raises(UserError, match=f"{teacher.id} do not match the recorded checksum"):
        inputs.check(students, tmp_path, None)


def test_a_finished_teacher_of_other_images_is_refused(tmp_path, data):
    teacher, *students = expand.plan(request.parse(["methods=kd", "dataset=cifar10"]))
    end(tmp_path, teacher, **{"data.sha256": "0" * 64})
    with pytest.raises(UserError, match=f"{teacher.id} was trained on different images from the present ones"):
        inputs.check(students, tmp_path, data)


def test_images_that_a_check_has_found_broken_are_refused_before_anything_starts(tmp_path, cats_and_dogs, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**9)  # the sentence names it, and it changes by the moment
    folder = cats_and_dogs(tmp_path / "data", 2, 2)
    (folder / "train" / "cat" / "1.png").write_bytes(b"no")
    words = ["methods=ce", "dataset=imagefolder", "Train.batch_size=2", "Train.epochs=1", "Split.validation=0"]
    plan = lambda *more: expand.plan(request.parse([*words, *more]))  # noqa: E731
    (sentence,) = inputs.check(plan("Dataset.skip_broken=False"), tmp_path / "runs", folder)
    assert "decoded into memory" in sentence
    assert main(["data", "check", "imagefolder", "--data", str(folder)]) == 1
    with pytest.raises(
        UserError, match=r"cat/1.png cannot be read as an image: .*; mend or remove it, or pass Dataset.skip"
    ):
        inputs.check(plan(), tmp_path / "runs", folder)
    (folder / "train" / "cat" / "1.png").write_bytes((folder / "train" / "cat" / "0.png").read_bytes())
    assert inputs.check(plan(), tmp_path / "runs", folder) == [sentence]


def test_a_share_of_the_test_image_is_refused_where_images_have_one_size(tmp_path):
    words = ["methods=ce", "dataset=digits", "recipe=imagenet", "Train.batch_size=8"]
    with pytest.raises(
        UserError, match=r"ResizedCrop.test_share is for image files, and 'digits' has images of one size"
    ):
        inputs.check(expand.plan(request.parse(words)), tmp_path, None)
    inputs.check(expand.plan(request.parse([*words, "ResizedCrop.test_share=1"])), tmp_path, None)
