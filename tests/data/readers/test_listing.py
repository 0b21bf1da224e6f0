"""Listings of image files: what decoding them gives, and a run on one."""

import numpy as np
import pytest
from PIL import Image

from kdbench.config import places
from kdbench.config.reading import Reading
from kdbench.data.readers import photographs, registry
from kdbench.data.readers.listing import Files, Listing
from kdbench.errors import RunError, UserError
from kdbench.plan import expand, request
from kdbench.run.execute import run

READER = '''
"""Image files of a folder, for training and for the test."""
from pathlib import Path
import numpy as np
from kdbench.data.readers.listing import Files, Listing

READERS = {"photographs": ("read", {"needs_folder": True, "classes": 2, "takes": ("size",)})}


def read(source, folder, reading):
    def part(name):
        paths = tuple(sorted(str(path.relative_to(folder)) for path in (folder / name).iterdir()))
        return Files(paths, np.array([int("cat" in path) for path in paths], dtype=np.int64))

    return Listing(folder, part("train"), part("test"), ("dog", "cat"), reading.size)
'''
GIN = """
Dataset.source = 'photographs'
Dataset.mean = (0.5, 0.5, 0.5)
Dataset.std = (0.25, 0.25, 0.25)
Dataset.mirrored = True
Dataset.size = 8
Defaults.student = 'resnet8'
Defaults.teacher = 'resnet20'
Defaults.recipe = 'quick'
"""


def photograph(path, size, value=None, **options):
    """Saves an image that is `value` everywhere, or random."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (17, 23), (8, 8), (5, 9), (1, 1)])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_of_any_size_becomes_a_square(size, ending, tmp_path):
    pixels = photographs.square(photograph(tmp_path / f"a.{ending}", size, value=90), 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 90).max() <= 1


def test_the_centre_is_what_is_left(tmp_path):
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (photographs.square(tmp_path / "wide.png", 10) == 200).all()
    assert (photographs.square(tmp_path / "wide.png", 10, box=(0, 0, 10, 10)) == 0).all()


def test_a_jpeg_that_is_decoded_smaller_is_nearly_the_one_that_is_not(tmp_path):
    x, y = np.meshgrid(np.linspace(0, 255, 400), np.linspace(0, 255, 300))
    smooth = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    large, small = (photographs.square(tmp_path / name, 30).astype(int) for name in ("a.png", "a.jpg"))
    assert np.abs(large - small).mean() < 2


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    (tmp_path / "notes").write_text("cats")
    with pytest.raises(RunError, match="notes is not an image"):
        photographs.square(tmp_path / "notes", 8)


@pytest.fixture
def image_files(tmp_path, own_plugins):
    """A data folder, and a plug-in reader and dataset for it."""
    for path, text in {"readers/photographs.py": READER, "gin/dataset/photographs.gin": GIN}.items():
        (tmp_path / "plugin" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plugin" / path).write_text(text)
    places.add_plugins([str(tmp_path / "plugin")])
    for n in range(24):
        photograph(tmp_path / "data" / "train" / f"{'cat' if n % 2 else 'dog'}{n}.png", (10 + n, 30 - n), 8 * n)
    for n in range(6):
        photograph(tmp_path / "data" / "test" / f"{'cat' if n % 2 else 'dog'}{n}.jpg", (10 + n, 30 - n), 8 * n)
    return tmp_path / "data"


def test_a_run_on_image_files_finishes(image_files, tmp_path):
    words = ["methods=ce", "dataset=photographs", "Train.epochs=1", "Train.warmup=0", "Train.batch_size=8"]
    (spec,) = expand.plan(request.parse([*words, "Measures.corruptions=False", "Measures.images=10"]))
    result = run(spec, tmp_path / "runs", image_files)
    assert result["status"] == "finished", result["error"]
    listing = registry.read("photographs", image_files, Reading(size=8))
    assert result["data.sha256"] == listing.digest()
    arrays = listing.decoded()
    assert listing.decoded() is arrays, "the next run of the process does not decode them again"
    assert arrays.train_images.shape == (24, 8, 8, 3)
    assert np.array_equal(arrays.train_images[[3, 1]], listing.pixels(listing.train, [3, 1]))


def test_the_digest_is_that_of_names_sizes_and_labels(image_files):
    first = registry.read("photographs", image_files, Reading(size=8)).digest()
    assert registry.read("photographs", image_files, Reading(size=8)).digest() == first
    assert registry.read("photographs", image_files, Reading(size=9)).digest() != first
    photograph(image_files / "train" / "cat1.png", (99, 99))
    assert registry.read("photographs", image_files, Reading(size=8)).digest() != first


def test_a_setting_that_the_reader_does_not_take_is_refused(image_files):
    with pytest.raises(
        UserError, match=r"the reader 'digits' does not take Dataset\.size; those that do: .*photographs"
    ):
        expand.plan(request.parse(["methods=ce", "dataset=digits", "Dataset.size=16"]))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"classes": ("dog",)},
        {"train": Files((), np.zeros(0, dtype=np.int64))},
    ],
)
def test_a_listing_that_does_not_fit_is_refused(change, tmp_path):
    part = Files(("a.png", "b.png"), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"size|labels|images"):
        Listing(**{"root": tmp_path, "train": part, "test": part, "classes": ("dog", "cat"), "size": 8, **change})
