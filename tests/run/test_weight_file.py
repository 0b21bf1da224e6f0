"""Files of weights in the forms in which people keep them: each teaches, or is refused by one sentence before anything starts."""

import argparse
import importlib
import io
import os
import pickle
import re
import sys
import warnings
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
        {"state_dict": prefixed("model.net.backbone.module._orig_mod.student.")},
        {"checkpoint": {"x": 1}, "model": {"state_dict": prefixed("encoder.")}},
    ],
)
def test_a_state_dict_is_found_and_its_names_freed_of_prefixes(tmp_path, content):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    state = weight_file.read(path)
    assert state.keys() == WEIGHTS.keys()
    backbone, weights = weight_file.fitting(state, path, classes=10, channels=1)
    assert backbone == "resnet14"
    assert all(torch.equal(weights[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_safetensors_are_known_by_name_or_form(tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(prefixed("module."), tmp_path / name)
    assert weight_file.read(tmp_path / name).keys() == WEIGHTS.keys()


def test_a_missing_safetensors_names_the_command(tmp_path, monkeypatch, capsys):
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "w.safetensors").write_bytes(b"x")
    assert refusal(capsys, tmp_path / "w.safetensors").endswith("install it with: pip install 'kdbench[safetensors]'")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"opt": argparse.Namespace(lr=0.1), "model": WEIGHTS}, "(argparse.Namespace), and loading that could run code; save"),
        (lambda: registry.build("resnet8", 10, 1), "it holds a whole network (kdbench.backbones.cifar_resnet"),
        (lambda: _of_torchvision("resnet18"), "nearest is resnet18: of another shape conv1.weight (its first "
         "convolution is 7×7, here 3×3)"),
        (lambda: registry.build("resnet14", 100, 1).state_dict(), "nearest is resnet14: of another shape fc.weight (it has "
         "100 classes, here 10)"),
        (lambda: registry.build("resnet14", 10, 3).state_dict(), "conv1.weight (its images have 3 channels, here 1)"),
        (lambda: _of_torchvision("mobilenet_v2"), "do not fit any backbone with 10 classes; nearest is "),
        ({"a": WEIGHTS, "b": WEIGHTS}, "there are several state dicts in 'w.pth' ('a', 'b')"),
        ({"epoch": 3}, "there are no tensors in 'w.pth'"),
        ([1, 2], "'w.pth' holds a list, not a state dict"),
    ],
)  # fmt: skip
def test_other_content_is_refused_before_anything_starts(tmp_path, capsys, content, sentence):
    torch.save(content() if callable(content) else content, tmp_path / "w.pth")
    assert sentence in refusal(capsys, tmp_path / "w.pth")


def _of_torchvision(name):
    """State dict of a network with 10 classes."""
    from torchvision import models  # takes seconds, which a process that only collects this file's tests can do without

    return models.get_model(name, num_classes=10).state_dict()


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
    assert weight_file.fitting(WEIGHTS, tmp_path, 10, 1)[0] == "resnet14"
    with pytest.raises(RunError, match=re.escape("nearest is resnet14")):
        weight_file.fitting(WEIGHTS, tmp_path, 20, 1)


def test_a_backbone_whose_names_all_begin_alike_fits_with_and_without_it(tmp_path, own_plugins):
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "held.py").write_text(HELD)
    places.add_plugins([str(tmp_path)])
    own = registry.build("held", 10, 1).state_dict()
    for content in (own, {name.removeprefix("body."): value for name, value in own.items()}):
        torch.save(content, tmp_path / "w.pt")
        backbone, weights = weight_file.fitting(weight_file.read(tmp_path / "w.pt"), tmp_path, 10, 1)
        assert backbone == "held"
        assert list(weights) == list(own)


HELD = """
from torch import nn
from kdbench.method import Backbone

BACKBONES = {"held": "Held"}


class Held(Backbone):
    def __init__(self, classes, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Linear(4, classes))
"""


def test_a_prefix_of_some_names_only_is_not_removed_and_the_nearest_is_named_by_what_is_left(tmp_path, capsys):
    content = prefixed("module.model.") | {"module.epoch": torch.tensor(3)}
    torch.save(content, tmp_path / "w.pth")
    assert "nearest is " in refusal(capsys, tmp_path / "w.pth")
    content = prefixed("module.model.")
    content["module.model.fc.bias"] = torch.zeros(9)
    torch.save(content, tmp_path / "w.pth")
    assert "nearest is resnet14: of another shape fc.bias" in refusal(capsys, tmp_path / "w.pth")


