import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdbench.config.settings import Dataset, Measures
from kdbench.data.images import Images
from kdbench.measures import robustness as module
from kdbench.measures.corruptions import NAMES
from kdbench.measures.robustness import balanced_order, robustness, window
from kdbench.streams import Streams

DATASET = Dataset(source="x", mean=(0.3,), std=(0.35,), mirrored=False)
LABELS = torch.arange(90) % 3
TEST = Images(torch.randint(256, (90, 8, 8, 1), generator=Streams(0)("images"), dtype=torch.uint8), LABELS)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()


def measured(images=0, corruptions=True, noise=(0.1,), **more):
    return robustness(network(), TEST, DATASET, Measures(noise, corruptions, images, ()), **more)


def test_all_keys_and_means_of_their_parts():
    result = measured()
    assert result["measures.images"] == 90
    assert set(result) == {
        "measures.images", "robustness.noise.0.1", "robustness.corruptions",
        *(f"robustness.corruption.{name}" for name in NAMES), *(f"robustness.severity.{n}" for n in range(1, 6)),
    }  # fmt: skip
    for parts in ("corruption", "severity"):
        values = [value for key, value in result.items() if key.startswith(f"robustness.{parts}.")]
        assert sum(values) / len(values) == pytest.approx(result["robustness.corruptions"], abs=1e-4)
    assert all(0 <= value <= 100 for key, value in result.items() if key != "measures.images")


def test_the_batches_of_the_network_and_the_global_generator_do_not_matter(monkeypatch):
    torch.manual_seed(1)
    first = measured()
    monkeypatch.setattr(module, "PIXELS", 7 * 64)
    torch.manual_seed(2)
    assert measured() == first


def test_without_corruptions_there_is_noise_alone():
    values = measured(corruptions=False, noise=(0.05, 0.1))
    assert values["robustness.corruptions"] is None
    assert set(values) == {
        "measures.images", "robustness.corruptions", "robustness.noise.0.05", "robustness.noise.0.1",
    }  # fmt: skip


def test_each_noise_is_measured_on_five_times_the_images_or_all(monkeypatch):
    sizes = []
    inner = module._accuracy
    monkeypatch.setattr(module, "_accuracy", lambda n, chunks, d: inner(n, counted(chunks, sizes), d))
    measured(images=6, noise=(0.1,))
    assert sizes == [30] + [6] * 75
    sizes.clear()
    measured(images=50, noise=(0.1,))
    assert sizes == [90] + [50] * 75


def counted(chunks, sizes):
    chunks = list(chunks)
    sizes.append(sum(len(labels) for _, labels in chunks))
    return chunks


def test_whoever_waits_is_told_and_may_stop_it():
    told = []
    measured(images=5, between=told.append)
    assert told == sorted(told)
    assert (len(told), told[-1]) == (76, 1.0)
    with pytest.raises(KeyboardInterrupt):
        measured(images=5, between=lambda done: (_ for _ in ()).throw(KeyboardInterrupt))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 5))
def test_every_run_of_places_has_all_classes_in_nearly_equal_shares(counts, number):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    order = balanced_order(labels)
    assert sorted(order.tolist()) == list(range(len(labels)))
    size = max(1, len(labels) // 4)
    seen = labels[window(order, size, number)].bincount(minlength=len(counts))
    assert (seen - size * torch.tensor(counts) / len(labels)).abs().max() <= 3
