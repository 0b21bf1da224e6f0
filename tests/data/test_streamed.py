"""Streamed images: the same bits as in memory, whatever the workers and wherever a run was stopped."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.backbones import registry as backbones
from kdbench.config.schedules import Cosine
from kdbench.config.settings import Augment, Dataset, Machine, Split, Train
from kdbench.config.switches import NO_CROP, ResizedCrop
from kdbench.data import memory
from kdbench.data import task as task_
from kdbench.data.augment import Augmenter
from kdbench.data.images import Wanted
from kdbench.data.readers import registry
from kdbench.data.streamed import Streamed, workers
from kdbench.errors import RunError
from kdbench.method import Info, Method
from kdbench.plan import expand, request
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.loop.batches import steps
from kdbench.run.loop.budget import Budget
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, RunFolder
from kdbench.streams import Streams

CPU = torch.device("cpu")
TRAIN = Train(1.0, 4, Cosine(final=0.0), 0.0, 0.0, "float32", 0.0)
FOLDER = Dataset("imagefolder", (0.5,) * 3, (0.25,) * 3, True, size=16)
CROP = ResizedCrop(min_area=0.3, test_share=0.8)
WORDS = [
    "methods=ce", "dataset=imagefolder", "student=resnet8", "recipe=quick", "Train.epochs=2", "Train.warmup=0",
    "Train.batch_size=8", "Dataset.size=16", "Split.validation=0.25", "Machine.threads=1", "Machine.checkpoint_every=0",
    "Measures.corruptions=False", "Measures.images=4",
]  # fmt: skip
WAYS = ["Machine.images=memory", "Machine.images=cache", "Machine.workers=0", "Machine.workers=1", "Machine.workers=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cats_and_dogs):
    """JPEG and PNG images of several sizes, some of them turned by EXIF."""
    draw = np.random.default_rng(0)

    def image(number):
        small = draw.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((40 + number, 50 - number), Image.Resampling.BICUBIC)

    def options(number):
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 5 == 0 else 1
        return {"exif": exif}

    ending = lambda number: "jpg" if number % 2 else "png"  # noqa: E731
    return cats_and_dogs(tmp_path_factory.mktemp("data") / "images", 20, 6, image, ending, options)


@pytest.fixture
def copy(folder, tmp_path):
    """The same images, for tests that change them."""
    return Path(shutil.copytree(folder, tmp_path / "data"))


def load(folder, way, crop=NO_CROP, count=0):
    machine = Machine("cpu", 1, False, False, 0.0, 1, "", way, 0.5, count)
    return task_.load(FOLDER, Split(0.25, 0), folder, CPU, crop=crop, machine=machine)


@pytest.mark.parametrize("way", ["stream", "cache"])
def test_each_part_has_the_images_of_memory(way, copy):
    whole, streamed = load(copy, "memory"), load(copy, way, count=2)
    assert streamed.digest == whole.digest
    assert streamed.image_shape == whole.image_shape == (3, 16, 16)
    for task in (whole, streamed):
        task.test.training_is_over()
    pairs = [
        (whole.train, streamed.train),
        (whole.validation, streamed.validation),
        (whole.test.read(), streamed.test.read()),
    ]
    for one, other in pairs:
        assert (one.in_memory, other.in_memory) == (True, False)
        assert len(one) == len(other)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(torch.cat(list(other.batches(7))), one.images)
        places = torch.tensor([3, 0, 3, 1])
        assert torch.equal(other.take(places), one.take(places))


def test_crops_depend_on_their_numbers_alone(folder):
    wanted = [
        Wanted(torch.tensor([0, 1, 2]), torch.tensor([5, 6, 7])),
        Wanted(torch.tensor([2, 0]), torch.tensor([7, 8])),
    ]
    first, *others = (list(load(folder, "stream", CROP, count).train.fetch(wanted)) for count in (0, 1, 2))
    for other in others:
        assert all(map(torch.equal, first, other))
    assert torch.equal(first[0][2], first[1][0])
    assert not torch.equal(first[0][0], first[1][1])


@pytest.mark.parametrize("own", [{}, {"policy": "autoaugment", "erasing": 0.7}])
def test_views_of_streamed_images_are_those_of_images_in_memory(folder, own):
    recipe = Augment(padding=0.125, fill=0, flip=True, cutout=0.25, **own)
    one, other = (load(folder, way).train for way in ("memory", "stream"))
    in_memory, streamed = (Augmenter(images, recipe, FOLDER) for images in (one, other))
    places = torch.tensor([3, 0, 5])
    draws = in_memory.draw(3, torch.Generator().manual_seed(0))
    (pixels,) = other.fetch([streamed.wanted(places, [draws])])
    assert torch.equal(streamed(places, draws, fetched=pixels), in_memory(places, draws))


def result(folder, runs, *words):
    results = [run(spec, runs, folder) for spec in expand.plan(request.parse([*WORDS, *words]))]
    assert [each["status"] for each in results] == ["finished"] * len(results), results[-1].get("error")
    free = ("seconds.", "convergence.seconds.", "cost.peak", "cost.images", "provenance.")
    return {key: value for key, value in results[-1].items() if not key.startswith(free)}


def test_runs_end_in_the_same_bits(folder, tmp_path):
    first, *others = (
        result(folder, tmp_path / str(number), way, *(["Machine.images=stream"] if "workers" in way else []))
        for number, way in enumerate(WAYS)
    )
    assert all(other == first for other in others)


@pytest.mark.parametrize("switches", [["ResizedCrop.min_area=0.3", "ResizedCrop.test_share=0.8"], ["Mix.mixup=0.4"]])
def test_with_crops_and_mixing_too(switches, folder, tmp_path):
    ways = (["Machine.workers=0"], ["Machine.workers=2"])
    one, other = (result(folder, tmp_path / way[0], "Machine.images=stream", *way, *switches) for way in ways)
    assert one == other
    assert one["protocol"] != result(folder, tmp_path / "plain", "Machine.images=memory")["protocol"]


@pytest.mark.exhaustive
def test_a_streamed_run_stopped_after_every_step_ends_in_the_same_bits(folder, tmp_path):
    words = [*WORDS, "Machine.images=stream", "Machine.workers=1"]
    (spec,) = expand.plan(request.parse(words))
    undisturbed = run(spec, tmp_path / "one", folder)
    sessions = 1
    while True:
        try:
            stopped = run(spec, tmp_path / "two", folder, Caller(stop=lambda: True))
            break
        except Stopped:
            sessions += 1
    assert sessions == stopped["provenance.sessions"] > 5
    assert stopped["weights.sha256"] == undisturbed["weights.sha256"]
    lines = [(RunFolder(tmp_path / name, spec.id) / EPOCHS).read_text().splitlines() for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1])


def test_a_broken_file_is_one_sentence(copy):
    path = copy / "train" / "cat" / "1.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"train/cat/1.jpg cannot be read as an image"):
        list(load(copy, "stream", count=2).train.batches(8))


def test_a_sampler_that_draws_from_the_global_generator_is_refused(folder):
    class Pairs(Method):
        images_per_anchor = 2

        def sample(self, anchors, streams):
            return torch.cat([anchors, torch.randint(self.info.images, anchors.shape)])

    def batches(way):
        task = load(folder, way)
        info = Info(2, task.train.labels, task.image_shape, 0.0, CPU)
        given = TRAIN
        augmenter = Augmenter(task.train, Augment(0.125, 0, True, 0.0), FOLDER)
        method = Pairs(backbones.build("resnet8", 2), [], info)
        return steps(method, task, augmenter, Streams(0), Budget(given, len(task.train), 2))

    assert len(next(batches("memory")).images) == 4
    with pytest.raises(RunError, match=r"Pairs.sample draws from torch's global generator"):
        next(batches("stream"))


def test_a_sampler_is_given_the_anchors_of_the_step_before_as_in_memory(folder):
    class Again(Method):
        images_per_anchor = 2

        def sample_after(self, before, anchors, streams):
            return torch.cat([anchors, anchors if before is None else before])

    def places(way):
        task = load(folder, way)
        method = Again(backbones.build("resnet8", 2), [], Info(2, task.train.labels, task.image_shape, 0.0, CPU))
        augmenter = Augmenter(task.train, Augment(0.125, 0, True, 0.0), FOLDER)
        return [b.index for b in steps(method, task, augmenter, Streams(0), Budget(TRAIN, len(task.train), 2))]

    assert all(map(torch.equal, places("stream"), places("memory")))


def test_nothing_is_drawn_from_the_global_generator(folder):
    images = load(folder, "stream", count=1).train
    before = torch.random.get_rng_state()
    list(images.batches(8))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_workers_end_with_their_batches(folder):
    fetched = load(folder, "stream", count=2).train.batches(4)
    next(fetched)
    children = lambda: [p for p in os.listdir("/proc") if p.isdecimal() and _parent(p) == os.getpid()]  # noqa: E731
    assert len(children()) >= 2
    fetched.close()
    assert not [child for child in children() if _state(child) not in "ZX"]


def _state(process):
    with open(f"/proc/{process}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _parent(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_the_choice_says_why(folder, monkeypatch):
    listing = registry.read("imagefolder", folder, FOLDER.reading)
    monkeypatch.setattr(memory, "available", lambda: 50_000)
    assert memory.placement(listing, "auto", 0.9, False) == (
        "memory",
        "52 images of 16x16 take 0.0399 MB of 0.05 MB free memory; they are decoded into memory",
    )
    placement = memory.placement(listing, "auto", 0.5, False)
    assert placement.where == "stream"
    assert "more than 50 % (Machine.memory); they are decoded in every epoch" in placement.sentence
    assert memory.placement(listing, "stream", 0.9, False).where == "stream"
    assert memory.placement(listing, "memory", 0.1, False).where == "memory"
    assert memory.placement(listing, "memory", 0.9, True).where == "stream", "crops are cut from the files"


def test_free_memory_is_some_of_the_machines():
    assert 0 < memory.available() < 2**50
    assert workers(3) == 3
    assert workers(0) == 0
    assert workers(-1) >= 1


def test_processes_of_a_group_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert workers(-1) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert workers(-1) == 7


def test_streamed_images_are_a_listing_s(folder):
    listing = registry.read("imagefolder", folder, FOLDER.reading)
    images = Streamed(listing, listing.train, np.array([2, 30]), CPU, 0)
    assert images.labels.tolist() == [0, 1]
    assert np.array_equal(images.take(torch.tensor([1])).numpy(), listing.pixels(listing.train, [30]))
