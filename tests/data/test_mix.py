"""Mixup and CutMix: what is mixed, and that images and labels are mixed alike."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdbench.config.switches import Mix
from kdbench.data import mix
from kdbench.errors import UserError
from kdbench.mixing import box
from kdbench.plan import expand, request
from kdbench.run.execute import run
from kdbench.streams import Streams

WORDS = [
    "dataset=digits", "student=resnet8", "teacher=resnet8", "Train.epochs=2", "Train.batch_size=24", "Train.warmup=0",
    "Machine.threads=1", "Measures.corruptions=False", "Measures.images=10",
]  # fmt: skip


def drawn(settings, step=0, anchors=12, size=(8, 8)):
    return mix.draw(settings, anchors, size, Streams(0).within("step", step))


@given(st.integers(0, 1000), st.sampled_from([Mix(mixup=0.4), Mix(cutmix=1.0), Mix(mixup=1.0, cutmix=0.5)]))
def test_images_and_labels_are_mixed_in_the_same_shares(step, settings):
    mixing = drawn(settings, step)
    white, black = torch.ones(12, 1, 8, 8), torch.zeros(12, 1, 8, 8)
    assert mixing.images(white, black).mean().item() == pytest.approx(mixing.share, abs=1e-6)
    labels = torch.arange(12)
    mixed = mixing.labels(labels, labels[mixing.partner], 12)
    assert mixed.sum(dim=1).tolist() == pytest.approx([1.0] * 12)
    same = mixing.partner == labels
    assert mixed[labels, labels].tolist() == pytest.approx([1.0 if alike else mixing.share for alike in same], abs=1e-6)


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 0.999), st.floats(0, 0.999))
def test_the_part_that_is_cut_out_lies_in_the_image(step, share, y, x):
    top, bottom, left, right = box((8, 12), share, (y, x))
    assert 0 <= top <= bottom <= 8
    assert 0 <= left <= right <= 12
    assert (bottom - top) * (right - left) <= (1 - share) * 96 + 1e-9


def test_a_batch_depends_on_its_step_alone():
    settings = Mix(mixup=0.4, cutmix=1.0)
    one, again = drawn(settings, 3), drawn(settings, 3)
    assert torch.equal(one.partner, again.partner)
    assert (one.share, one.box) == (again.share, again.box)
    assert drawn(settings, 4).share != one.share


def test_chances():
    every = [drawn(Mix(mixup=0.4, cutmix=1.0, probability=0.6), step) for step in range(600)]
    mixed = [mixing for mixing in every if mixing]
    assert len(mixed) / 600 == pytest.approx(0.6, abs=0.06)
    assert sum(mixing.box is None for mixing in mixed) / len(mixed) == pytest.approx(0.5, abs=0.08)
    assert drawn(Mix()) is None


def planned(*words):
    return expand.plan(request.parse([*WORDS, *words]))


@pytest.mark.parametrize("switch", ["Mix.mixup=0.2", "Mix.cutmix=1"])
def test_runs_on_mixed_images_finish_and_are_of_another_protocol(switch, tmp_path):
    specs = planned("methods=kd", switch)
    assert {spec.protocol for spec in specs}.isdisjoint(spec.protocol for spec in planned("methods=kd"))
    for spec in specs:
        assert run(spec, tmp_path, None)["status"] == "finished"


def test_at_the_default_nothing_changes():
    assert [s.id for s in planned("methods=kd", "Mix.mixup=0")] == [s.id for s in planned("methods=kd")]


@pytest.mark.parametrize("method", ["corsd", "crd"])
def test_methods_that_need_the_class_of_each_image_are_refused(method):
    with pytest.raises(UserError, match=rf"{method} cannot be trained on mixed images .*methods/{method}\.py:\d+"):
        planned(f"methods={method}", "Mix.mixup=0.2")


@pytest.mark.parametrize("word", ["Mix.mixup=-1", "Mix.probability=0", "Mix.probability=0.5"])
def test_values_out_of_range_are_refused(word):
    with pytest.raises(UserError, match=r"Mix\."):
        planned("methods=ce", word)
