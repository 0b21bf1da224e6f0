"""Faults in datasets of image files: each is one sentence that names it."""

import shutil

import pytest

from kdbench.config.reading import Reading
from kdbench.data.readers import registry
from kdbench.errors import RunError

WNIDS = ["n01443537", "n01629819", "n02099601"]


def read(name, root, **reading):
    return registry.read(name, root, Reading(**{"size": 16, **reading}))


def _remove(*parts):
    def damage(root):
        path = root.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def _write(text, *parts):
    def damage(root):
        root.joinpath(*parts).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(*parts).write_text(text)

    return damage


def _replace(old, new, *parts):
    def damage(root):
        content = root.joinpath(*parts).read_text()
        assert old in content
        root.joinpath(*parts).write_text(content.replace(old, new))

    return damage


def _repeat(line, *parts):
    def damage(root):
        lines = root.joinpath(*parts).read_text().splitlines()
        root.joinpath(*parts).write_text("\n".join([*lines, lines[line]]))

    return damage


def _drop(line, *parts):
    def damage(root):
        lines = root.joinpath(*parts).read_text().splitlines()
        root.joinpath(*parts).write_text("\n".join(lines[:line] + lines[line + 1 :]))

    return damage


def _empty(*parts):
    return lambda root: [path.unlink() for path in root.joinpath(*parts).iterdir()]


DAMAGE = [
    ("imagefolder", _remove("test"), "has train/ and no folder with test images"),
    ("imagefolder", _remove("test", "eel"), "train/eel is a class folder that .*test does not have"),
    ("imagefolder", _remove("train", "eel"), "test/eel is a class folder that .*train does not have"),
    ("imagefolder", _empty("train", "cat"), "class folder .*train/cat is empty"),
    ("imagefolder", _write("", "train", "cat", "more", "x.png"), "train/cat/more is not a file"),
    ("imagefolder", _remove("train"), "test/cat is not a file; a class folder holds nothing but image files"),
    ("tiny_imagenet", _remove("wnids.txt"), "is not the folder of Tiny-ImageNet: it has no wnids.txt"),
    ("tiny_imagenet", _remove("val", "val_annotations.txt"), "val_annotations.txt is missing"),
    ("tiny_imagenet", _write("a b", "val", "val_annotations.txt"), "line 1: 6 columns are expected, not 'a b'"),
    ("tiny_imagenet", _write("x\tn0\t0\t0\t1\t1", "val", "val_annotations.txt"), "line 1: the class n0 is not in"),
    ("tiny_imagenet", _remove("train", WNIDS[0], "images"), f"train/{WNIDS[0]}/images is missing"),
    ("cub200", _remove("train_test_split.txt"), "train_test_split.txt is missing"),
    ("cub200", _write("1 1\n", "train_test_split.txt"), "do not name the same images: 10 is in one only"),
    ("cub200", _write("x 1\n", "images.txt"), "images.txt, line 1: a number and a value are expected, not 'x'"),
    ("tiny_imagenet", _repeat(0, "val", "val_annotations.txt"), "named twice, again in line 7 of"),
    ("tiny_imagenet", _drop(0, "val", "val_annotations.txt"), "val/images/val_0_0.JPEG has no line in"),
    ("tiny_imagenet", _repeat(0, "wnids.txt"), "wnids.txt names a class twice"),
    ("cub200", _replace("2 1", "2 7", "train_test_split.txt"), "the image 2 has '7', neither 1 nor 0"),
    ("cub200", _replace(" 0\n", " 1\n", "train_test_split.txt"), "has no test images of the class 001.Albatross"),
    ("cub200", _replace("2 002.Auklet", "2 001.Albatross", "classes.txt"), "two classes of the name 001.Albatross"),
    ("cub200", _remove("images", "001.Bird"), "001.Bird/3.jpg is missing, which .*images.txt names"),
    ("imagenet", _remove("val"), "val is missing"),
    ("imagenet", _remove("val", WNIDS[0]), f"train/{WNIDS[0]} is a class folder that .*val does not have"),
]


@pytest.mark.parametrize(("name", "damage", "sentence"), DAMAGE)
def test_what_is_wrong_is_named(name, damage, sentence, laid):
    root = laid(name)
    damage(root)
    with pytest.raises(RunError, match=sentence):
        read(name, root)


def test_a_folder_one_level_too_deep_or_too_high_is_recognised(tmp_path, laid):
    laid("imagefolder", tmp_path / "mine")
    with pytest.raises(RunError, match=f"is {tmp_path / 'mine'} the folder of the dataset"):
        read("imagefolder", tmp_path / "mine" / "train" / "cat")
    with pytest.raises(RunError, match=f"train has no train/ and test/; is {tmp_path / 'mine'} the folder"):
        read("imagefolder", tmp_path / "mine" / "train")
    with pytest.raises(RunError, match=f"did you mean --data {tmp_path / 'mine'}"):
        read("imagefolder", tmp_path)
    laid("tiny_imagenet", tmp_path / "tiny")
    with pytest.raises(RunError, match=f"is {tmp_path / 'tiny'} the folder of the dataset"):
        read("tiny_imagenet", tmp_path / "tiny" / "train")
    laid("imagenet", tmp_path / "above" / "net")
    with pytest.raises(RunError, match=f"did you mean --data {tmp_path / 'above' / 'net'}"):
        read("imagenet", tmp_path / "above")


def test_a_folder_that_holds_two_datasets_is_ambiguous(tmp_path, laid):
    for name in ("one", "two"):
        laid("cub200", tmp_path / name)
    with pytest.raises(
        RunError, match=f"several folders of CUB-200-2011; pass one of them, such as --data {tmp_path}/one"
    ):
        read("cub200", tmp_path)


@pytest.mark.parametrize("box", ["1 2 3 4 x", "1 nan 3 4 5"])
def test_boxes_that_are_not_numbers(box, laid):
    root = laid("cub200")
    (root / "bounding_boxes.txt").write_text(f"{box}\n")
    with pytest.raises(RunError, match=f"bounding_boxes.txt, line 1: 5 numbers are expected, not '{box}'"):
        read("cub200", root, boxes=True)