def changed(**values):
    return {**WEIGHTS, **{name.replace("__", "."): value for name, value in values.items()}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (changed(fc__bias=torch.full((10,), float("nan"))), "are not all finite (fc.bias)"),
        (changed(fc__weight=torch.full((10, 64), float("inf"))), "are not all finite (fc.weight)"),
        (changed(fc__bias=torch.zeros(10, dtype=torch.int64)), "not floating-point numbers (fc.bias is int64)"),
        (changed(fc__bias=torch.zeros(10).to_sparse()), "are not plain tensors (fc.bias)"),
        (changed(fc__bias=torch.zeros(10, device="meta")), "are not plain tensors (fc.bias)"),
        (changed(fc__weight=torch.zeros(1, 1).expand(10**12, 64)), "of another shape fc.weight"),
        ({"\x1b]0;title\x07\n" * 100: torch.zeros(3)}, "unexpected \\x1b]0;title\\x07 \\x1b"),
    ],
)
def test_values_that_no_network_can_have_are_refused(tmp_path, capsys, content, sentence):
    torch.save(content, tmp_path / "w.pth")
    assert sentence in refusal(capsys, tmp_path / "w.pth")


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path, capsys):
    torch.save({"fc.weight": torch.zeros(1000, 1000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for member in plain.namelist():
            out.writestr(member, plain.read(member))
    assert "its parts would unpack to 400" in refusal(capsys, tmp_path / "w.pt")


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder, how):
        self.folder, self.how = folder, how

    def __reduce__(self):
        return self.how, (str(self.folder),)


@pytest.mark.parametrize("how", [os.mkdir, os.system, exec, importlib.import_module, torch.load, open])
@pytest.mark.parametrize("place", [lambda x: x, lambda x: {"model": {**WEIGHTS, "x": x}}, lambda x: [[[x]]]])
def test_no_pickle_runs_anything(tmp_path, capsys, how, place):
    sprung = tmp_path / "sprung"
    for zipped in (True, False):
        torch.save(place(Runs(sprung, how)), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
        assert "cannot be read: it holds other objects" in refusal(capsys, tmp_path / "w.pt")
        assert not sprung.exists()


def contents():
    """Files of weights in several forms, small ones."""
    state = {"conv.weight": torch.zeros(2, 1, 3, 3), "fc.weight": torch.ones(3, 2), "fc.bias": torch.zeros(3)}
    nested = [state]
    for _ in range(50):
        nested = [nested, {"more": nested}]
    for content in (state, {"model": state, "epoch": 3}, {"a": nested}, {"big": torch.zeros(1).expand(1 << 40)}):
        for zipped in (True, False):
            torch.save(content, file := io.BytesIO(), _use_new_zipfile_serialization=zipped)
            yield file.getvalue()
    yield pickle.dumps({"model": Runs("sprung", os.mkdir)})


MEMBERS = st.lists(
    st.tuples(st.integers(0, 20), st.sampled_from(["drop", "flip", "empty", "grow", "rename"]), st.binary(max_size=12)),
    max_size=3,
)
BYTES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8), st.booleans()), max_size=3)


def with_damaged_members(content, damages):
    """A zip file whose members are damaged one by one, with right checksums; other content as it is."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [[name, archive.read(name)] for name in archive.namelist()]
    for number, kind, piece in damages:
        member = members[number % len(members)]
        at = number * 7 % (len(member[1]) + 1)
        match kind:
            case "drop":
                member[0] = ""
            case "empty":
                member[1] = b""
            case "flip":
                member[1] = member[1][:at] + piece + member[1][at + len(piece) :]
            case "grow":
                member[1] += piece * 100
            case "rename":
                member[0] = "../" + member[0]
    with zipfile.ZipFile(out := io.BytesIO(), "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, inside in members:
            if name:
                archive.writestr(name, inside)
    return out.getvalue()


@settings(max_examples=int(os.environ.get("KDBENCH_FUZZ", 50)))
@given(st.sampled_from(list(contents())), MEMBERS, BYTES, st.sampled_from(["w.pt", "w.safetensors", "w"]))
def test_whatever_a_file_holds_it_is_one_sentence_and_nothing_runs(tmp_path_factory, content, members, pieces, name):
    content = with_damaged_members(content, members)
    for share, piece, cut in pieces:
        at = int(share * len(content))
        content = content[:at] if cut and share > 0.5 else content[:at] + piece + content[at + len(piece) :]
    folder = tmp_path_factory.getbasetemp()
    (folder / name).write_bytes(content)
    before = set(sys.modules), sorted(folder.iterdir())
    with pytest.raises(RunError) as error:
        weight_file.fitting(weight_file.read(folder / name), folder / name, 3, 1)
    assert f"'{name}'" in str(error.value)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    imported = {module.partition(".")[0] for module in set(sys.modules) - before[0]}
    assert imported <= {"torch", "kdbench", "safetensors", "encodings"}, "what reading any such file takes"
    assert sorted(folder.iterdir()) == before[1]
    assert not os.path.exists("sprung")
