"""Statistics and checks of datasets, and images that are left out because they cannot be read."""

import os

import pytest

from kdbench.config.reading import Reading
from kdbench.data.readers import images, inspection, registry
from kdbench.errors import RunError
from kdbench.plan import expand, request
from kdbench.run.execute import run
from kdbench.store.result import defects

READING = Reading(size=8)
SKIPPING = Reading(size=8, skip_broken=True)


@pytest.fixture
def folder(tmp_path, cats_and_dogs):
    return cats_and_dogs(tmp_path / "data", 8, 3)


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def test_statistics_are_those_of_the_pixels(folder):
    listing = registry.read("imagefolder", folder, READING)
    statistics = inspection.statistics(listing)
    pixels = listing.decoded().train_images.reshape(-1, 3) / 255
    assert statistics.mean == pytest.approx(pixels.mean(axis=0), abs=1e-4)
    assert statistics.std == pytest.approx(pixels.std(axis=0), abs=1e-4)
    assert (statistics.train, statistics.test, statistics.classes, statistics.per_class) == (16, 6, 2, (8, 8))
    assert statistics.sizes == ((12, 10), (12, 14), (12, 17))
    digits = inspection.statistics(registry.read("digits", None))
    assert digits.sizes == ((8, 8),) * 3
    assert digits.per_class == (9, 9)


def test_every_broken_file_is_named(folder):
    for path in (folder / "train" / "cat" / "3.png", folder / "test" / "dog" / "0.png"):
        cut(path)
    verdict = inspection.verdict(registry.read("imagefolder", folder, READING))
    assert list(verdict.broken) == ["train/cat/3.png", "test/dog/0.png"]
    assert all("cannot be read as an image" in sentence for sentence in verdict.broken.values())


def test_the_checksum_is_of_the_bytes(folder):
    listing = registry.read("imagefolder", folder, READING)
    first = inspection.verdict(listing).sha256
    assert inspection.verdict(registry.read("imagefolder", folder, READING)).sha256 == first
    path = folder / "train" / "cat" / "3.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert inspection.verdict(registry.read("imagefolder", folder, READING)).sha256 != first


def test_a_verdict_holds_for_these_files_only(folder):
    listing = registry.read("imagefolder", folder, READING)
    verdict = inspection.verdict(listing)
    inspection.remember(verdict, listing, "imagefolder", folder)
    assert inspection.remembered(listing, "imagefolder", folder) == verdict
    assert (
        inspection.remembered(registry.read("imagefolder", folder, Reading(size=5)), "imagefolder", folder) == verdict
    )
    os.utime(folder / "train" / "cat" / "3.png", (1, 1))
    assert inspection.remembered(listing, "imagefolder", folder) is None


def test_broken_images_are_left_out_and_counted(folder, tmp_path, monkeypatch):
    cut(folder / "train" / "cat" / "3.png")
    whole = registry.read("imagefolder", folder, READING)
    whole_verdict = inspection.verdict(whole)
    with pytest.raises(RunError, match=r"train/cat/3.png cannot be read as an image"):
        whole.decoded()
    left = registry.read("imagefolder", folder, SKIPPING)
    assert len(left.train.paths) == 15
    assert left.skipped == 1
    assert left.notes == (f"1 image of {folder} cannot be read and left out: train/cat/3.png",)
    words = ["methods=ce", "dataset=imagefolder", "student=resnet8", "recipe=quick", "Train.epochs=1", "Train.warmup=0"]
    words += ["Train.batch_size=4", "Measures.corruptions=False", "Measures.images=5", "Dataset.size=8"]
    (spec,) = expand.plan(request.parse([*words, "Dataset.skip_broken=True"]))
    monkeypatch.setattr(inspection, "verdict", None)  # the verdict of the first reading is kept
    result = run(spec, tmp_path / "runs", folder)
    assert result["status"] == "finished", result["error"]
    assert result["data.skipped"] == 1
    assert result["data.content_sha256"] == whole_verdict.sha256
    assert not defects(result)


def test_without_a_broken_image_nothing_changes(folder):
    plain, skipping = (registry.read("imagefolder", folder, reading) for reading in (READING, SKIPPING))
    assert skipping.digest() == plain.digest()
    assert skipping.skipped == 0


def test_a_class_without_an_image_is_an_error(folder):
    for path in (folder / "test" / "dog").iterdir():
        cut(path)
    with pytest.raises(RunError, match="no image of the class 'dog' can be read"):
        registry.read("imagefolder", folder, SKIPPING)


def test_the_size_of_a_file_that_is_not_an_image(tmp_path):
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(RunError, match=r"a.png cannot be read as an image"):
        images.size_of(tmp_path / "a.png")
