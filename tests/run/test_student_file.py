"""A trained student in a file of safetensors, and the teacher that such a file is."""

import json
from dataclasses import replace

import pytest
import torch
from torchvision import models

from kdbench.backbones import registry
from kdbench.errors import RunError, UserError
from kdbench.plan.request import WeightFile
from kdbench.run import checkpoint, load, student_file, teacher
from kdbench.run.student_facts import METADATA, Facts
from kdbench.run.student_file import Student
from kdbench.store.folder import RESULT, RunFolder

safetensors = pytest.importorskip("safetensors.torch")

FACTS = Facts(
    run="ce-digits", method="ce", dataset="digits", student="resnet8", seed=0, classes=5, class_names=("a", "b", "c", "d", "e"),
    mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), image_shape=(3, 32, 32), accuracy=91.25, protocol="1f9c20", kdbench="0.1.0",
)  # fmt: skip


def student(name="resnet8", side=32):
    torch.manual_seed(0)
    network = registry.build(name, 5, 3, pretrained=False).eval()
    return Student(network, replace(FACTS, student=name, image_shape=(3, side, side)))


def folder_of(taught, words):
    return RunFolder(taught.runs, taught.do(*words)[-1]["run"])


@pytest.fixture
def trained(taught):
    return folder_of(taught, ["methods=kd"])


def test_the_student_comes_back_from_its_file_alone(trained, test_set, tmp_path):
    result = trained.typed_result()
    student_file.write(student_file.of_run(trained), tmp_path / "s.safetensors")
    built = student_file.read(tmp_path / "s.safetensors")
    assert checkpoint.weights_sha256(built.network.state_dict()) == result["weights.sha256"]
    assert built.facts.class_names == tuple("0123456789")
    assert built.facts.accuracy == result["accuracy.last"]
    assert (built.facts.mean, built.facts.std) == load.normalisation(trained.path)
    assert built.facts.image_shape == (1, 8, 8)
    images, labels = test_set(trained.path)
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in (built.facts.mean, built.facts.std))
    with torch.no_grad():
        logits = built.on_pixels()((images * std + mean).float())
    accuracy = 100 * (logits.argmax(dim=1) == labels).float().mean().item()
    assert accuracy == pytest.approx(result["accuracy.last"], abs=0.5)


def test_the_file_holds_the_student_and_nothing_that_only_training_needs(taught, tmp_path):
    folder = folder_of(taught, ["methods=byot"])
    student_file.write(student_file.of_run(folder), tmp_path / "s.safetensors")
    names = set(safetensors.load_file(tmp_path / "s.safetensors"))
    assert names == set(registry.build("resnet8", 10, 1).state_dict())


