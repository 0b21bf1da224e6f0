"""CIFAR-10 from class folders and from the archive, in small, and CIFAR-100 in full where it is at hand."""

import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdbench.data.readers import cifar, registry
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
    return f"{root / 'train' / 'dog' / '1.png'} must be 32x32 RGB, not 31x32 RGB"


def _grey(root: Path) -> str:
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(root / "train" / "dog" / "1.png")
    return f"{root / 'train' / 'dog' / '1.png'} must be 32x32 RGB, not 32x32 L"


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
        _grey,
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


@pytest.fixture
def archive(class_folders: Path, tmp_path_factory, monkeypatch) -> Path:
    """An archive of the images of `class_folders` in another order, with torchvision's expected checksums replaced by its own."""
    from torchvision import datasets

    folder = tmp_path_factory.mktemp("archive")
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    md5s = {}

    def put(name: str, content: dict) -> None:
        (inner / name).write_bytes(pickle.dumps(content))
        md5s[name] = hashlib.md5((inner / name).read_bytes()).hexdigest()

    parts = {}
    for part in ("train", "test"):
        files = sorted(
            (class_folders / "cifar10" / part).glob("*/*.png"), key=lambda file: (file.name, file.parent.name)
        )
        rows = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1).reshape(-1) for file in files])
        parts[part] = rows, [CLASSES.index(file.parent.name) for file in files]
    rows, labels = parts["train"]
    for batch in range(5):
        put(f"data_batch_{batch + 1}", {"data": rows[batch::5], "labels": labels[batch::5]})
    put("test_batch", {"data": parts["test"][0], "labels": parts["test"][1]})
    put("batches.meta", {"label_names": list(CLASSES)})
    packed = folder / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(inner, inner.name)

    for some in ("train_list", "test_list"):
        names = [name for name, _ in getattr(datasets.CIFAR10, some)]
        monkeypatch.setattr(datasets.CIFAR10, some, [[name, md5s[name]] for name in names])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5s["batches.meta"]})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar.tar.gz")
    return folder


@pytest.mark.parametrize("kept", ["packed", "extracted"])
def test_archive_gives_the_same_arrays_as_folders(kept, class_folders: Path, archive: Path, monkeypatch):
    if kept == "packed":
        shutil.rmtree(archive / "cifar-10-batches-py")
    else:
        (archive / "cifar-10-python.tar.gz").unlink()
    first = registry.read("cifar10", archive)
    assert first.digest() == registry.read("cifar10", class_folders).digest()
    assert first.classes == CLASSES

    monkeypatch.setattr(cifar, "_from_archive", None)  # from here on only the cache can answer
    assert registry.read("cifar10", archive).digest() == first.digest()


def test_downloaded_data_is_cached_at_once(archive: Path, monkeypatch):
    with monkeypatch.context() as patch:
        away = archive.parent / "away"
        archive.rename(away)
        archive.mkdir()
        decode = cifar._from_archive

        def download(source: str, folder: Path):
            shutil.copy2(away / "cifar-10-python.tar.gz", folder)
            return decode(source, folder)

        patch.setattr(cifar, "_from_archive", download)
        first = registry.read("cifar10", archive).digest()
    monkeypatch.setattr(cifar, "_from_archive", None)
    assert registry.read("cifar10", archive).digest() == first


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
