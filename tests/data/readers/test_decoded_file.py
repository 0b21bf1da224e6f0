"""Decoded images that are kept on disk."""

import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from kdbench.config.reading import Reading
from kdbench.data.readers import cache, decoded_file, registry
from kdbench.errors import RunError, UserError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def data(tmp_path, cats_and_dogs):
    return cats_and_dogs(tmp_path / "data", 3, 1)


def listing(data, size=8):
    return registry.read("imagefolder", data, Reading(size=size))


def test_images_are_decoded_once_and_then_read_from_disk(data, monkeypatch):
    expected = listing(data).decoded()
    train, test = decoded_file.pixels(listing(data), data)
    assert np.array_equal(train, expected.train_images)
    assert np.array_equal(test, expected.test_images)
    assert [path.name for path in (data / ".kdbench").glob("decoded-*")] == [
        decoded_file.path(listing(data), data).name
    ]
    monkeypatch.setattr(decoded_file.Listing, "batches", None)
    again, _ = decoded_file.pixels(listing(data), data)
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, train)


def test_another_size_or_a_changed_file_is_another_file(data):
    before = decoded_file.path(listing(data), data)
    assert decoded_file.path(listing(data, size=4), data) != before
    Image.new("RGB", (9, 9)).save(data / "train" / "cat" / "0.png")
    assert decoded_file.path(listing(data), data) != before


def test_without_the_space_or_a_folder_it_is_refused_before(data, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**6, 0, 1000))
    with pytest.raises(
        UserError, match=r"takes 0.00154 MB, but .*kdbench.* has 0.001 MB free; pass Machine.images=stream"
    ):
        decoded_file.path(listing(data), data)
    monkeypatch.setattr(cache, "writable", lambda data: [])
    with pytest.raises(UserError, match="needs a folder to write to, but neither"):
        decoded_file.path(listing(data), data)


def test_a_broken_image_leaves_nothing_behind(data):
    (data / "train" / "dog" / "2.png").write_bytes(b"")
    with pytest.raises(RunError, match=r"2.png cannot be read as an image: it is empty"):
        decoded_file.pixels(listing(data), data)
    assert not list((data / ".kdbench").glob("decoded-*"))


def test_a_damaged_file_is_named(data):
    decoded_file.pixels(listing(data), data)
    path = decoded_file.path(listing(data), data)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="is damaged; delete it"):
        decoded_file.pixels(listing(data), data)
    np.save(path, np.zeros((3, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(RunError, match="holds other images"):
        decoded_file.pixels(listing(data), data)