def test_a_network_that_its_method_puts_together_is_refused(taught, tmp_path):
    folder = folder_of(taught, ["methods=reuse"])
    with pytest.raises(UserError, match=r"deploys a network of its own, .* --to student.pt2 or --to student.onnx"):
        student_file.write(student_file.of_run(folder), tmp_path / "s.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_run_without_weights_is_refused_in_a_sentence(store, result, tmp_path):
    runs = store(result("ce", 0), result("kd", 0, status="failed", error="the loss is nan"))
    (runs / "corsd0").mkdir()
    for run, sentence in {
        "ce0": "the run 'ce0' has no checkpoint.pt, so its weights are gone",
        "kd0": r"the run 'kd0' has failed \(the loss is nan\); it has no weights",
        "corsd0": "the run 'corsd0' has not finished, so it has no weights yet",
    }.items():
        with pytest.raises(UserError, match=f"^{sentence}$"):
            student_file.of_run(RunFolder(runs, run))
    (runs / "ce0" / RESULT).write_text(json.dumps(result("ce", 0, protocol=3)))
    with pytest.raises(UserError, match="its 'protocol' is 3, but it is declared as text"):
        student_file.of_run(RunFolder(runs, "ce0"))


def test_weights_that_are_not_the_results_are_refused(trained, tmp_path):
    result = trained.result()
    (tmp_path / trained.path.name).mkdir()
    for name in ("config.gin", "checkpoint.pt"):
        (tmp_path / trained.path.name / name).write_bytes((trained / name).read_bytes())
    copied = RunFolder(tmp_path, trained.path.name)
    (copied / RESULT).write_text(json.dumps({**result, "weights.sha256": "0" * 64}))
    with pytest.raises(RunError, match="do not match the recorded checksum"):
        student_file.of_run(copied)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/mobilenet_v3_small"])
def test_weights_of_torchvisions_networks_have_its_names(tmp_path, name):
    ours = student(name)
    student_file.write(ours, tmp_path / "s.safetensors")
    theirs = models.get_model(name.removeprefix("torchvision/"), num_classes=5).eval()
    theirs.load_state_dict(safetensors.load_file(tmp_path / "s.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs(images), ours.network(images))


def test_weights_of_timms_networks_have_its_names(tmp_path):
    timm = pytest.importorskip("timm")
    ours = student("timm/test_vit", side=160)
    student_file.write(ours, tmp_path / "s.safetensors")
    theirs = timm.create_model("test_vit", num_classes=5, checkpoint_path=str(tmp_path / "s.safetensors")).eval()
    images = torch.randn(2, 3, 160, 160)
    assert torch.equal(theirs(images), ours.network(images))


@pytest.mark.parametrize(
    ("tagged", "name"),
    [
        ("torchvision/mobilenet_v3_small:IMAGENET1K_V1", "torchvision/mobilenet_v3_small"),
        ("timm/resnet18.a1_in1k", "timm/resnet18"),
    ],
)
def test_pretrained_weights_bring_their_normalisation_and_no_names_of_ours(tmp_path, tagged, name):
    pytest.importorskip("timm")
    started = student(tagged)
    started.network.scale.copy_(torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1))
    started.network.shift.copy_(torch.tensor([0.1, -0.2, 0.3]).reshape(3, 1, 1))
    ours = student_file.with_own_normalisation(started)
    assert ours.facts.student == name
    student_file.write(ours, tmp_path / "s.safetensors")
    assert not {"scale", "shift"} & set(safetensors.load_file(tmp_path / "s.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = started.on_pixels()(images)
        torch.testing.assert_close(student_file.read(tmp_path / "s.safetensors").on_pixels()(images), logits)


def test_a_students_file_teaches_with_its_own_network_and_normalisation(tmp_path):
    student_file.write(ours := student("torchvision/mobilenet_v3_small"), tmp_path / "s.safetensors")
    students = (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)
    built = teacher.of_file(WeightFile(tmp_path / "s.safetensors"), 5, 3, students)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in students)
    built.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(built.logits((pixels - mean) / std), ours.on_pixels()(pixels))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"classes": 7}, "it has 7 classes and 5 names of classes"),
        ({"classes": 5.0}, "the 'classes' of its metadata is not what kdbench writes"),
        ({"mean": [0.1, 0.2]}, "its mean and std do not fit images of 3 channels"),
        ({"std": [0.1, 0.2, 0]}, "its mean and std do not fit"),
        ({"std": [0.1, 0.2, float("nan")]}, "the 'std' of its metadata is not what"),
        ({"image_shape": [3, 0, 32]}, "is not (channels, height, width)"),
        ({"class_names": [1, 2, 3, 4, 5]}, "the 'class_names' of its metadata is not what"),
        ({"student": "resnet9"}, "unknown student 'resnet9'"),
        ({"student": "resnet14"}, "do not fit resnet14"),
        ({"classes": 9000000, "class_names": []}, "are not of 9000000 classes"),
        ({"protocol": None}, "the 'protocol' of its metadata is not what"),
    ],
)
def test_a_strangers_metadata_are_checked(tmp_path, changed, sentence):
    text = json.dumps({**json.loads(FACTS.text()), **changed})
    safetensors.save_file(student().network.state_dict(), tmp_path / "s.safetensors", {METADATA: text})
    with pytest.raises((RunError, UserError)) as refused:
        student_file.read(tmp_path / "s.safetensors")
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_of_another_program_does_not_describe_its_network(tmp_path):
    safetensors.save_file(student().network.state_dict(), tmp_path / "s.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="does not describe its network"):
        student_file.read(tmp_path / "s.safetensors")
    assert student_file.facts_of(tmp_path / "s.safetensors") is None
