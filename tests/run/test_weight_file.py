"""Files of weights in the forms in which people keep them: each teaches, or is refused by one sentence before anything starts."""

import argparse
import os
import re
import sys

import pytest
import torch
from torchvision import models

from kdbench.backbones import registry
from kdbench.cli.main import main
from kdbench.config import places
from kdbench.errors import RunError
from kdbench.run import weight_file

WEIGHTS = registry.build("resnet14", 10, 1).state_dict()


def prefixed(prefix):
    return {prefix + name: value for name, value in WEIGHTS.items()}


def refusal(capsys, path):
    """The sentence that the plan refuses a file with."""
    assert main(["run", "methods=ce,kd", "dataset=digits", f"teacher={path}", "--dry-run", "--runs", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert path.name in line
    assert "weights_only" not in line
    return line


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"model": WEIGHTS, "epoch": 240, "best_acc": torch.tensor(74.0)},
        {"state_dict": prefixed("module.")},
        {"net": prefixed("_orig_mod."), "optimizer": {"state": {}, "param_groups": []}},
        {"weights": prefixed("module._orig_mod.")},
        prefixed("_orig_mod.module."),
    ],
)
def test_a_state_dict_is_found_and_its_names_freed_of_prefixes(tmp_path, content):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    state = weight_file.read(path)
    assert state.keys() == WEIGHTS.keys()
    assert weight_file.fitting_backbone(state, path, classes=10, channels=1) == "resnet14"


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_safetensors_are_known_by_name_or_form(tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(prefixed("module."), tmp_path / name)
    assert weight_file.read(tmp_path / name).keys() == WEIGHTS.keys()


def test_a_missing_safetensors_names_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "w.safetensors").write_bytes(b"x")
    assert refusal(capsys, tmp_path / "w.safetensors").endswith("install it with: pip install 'kdbench[safetensors]'")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"opt": argparse.Namespace(lr=0.1), "model": WEIGHTS}, "(argparse.Namespace), and loading that could run code; save"),
        (registry.build("resnet8", 10, 1), "it holds a whole network (kdbench.backbones.cifar_resnet"),
        (models.resnet18(num_classes=10).state_dict(), "nearest is resnet18: of another shape conv1.weight (its first "
         "convolution is 7×7, here 3×3)"),
        (registry.build("resnet14", 100, 1).state_dict(), "nearest is resnet14: of another shape fc.weight (it has 100 classes,"
         " here 10)"),
        (registry.build("resnet14", 10, 3).state_dict(), "conv1.weight (its images have 3 channels, here 1)"),
        (models.mobilenet_v2(num_classes=10).state_dict(), "do not fit any backbone with 10 classes; nearest is "),
        ({"a": WEIGHTS, "b": WEIGHTS}, "there are several state dicts in 'w.pth' ('a', 'b')"),
        ({"epoch": 3}, "there are no tensors in 'w.pth'"),
        ([1, 2], "'w.pth' holds a list, not a state dict"),
    ],
)  # fmt: skip
def test_other_content_is_refused_before_anything_starts(tmp_path, capsys, content, sentence):
    torch.save(content, tmp_path / "w.pth")
    assert sentence in refusal(capsys, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html>\n<html>", "it is a web page (it begins with '<!DOCTYPE html>')"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "it is a Git LFS pointer; get the file itself with: git lfs pull",
        ),
        (b"junk", "it is not a file of torch.save or safetensors, or damaged (4 bytes, it begins with 'junk')"),
        (b"PK\x03\x04 torn", "it is truncated or damaged (9 bytes)"),
        (b"\x08\0\0\0\0\0\0\0{ torn", "it is truncated or damaged (14 bytes)"),
    ],
)
def test_a_file_that_is_none_of_weights_is_described(tmp_path, capsys, content, reason):
    (tmp_path / "w.pt").write_bytes(content)
    assert f"the weights in 'w.pt' cannot be read: {reason}" in refusal(capsys, tmp_path / "w.pt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path, capsys):
    (tmp_path / "w.pt").touch(mode=0)
    assert "permission denied" in refusal(capsys, tmp_path / "w.pt")


def test_a_backbone_that_cannot_be_built_does_not_matter(tmp_path, own_plugins):
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "odd.py").write_text(
        "import not_installed\nBACKBONES = {'odd': 'Odd'}\nclass Odd: pass\n"
    )
    places.add_plugins([str(tmp_path)])
    assert weight_file.fitting_backbone(WEIGHTS, tmp_path, 10, 1) == "resnet14"
    with pytest.raises(RunError, match=re.escape("nearest is resnet14")):
        weight_file.fitting_backbone(WEIGHTS, tmp_path, 20, 1)
