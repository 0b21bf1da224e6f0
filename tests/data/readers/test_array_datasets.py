"""Array datasets in the files that their authors publish, in small; and CIFAR-100's superclasses."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kdbench.config.reading import Reading
from kdbench.data.readers import registry, superclasses
from kdbench.errors import RunError, UserError
from kdbench.plan import expand, request
from kdbench.run.execute import run

DRAW = np.random.default_rng(0)
COUNTS = {"train": 30, "test": 20}


def pixels(count, *shape):
    return DRAW.integers(0, 256, (count, *shape), dtype=np.uint8)


def svhn(folder):
    """Returns images and labels of the test part, as every writer here does."""
    for part, count in COUNTS.items():
        images, labels = pixels(count, 32, 32, 3), np.arange(count) % 10
        stored = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": stored})
    return images, labels


def stl10(folder):
    for part, count in COUNTS.items():
        images, labels = pixels(count, 96, 96, 3), np.arange(count) % 10
        images.transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")
        (labels + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    return images, labels


def fashion_mnist(folder):
    for part, count in {"train": 30, "t10k": 20}.items():
        images, labels = pixels(count, 28, 28), np.arange(count) % 10
        content = struct.pack(">4I", 0x0803, count, 28, 28) + images.tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        content = struct.pack(">2I", 0x0801, count) + labels.astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(content)
    return images[..., None], labels


WRITERS = {"svhn": svhn, "stl10": stl10, "fashion_mnist": fashion_mnist}


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_labels_are_those_of_the_files(name, tmp_path):
    images, labels = WRITERS[name](tmp_path)
    arrays = registry.read(name, tmp_path)
    assert arrays.train_images.shape == (30, *images.shape[1:])
    stored = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    read = {image.tobytes(): label for image, label in zip(arrays.test_images, arrays.test_labels, strict=True)}
    assert read == stored
    assert len(arrays.classes) == 10


@pytest.mark.parametrize(
    ("name", "inside"), [("svhn", "SVHN"), ("stl10", "stl10_binary"), ("fashion_mnist", "FashionMNIST/raw")]
)
def test_the_folders_of_torchvision_are_found(name, inside, tmp_path):
    (tmp_path / inside).mkdir(parents=True)
    WRITERS[name](tmp_path / inside)
    assert len(registry.read(name, tmp_path).test_labels) == 20


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_on_each_finishes(name, tmp_path):
    WRITERS[name](tmp_path)
    words = ["methods=ce", f"dataset={name}", "student=resnet8", "recipe=quick", "Train.epochs=1", "Train.warmup=0"]
    words += ["Train.batch_size=10", "Split.validation=0", "Measures.corruptions=False", "Measures.images=5"]
    (spec,) = expand.plan(request.parse(words))
    result = run(spec, tmp_path / "runs", tmp_path)
    assert result["status"] == "finished", result["error"]


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("svhn", "test_32x32.mat", "test_32x32.mat cannot be read"),
        ("stl10", "test_X.bin", "test_X.bin has 50 bytes, not 27,648 for each of 20 labels"),
        ("fashion_mnist", "t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz cannot be read"),
    ],
)
def test_damaged_and_missing_files(name, file, sentence, tmp_path):
    WRITERS[name](tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:50])
    with pytest.raises(RunError, match=sentence):
        registry.read(name, tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(RunError, match=f"has no {file}, neither there nor in .*; it is published at http"):
        registry.read(name, tmp_path)


def test_each_superclass_has_five_classes():
    assert len(superclasses.FINE) == len(set(superclasses.FINE)) == 100
    assert list(superclasses.SUPERCLASSES) == sorted(superclasses.SUPERCLASSES)
    labels = superclasses.coarse_labels(superclasses.FINE)
    # The first ten of the official file.
    assert labels[:10] == [4, 1, 14, 8, 0, 6, 7, 7, 18, 3]
    assert np.bincount(labels).tolist() == [5] * 20
    assert superclasses.coarse_labels([f"{n:02}_x" for n in range(100)]) == labels
    with pytest.raises(RunError, match="need the official names of CIFAR-100's classes or their numbers, not 'zebra'"):
        superclasses.coarse_labels([*superclasses.FINE[:99], "zebra"])


def test_cifar100_with_coarse_labels(tmp_path):
    for part in ("train", "test"):
        for name in superclasses.FINE:
            (tmp_path / "cifar100" / part / name).mkdir(parents=True)
            Image.fromarray(pixels(1, 32, 32, 3)[0]).save(tmp_path / "cifar100" / part / name / "0.png")
    fine = registry.read("cifar100", tmp_path)
    coarse = registry.read("cifar100", tmp_path, Reading(labels="coarse"))
    assert coarse.classes == tuple(superclasses.SUPERCLASSES)
    label_of = superclasses.coarse_labels(superclasses.FINE)
    expected = {
        image.tobytes(): label_of[label] for image, label in zip(fine.test_images, fine.test_labels, strict=True)
    }
    assert {
        i.tobytes(): int(label) for i, label in zip(coarse.test_images, coarse.test_labels, strict=True)
    } == expected
    with pytest.raises(UserError, match=r"the reader 'cifar10' does not take Dataset.labels; those that do: cifar100"):
        expand.plan(request.parse(["methods=ce", "dataset=cifar10", "Dataset.labels=coarse"]))
