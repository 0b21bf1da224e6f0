"""Datasets of image files, each in its official layout in small, with real image files."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.cli.main import main
from kdbench.config.reading import Reading
from kdbench.data.readers import photographs, registry
from kdbench.errors import RunError
from kdbench.plan import expand, request
from kdbench.run.execute import run

WNIDS = ["n01443537", "n01629819", "n02099601"]


def photograph(path, number=0, **options):
    """An image of a size of its own whose colour is its number's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((20 + number % 7, 26 - number % 5, 3), (9 * number) % 256, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def imagefolder(root):
    for part, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("cat", "dog", "eel")):
            for number in range(count):
                photograph(root / part / name / f"{number}.{'JPG' if number % 2 else 'png'}", 10 * label + number)


def tiny_imagenet(root):
    root.mkdir()
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in reversed(WNIDS)))
    (root / "words.txt").write_text("n01443537\tgoldfish\nn01629819\tsalamander\nn09999999\tunused\n")
    lines = []
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            photograph(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 10 * label + number)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x 0 0 1 1\n")
        for number in range(2):
            photograph(root / "val" / "images" / f"val_{2 * number + label}_{label}.JPEG", 10 * label + number)
            lines.append(f"val_{2 * number + label}_{label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def cub200(root):
    root.mkdir()
    lines = {name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")}
    for number in range(1, 13):
        species = 1 + number % 3
        name = f"00{species}.Bird/{number}.jpg"
        photograph(root / "images" / name, number)
        lines["images"].append(f"{number} {name}\n")
        lines["image_class_labels"].append(f"{number} {species}\n")
        lines["train_test_split"].append(f"{number} {int(number <= 6)}\n")
        lines["bounding_boxes"].append(f"{number} 2.0 3.0 10.0 8.0\n")
    for name, content in lines.items():
        (root / f"{name}.txt").write_text("".join(content))
    (root / "classes.txt").write_text("1 001.Albatross\n2 002.Auklet\n3 003.Bunting\n")


def imagenet(root):
    for label, wnid in enumerate(WNIDS):
        for number in range(4):
            photograph(root / "train" / wnid / f"{wnid}_{number}.JPEG", 10 * label + number)
        for number in range(2):
            photograph(root / "val" / wnid / f"ILSVRC2012_val_{2 * label + number:08}.JPEG", 10 * label + number)


LAYOUTS = {function.__name__: function for function in (imagefolder, tiny_imagenet, cub200, imagenet)}
CLASSES = {
    "imagefolder": ("cat", "dog", "eel"),
    "tiny_imagenet": ("goldfish", "salamander", "n02099601"),
    "cub200": ("001.Albatross", "002.Auklet", "003.Bunting"),
    "imagenet": tuple(WNIDS),
}


def laid(name, tmp_path):
    LAYOUTS[name](tmp_path / "data")
    return tmp_path / "data"


def read(name, root, **reading):
    return registry.read(name, root, Reading(**{"size": 16, **reading}))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_on_each_layout_finishes(name, tmp_path):
    root = laid(name, tmp_path)
    words = [
        "methods=ce", f"dataset={name}", "student=resnet8", "recipe=quick", "Train.epochs=1", "Train.batch_size=4",
        "Train.warmup=0", "Measures.corruptions=False", "Measures.images=5", "Dataset.size=16", "Split.validation=0",
    ]  # fmt: skip
    (spec,) = expand.plan(request.parse(words))
    result = run(spec, tmp_path / "runs", root)
    assert result["status"] == "finished", result["error"]
    assert result["data.sha256"] == read(name, root).digest()
    assert main(["leaderboard", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "board")]) == 0
    assert f"{name} · resnet8" in (tmp_path / "board" / "README.md").read_text()


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_and_classes(name, tmp_path):
    listing = read(name, laid(name, tmp_path))
    assert listing.classes == CLASSES[name]
    for part in (listing.train, listing.test):
        assert len(set(part.paths)) == len(part.paths)
        for path, label in zip(part.paths, part.labels.tolist(), strict=True):
            if name == "cub200":
                assert f"00{label + 1}.Bird" in path
            elif name == "tiny_imagenet" and "val" in path:
                assert path.endswith(f"_{label}.JPEG")
            else:
                assert (WNIDS if "net" in name else CLASSES[name])[label] in path
    assert set(listing.train.labels.tolist()) == {0, 1, 2}
    assert set(listing.test.labels.tolist()) == {0, 1, 2}
    assert not {path for path in listing.train.paths} & {path for path in listing.test.paths}


@pytest.mark.parametrize(("name", "inside"), [("tiny_imagenet", "tiny-imagenet-200"), ("cub200", "CUB_200_2011")])
def test_the_folder_above_may_be_named(name, inside, tmp_path):
    LAYOUTS[name](tmp_path / inside)
    assert read(name, tmp_path).digest() == read(name, tmp_path / inside).digest()


def test_files_that_are_not_images_are_passed_by(tmp_path):
    root = laid("imagefolder", tmp_path)
    before = read("imagefolder", root)
    for name in ("Thumbs.db", ".DS_Store", "README.txt"):
        (root / "train" / "cat" / name).write_text("x")
    after = read("imagefolder", root)
    assert after.digest() == before.digest()
    assert before.notes == ()
    assert after.notes == (f"2 files in {root} passed by, not being images: README.txt, Thumbs.db",)


def test_val_is_the_test_set_where_there_is_no_other(tmp_path):
    root = laid("imagefolder", tmp_path)
    (root / "test").rename(root / "val")
    assert len(read("imagefolder", root).test.paths) == 9


def test_one_folder_is_split_by_the_names_of_its_files(tmp_path):
    root = tmp_path / "data"
    for name in ("cat", "dog"):
        for number in range(10):
            photograph(root / name / f"{number}.png", number)
    listing = read("imagefolder", root)
    assert len(listing.train.paths) == 16
    assert listing.test.labels.tolist() == [0, 0, 1, 1]
    assert "a fifth of each class" in listing.notes[0]
    photograph(root / "cat" / "10.png")
    again = read("imagefolder", root)
    assert len({*again.test.paths} ^ {*listing.test.paths}) <= 2
    assert read("imagefolder", root).test.paths == again.test.paths


def test_a_bounding_box_is_cut_out(tmp_path):
    root = laid("cub200", tmp_path)
    whole, cut = read("cub200", root), read("cub200", root, boxes=True)
    assert whole.digest() != cut.digest()
    assert cut.train.boxes[0].tolist() == [2, 3, 12, 11]
    assert cut.pixels(cut.train, [0, 1]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("labels", ["devkit", "solution"])
def test_the_validation_images_of_the_official_archive(labels, tmp_path):
    from scipy.io import savemat

    root = laid("imagenet", tmp_path)
    folders = read("imagenet", root)
    for path in sorted((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()
    if labels == "devkit":
        devkit = root / "ILSVRC2012_devkit_t12" / "data"
        devkit.mkdir(parents=True)
        # The devkit numbers the classes in an order of its own.
        synsets = np.array(
            [(3, WNIDS[0]), (1, WNIDS[1]), (2, WNIDS[2])], dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")]
        )
        savemat(devkit / "meta.mat", {"synsets": synsets})
        (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n3\n1\n1\n2\n2\n")
    else:
        lines = [f"ILSVRC2012_val_{n:08},{WNIDS[n // 2]} 1 2 3 4 \n" for n in range(6)]
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))
    flat = read("imagenet", root)
    assert [Path(path).name for path in flat.test.paths] == [Path(path).name for path in folders.test.paths]
    assert flat.test.labels.tolist() == folders.test.labels.tolist()


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
def test_what_is_wrong_is_named(name, damage, sentence, tmp_path):
    root = laid(name, tmp_path)
    damage(root)
    with pytest.raises(RunError, match=sentence):
        read(name, root)


def test_a_folder_one_level_too_deep_or_too_high_is_recognised(tmp_path):
    imagefolder(tmp_path / "mine")
    with pytest.raises(RunError, match=f"is {tmp_path / 'mine'} the folder of the dataset"):
        read("imagefolder", tmp_path / "mine" / "train" / "cat")
    with pytest.raises(RunError, match=f"train has no train/ and test/; is {tmp_path / 'mine'} the folder"):
        read("imagefolder", tmp_path / "mine" / "train")
    with pytest.raises(RunError, match=f"did you mean --data {tmp_path / 'mine'}"):
        read("imagefolder", tmp_path)
    tiny_imagenet(tmp_path / "tiny")
    with pytest.raises(RunError, match=f"is {tmp_path / 'tiny'} the folder of the dataset"):
        read("tiny_imagenet", tmp_path / "tiny" / "train")
    imagenet(tmp_path / "above" / "net")
    with pytest.raises(RunError, match=f"did you mean --data {tmp_path / 'above' / 'net'}"):
        read("imagenet", tmp_path / "above")


def test_a_folder_that_holds_two_datasets_is_ambiguous(tmp_path):
    for name in ("one", "two"):
        cub200(tmp_path / name)
    with pytest.raises(
        RunError, match=f"several folders of CUB-200-2011; pass one of them, such as --data {tmp_path}/one"
    ):
        read("cub200", tmp_path)


@pytest.mark.parametrize("box", ["1 2 3 4 x", "1 nan 3 4 5"])
def test_boxes_that_are_not_numbers(box, tmp_path):
    root = laid("cub200", tmp_path)
    (root / "bounding_boxes.txt").write_text(f"{box}\n")
    with pytest.raises(RunError, match=f"bounding_boxes.txt, line 1: 5 numbers are expected, not '{box}'"):
        read("cub200", root, boxes=True)


def test_lines_may_end_as_on_windows(tmp_path):
    root = laid("cub200", tmp_path)
    before = read("cub200", root).digest()
    for path in root.glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read("cub200", root).digest() == before


def test_names_of_files_that_are_not_utf8(tmp_path):
    root = laid("imagefolder", tmp_path)
    photograph(root / "train" / "cat" / os.fsdecode(b"\xff.png"))
    listing = read("imagefolder", root, skip_broken=True)
    assert len(listing.train.paths) == 19
    assert len(listing.digest()) == 64


def test_photographs_in_forms_of_their_own(tmp_path):
    root = laid("imagefolder", tmp_path)
    forms = {
        "one.png": ("RGB", (1, 1)),
        "cmyk.jpg": ("CMYK", (9, 7)),
        "la.png": ("LA", (8, 4)),
        "tall.bmp": ("1", (2, 90)),
    }
    for name, (mode, size) in forms.items():
        Image.new(mode, size).save(root / "train" / "cat" / name)
    listing = read("imagefolder", root)
    for name, (mode, _) in forms.items():
        place = listing.train.paths.index(f"train/cat/{name}")
        expected = np.asarray(Image.open(root / "train" / "cat" / name).convert("RGB"))[0, 0]
        assert (listing.pixels(listing.train, [place]) == expected).all(), mode
    for name, mode in (("lab.tif", "LAB"), ("float.tif", "F")):
        Image.new(mode, (8, 8)).save(root / "train" / "dog" / name)
        with pytest.raises(RunError, match=f"{name} is {mode}, which becomes RGB in several ways"):
            photographs.square(root / "train" / "dog" / name, 8)


@pytest.mark.skipif("KDBENCH_DATA" not in os.environ, reason="KDBENCH_DATA is not set")
def test_the_real_tiny_imagenet():
    root = Path(os.environ["KDBENCH_DATA"]) / "tiny-imagenet-200"
    if not root.is_dir():
        pytest.skip(f"{root} is missing")
    listing = read("tiny_imagenet", root, size=64)
    assert set(np.bincount(listing.train.labels)) == {500}
    assert set(np.bincount(listing.test.labels)) == {50}
    assert not {name for name in listing.classes if name in listing.train.paths[0]}  # words, not WordNet ids
    assert listing.pixels(listing.test, range(8)).shape == (8, 64, 64, 3)
