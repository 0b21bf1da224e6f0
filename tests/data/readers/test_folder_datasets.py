"""Datasets of image files, each in its official layout in small, with real image files."""

import os
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
LAYOUTS = ("imagefolder", "tiny_imagenet", "cub200", "imagenet")


def read(name, root, **reading):
    return registry.read(name, root, Reading(**{"size": 16, **reading}))


CLASSES = {
    "imagefolder": ("cat", "dog", "eel"),
    "tiny_imagenet": ("goldfish", "salamander", "n02099601"),
    "cub200": ("001.Albatross", "002.Auklet", "003.Bunting"),
    "imagenet": tuple(WNIDS),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_on_each_layout_finishes(name, tmp_path, laid):
    root = laid(name)
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
def test_labels_and_classes(name, laid):
    listing = read(name, laid(name))
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
def test_the_folder_above_may_be_named(name, inside, tmp_path, laid):
    laid(name, tmp_path / inside)
    assert read(name, tmp_path).digest() == read(name, tmp_path / inside).digest()


def test_files_that_are_not_images_are_passed_by(laid):
    root = laid("imagefolder")
    before = read("imagefolder", root)
    for name in ("Thumbs.db", ".DS_Store", "README.txt"):
        (root / "train" / "cat" / name).write_text("x")
    after = read("imagefolder", root)
    assert after.digest() == before.digest()
    assert before.notes == ()
    assert after.notes == (f"2 files in {root} passed by, not being images: README.txt, Thumbs.db",)


def test_val_is_the_test_set_where_there_is_no_other(laid):
    root = laid("imagefolder")
    (root / "test").rename(root / "val")
    assert len(read("imagefolder", root).test.paths) == 9


def test_one_folder_is_split_by_the_names_of_its_files(tmp_path, photograph):
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


def test_a_bounding_box_is_cut_out(laid):
    root = laid("cub200")
    whole, cut = read("cub200", root), read("cub200", root, boxes=True)
    assert whole.digest() != cut.digest()
    assert cut.train.boxes[0].tolist() == [2, 3, 12, 11]
    assert cut.pixels(cut.train, [0, 1]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("labels", ["devkit", "solution"])
def test_the_validation_images_of_the_official_archive(labels, laid):
    from scipy.io import savemat

    root = laid("imagenet")
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


def test_lines_may_end_as_on_windows(laid):
    root = laid("cub200")
    before = read("cub200", root).digest()
    for path in root.glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read("cub200", root).digest() == before


def test_names_of_files_that_are_not_utf8(laid, photograph):
    root = laid("imagefolder")
    photograph(root / "train" / "cat" / os.fsdecode(b"\xff.png"))
    listing = read("imagefolder", root, skip_broken=True)
    assert len(listing.train.paths) == 19
    assert len(listing.digest()) == 64


def test_photographs_in_forms_of_their_own(laid):
    root = laid("imagefolder")
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
