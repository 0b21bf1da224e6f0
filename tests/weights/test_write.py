"""Students as files: read back, each file gives what torch gives. KDBENCH_EVERY=1 tries every backbone in every format."""

import os

import pytest
import torch
from torch import nn

from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.config import extensions
from kdbench.errors import RunError, UserError
from kdbench.run.student_facts import Facts
from kdbench.run.student_file import Student
from kdbench.weights import write

pytest.importorskip("safetensors")

EVERY = [*extensions.members("backbone"), "torchvision/mobilenet_v3_small", "timm/test_vit"]
ONE_PER_FAMILY = [
    *(
        "resnet8",
        "densenet_40_12",
        "efficientnet_b0",
        "mobilenetv2",
        "wrn_16_1",
        "shufflenetv2_x0_5",
        "resnet18",
        "vgg8",
    ),
    "vit_tiny",  # those of libraries: tests/run/test_student_file.py
]
ALL = os.environ.get("KDBENCH_EVERY") == "1"
CASES = [
    *((name, ".safetensors") for name in (EVERY if ALL else ONE_PER_FAMILY)),
    *((name, ".pt2") for name in (EVERY if ALL else ("resnet8",))),
    *((name, ".onnx") for name in (EVERY if ALL else ("resnet8",))),
]


def student(name="resnet8", network=None):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    side = 160 if name == "timm/test_vit" else 32
    facts = Facts(
        run="ce-made-up", method="ce", dataset="made_up", student=name, seed=0, classes=5, class_names=tuple("abcde"),
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), image_shape=(3, side, side), accuracy=91.25, protocol="1f9c20",
        kdbench="0.1.0",
    )  # fmt: skip
    return Student((network or registry.build(name, 5, 3)).eval(), facts, network is None)


def facts_in(path):
    """What the metadata of a program are read as."""
    if path.suffix == ".onnx":
        import onnx

        return Facts.of({each.key: each.value for each in onnx.load(path).metadata_props}["kdbench"])
    extra = {"kdbench": ""}
    torch.export.load(path, extra_files=extra)
    return Facts.of(extra["kdbench"])


@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_what_was_written_gives_what_torch_gives(tmp_path, name, suffix):
    if suffix == ".onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    made = student(name)
    agreement = write.write(made, tmp_path / f"student{suffix}")
    assert agreement.relative < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == [f"student{suffix}"], "nothing else is left"
    images = torch.rand(3, *made.facts.image_shape)
    outputs = write.FORMATS[suffix].run(tmp_path / f"student{suffix}")
    with torch.no_grad():
        torch.testing.assert_close(outputs(images), made.on_pixels()(images), rtol=1e-3, atol=1e-5)
    if suffix != ".safetensors":
        assert facts_in(tmp_path / f"student{suffix}") == made.facts


def test_pixels_are_normalised_inside():
    made = student()
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (made.facts.mean, made.facts.std))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(made.on_pixels()(images), made.network((images - mean) / std))


class Own(nn.Module):
    """A deployed network that is not a backbone, around one."""

    def __init__(self):
        super().__init__()
        self.body = registry.build("resnet8", 5, 3).body()
        self.fc = nn.Linear(64, 5)

    def forward(self, images):
        return self.fc(self.body(images).mean(dim=(2, 3)))


def test_a_network_that_a_method_puts_together_becomes_a_program(tmp_path):
    assert write.write(student(network=Own()), tmp_path / "s.pt2").relative < 1e-4


def test_exporting_leaves_the_network_as_it_was(tmp_path):
    made = student()
    write.write(made, tmp_path / "s.pt2")
    assert isinstance(made.network, Backbone)
    before = made.network.images_passed
    assert type(before) is int
    made.network(torch.rand(2, 3, 32, 32))
    assert made.network.images_passed == before + 2


class Drawing(Own):
    """A network with random outputs, which no file can repeat."""

    def forward(self, images):
        return super().forward(images) + torch.rand(5)


class Branching(Own):
    """A network that looks at values, which no program of tensors does."""

    def forward(self, images):
        return super().forward(images) * (2 if float(images.sum()) > 1 else 1)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [(Drawing, "the outputs of s.pt2 differ from torch's by"), (Branching, "cannot be written as")],
)
def test_a_file_that_differs_is_not_left(tmp_path, network, sentence):
    (tmp_path / "s.pt2").write_text("the file before")
    with pytest.raises(RunError, match=sentence) as refused:
        write.write(student(network=network()), tmp_path / "s.pt2")
    assert "\n" not in str(refused.value)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the file before"]


def test_outputs_that_are_not_numbers_or_of_another_shape_differ():
    made = student()
    assert not write.compare(made, lambda images: torch.full((len(images), 5), torch.nan)).relative <= write.TOLERANCE
    assert not write.compare(made, lambda images: torch.zeros(len(images), 6)).relative <= write.TOLERANCE


def test_nothing_is_overwritten_unless_asked(tmp_path):
    (tmp_path / "s.onnx").write_text("mine")
    with pytest.raises(UserError, match=r"s.onnx exists; pass --force to overwrite it$"):
        write.check_target(tmp_path / "s.onnx", force=False)
    assert write.check_target(tmp_path / "s.onnx", force=True) == tmp_path / "s.onnx"
    with pytest.raises(UserError, match=r"unknown format '.onx'; did you mean '.onnx'"):
        write.check_target(tmp_path / "s.onx", force=False)
    (tmp_path / "s.pt2").mkdir()
    with pytest.raises(UserError, match="is a folder; name a file in it"):
        write.check_target(tmp_path / "s.pt2", force=True)


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    find = write.programs.find_spec
    monkeypatch.setattr(write.programs, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(
        UserError, match=r"needs the package onnxscript; install it with: pip install 'kdbench\[onnx\]'"
    ):
        write.write(student(), tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())
