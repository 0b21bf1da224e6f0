import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdbench.data.readers import arrays, registry
from kdbench.data.readers import digits as digits_
from kdbench.data.readers.arrays import Arrays
from kdbench.errors import RunError, UserError


def _arrays(**changes):
    fields = {
        "train_images": np.zeros((4, 2, 2, 1), np.uint8),
        "train_labels": np.array([0, 0, 1, 1]),
        "test_images": np.ones((2, 2, 2, 1), np.uint8),
        "test_labels": np.array([0, 1]),
        "classes": ("a", "b"),
    }
    return Arrays(**{**fields, **changes})


def test_import_is_cheap():
    heavy = "torch", "numpy", "sklearn", "PIL", "torchvision"
    code = f"import sys, kdbench.data.readers.registry; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_unknown_source_names_the_nearest():
    with pytest.raises(UserError, match="'cifar100'"):
        registry.check_folder("cifar-100", None)
    with pytest.raises(UserError, match="'digits'"):
        registry.read("digit", None)


@pytest.mark.parametrize("act", [registry.check_folder, registry.read])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing_folder_names_both_ways_to_give_it(act, name, tmp_path: Path):
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"{name}.*--data DIR.*KDBENCH_DATA") as error:
            act(name, folder)
        assert "\n" not in str(error.value)
        assert folder is None or str(folder) in str(error.value)


def test_check_folder_passes_what_is_right(tmp_path: Path):
    registry.check_folder("digits", None)
    registry.check_folder("cifar100", tmp_path)


def test_digits():
    digits = registry.read("digits", None)
    per_class = digits_.DIGITS_TRAIN_PER_CLASS
    assert digits.train_images.shape == (10 * per_class, 8, 8, 1)
    assert digits.test_images.shape == (1797 - 10 * per_class, 8, 8, 1)
    assert np.bincount(digits.train_labels).tolist() == [per_class] * 10
    assert np.bincount(digits.test_labels).min() > 150
    assert digits.classes == tuple("0123456789")
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)
    train = {image.tobytes() for image in digits.train_images}
    assert train.isdisjoint(image.tobytes() for image in digits.test_images)


def test_digits_are_the_same_images_for_ever():
    # Another digest means that every committed result on digits was measured on other data.
    assert registry.read("digits", None).digest() == "f51f12126d68b49de7dfa6704cb739753e95846127bf6f6b85f4ed3e93605920"


def test_canonical_order_forgets_the_order_given():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, 30)
    shuffled = rng.permutation(30)
    one = arrays.canonical(images, labels)
    other = arrays.canonical(images[shuffled], labels[shuffled])
    assert (one[0] == other[0]).all()
    assert (one[1] == np.sort(labels)).all()
    assert (one[1] == other[1]).all()
    before = {(int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)}
    assert {(int(label), image.tobytes()) for image, label in zip(*one, strict=True)} == before


def test_digest_sees_every_array_and_the_shapes_but_no_memory_layout():
    digest = _arrays().digest()
    assert digest == _arrays(train_images=np.zeros((4, 2, 2, 1), np.uint8, order="F")).digest()
    assert digest == _arrays(classes=("c", "d")).digest()
    others = [
        _arrays(train_images=np.ones((4, 2, 2, 1), np.uint8)),
        _arrays(train_labels=np.array([0, 1, 0, 1])),
        _arrays(test_images=np.zeros((2, 2, 2, 1), np.uint8)),
        _arrays(test_labels=np.array([1, 0])),
        _arrays(train_images=np.zeros((4, 1, 4, 1), np.uint8), test_images=np.ones((2, 1, 4, 1), np.uint8)),
    ]
    assert len({digest, *(other.digest() for other in others)}) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_images": np.zeros((4, 2, 2, 1), np.float32)},
        {"train_images": np.zeros((4, 2, 2), np.uint8)},
        {"test_images": np.ones((2, 3, 2, 1), np.uint8)},
        {"test_labels": np.array([0])},
        {"train_labels": np.array([0, 0, 1, 1], np.int32)},
        {"train_labels": np.array([0, 0, 1, 2])},
        {"train_labels": np.array([0, 0, 1, -1])},
    ],
)
def test_arrays_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        _arrays(**wrong)


def test_no_data_and_no_network_is_one_clear_sentence(tmp_path: Path, monkeypatch):
    # An address that refuses at once, so that the test neither waits nor downloads where there is a network.
    from torchvision import datasets

    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(getattr(datasets, name), "url", "http://127.0.0.1:1/cifar.tar.gz")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cifar-100-python\.tar\.gz.*cifar100/train/CLASS/NAME\.png") as error:
        registry.read("cifar100", tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz"):
        registry.read("cifar10", tmp_path)
    assert time.monotonic() - started < 10


def test_a_damaged_archive_is_not_read(tmp_path: Path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar.tar.gz")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"half a download")
    with pytest.raises(RunError, match=r"cifar-10-python\.tar\.gz is incomplete: 15 bytes with md5"):
        registry.read("cifar10", tmp_path)
    assert not list(tmp_path.glob(".kdbench/*.npz"))
