"""CIFAR-10 from class folders and from the archive, in small, and CIFAR-100 in full where it is at hand."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.data.readers import registry
from kdbench.errors import RunError

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_folders_give_labels_in_alphabetical_order(class_folders: Path):
    arrays = registry.read("cifar10", class_folders)
    assert arrays.classes == CLASSES
    assert arrays.train_images.shape == (30, 32, 32, 3)
    assert arrays.test_images.shape == (20, 32, 32, 3)
    assert arrays.train_labels.tolist() == np.repeat(range(10), 3).tolist()
    assert arrays.test_labels.tolist() == np.repeat(range(10), 2).tolist()
    for label, name in enumerate(CLASSES):
        files = (class_folders / "cifar10" / "train" / name).iterdir()
        there = {np.asarray(Image.open(file)).tobytes() for file in files}
        assert {image.tobytes() for image in arrays.train_images[arrays.train_labels == label]} == there


def test_file_names_and_types_and_hidden_files_do_not_matter(class_folders: Path):
    before = registry.read("cifar10", class_folders).digest()
    for file in (class_folders / "cifar10" / "train" / "cat").iterdir():
        Image.open(file).save(file.with_name(f"z{9 - int(file.stem)}.bmp"))
        file.unlink()
    (class_folders / "cifar10" / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (class_folders / "cifar10" / "train" / ".cache").mkdir()
    assert registry.read("cifar10", class_folders).digest() == before


def test_the_folder_itself_may_be_named(class_folders: Path):
    assert (
        registry.read("cifar10", class_folders / "cifar10").digest() == registry.read("cifar10", class_folders).digest()
    )


def _no_test(root: Path) -> str:
    shutil.rmtree(root / "test")
    return str(root / "test")


def _class_too_many_in_test(root: Path) -> str:
    (root / "test" / "zebra").mkdir()
    return str(root / "test" / "zebra")


def _class_missing_in_test(root: Path) -> str:
    shutil.rmtree(root / "test" / "cat")
    return str(root / "train" / "cat")


def _nine_classes(root: Path) -> str:
    for part in ("train", "test"):
        shutil.rmtree(root / part / "cat")
    return "9 class folders, not 10"


def _empty_class(root: Path) -> str:
    for file in (root / "test" / "dog").iterdir():
        file.unlink()
    return str(root / "test" / "dog")


def _other_size(root: Path) -> str:
    Image.fromarray(np.zeros((32, 31, 3), np.uint8)).save(root / "train" / "dog" / "1.png")
    return f"{root / 'train' / 'dog' / '1.png'} must be 32x32, not 31x32"


def _transparent(root: Path) -> str:
    Image.fromarray(np.zeros((32, 32, 4), np.uint8)).save(root / "train" / "dog" / "1.png")
    return f"{root / 'train' / 'dog' / '1.png'} has transparent pixels"


def _no_images(root: Path) -> str:
    for file in (root / "test" / "dog").iterdir():
        file.write_bytes(b"no image")
        file.rename(file.with_suffix(".txt"))
    return f"{root / 'test' / 'dog'} holds no images"


def _pipe(root: Path) -> str:
    os.mkfifo(root / "train" / "dog" / "2a.png")
    return f"{root / 'train' / 'dog' / '2a.png'} is not a file"


def _text(root: Path) -> str:
    (root / "train" / "dog" / "1.png").write_text("no image")
    return str(root / "train" / "dog" / "1.png")


def _torn(root: Path) -> str:
    file = root / "train" / "dog" / "1.png"
    file.write_bytes(file.read_bytes()[:1500])
    return str(file)


@pytest.mark.parametrize(
    "spoil",
    [
        _no_test,
        _class_too_many_in_test,
        _class_missing_in_test,
        _nine_classes,
        _empty_class,
        _other_size,
        _transparent,
        _no_images,
        _pipe,
        _text,
        _torn,
    ],
)
def test_what_is_wrong_is_named(spoil, class_folders: Path):
    name = spoil(class_folders / "cifar10")
    with pytest.raises(RunError) as error:
        registry.read("cifar10", class_folders)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(class_folders.glob(".kdbench/*.npz"))


def test_numbers_are_labels_in_the_order_of_numbers(class_folders: Path):
    before = registry.read("cifar10", class_folders)
    root = class_folders / "cifar10"
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (root / part / name).rename(root / part / f"class_{label + 5}")
    after = registry.read("cifar10", class_folders)
    assert after.classes == tuple(f"class_{number}" for number in range(5, 15))
    assert after.digest() == before.digest()


def test_files_that_are_not_images_are_passed_by_and_reported_once(class_folders: Path):
    before = registry.read("cifar10", class_folders)
    assert before.notes == ()
    for name in ("Thumbs.db", "desktop.ini", "README.txt", "LICENSE"):
        (class_folders / "cifar10" / "train" / "cat" / name).write_text("[.ShellClassInfo]")
    for name in ("@eaDir", "__MACOSX"):
        (class_folders / "cifar10" / "train" / name).mkdir()
        (class_folders / "cifar10" / "train" / "cat" / name).mkdir()
    after = registry.read("cifar10", class_folders)
    assert after.digest() == before.digest()
    (note,) = after.notes
    assert "4 files in " in note
    assert "passed by, not being images: LICENSE, README.txt, Thumbs.db, desktop.ini" in note
    assert registry.read("cifar10", class_folders).notes == ()


@pytest.mark.cifar
@pytest.mark.skipif("KDBENCH_DATA" not in os.environ, reason="KDBENCH_DATA is not set")
def test_cifar100():
    arrays = registry.read("cifar100", Path(os.environ["KDBENCH_DATA"]))
    assert arrays.train_images.shape == (50_000, 32, 32, 3)
    assert arrays.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(arrays.train_labels).tolist() == [500] * 100
    assert np.bincount(arrays.test_labels).tolist() == [100] * 100
    assert (arrays.classes[0], arrays.classes[-1]) == ("apple", "worm")
    mean = arrays.train_images.mean(axis=(0, 1, 2)) / 255
    assert mean == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-4)
