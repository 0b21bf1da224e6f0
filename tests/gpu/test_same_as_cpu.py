"""What a GPU computes is what the CPU computes, up to rounding: batches, losses, gradients and corruptions."""

import pytest
import torch

from kdbench.config import bindings, places
from kdbench.measures import corruptions

DEVICE = "cuda"
DRAWN_THERE = {("crd", "contrast"): 0.1}
"""Relative tolerance of terms for which the method draws on the device, and so other numbers than on the CPU."""


@pytest.mark.parametrize(
    "words", [[], ["ResizedCrop.min_area=0.2"], ["Mix.mixup=0.2", "Mix.cutmix=1.0", "Mix.probability=1.0"]]
)
def test_batches(first_step, words):
    cpu, gpu = (first_step("ce", device, *words)[1] for device in ("cpu", DEVICE))
    assert gpu.images.device.type == DEVICE
    assert torch.equal(cpu.index, gpu.index.cpu())
    # A GPU rounds a product and a sum at once; in a resized image, that may move a grey level to the next one.
    torch.testing.assert_close(gpu.images.cpu(), cpu.images, rtol=1e-6, atol=0.02 if words else 1e-6)
    torch.testing.assert_close(gpu.labels.float().cpu(), cpu.labels.float())


@pytest.mark.parametrize(
    "name", [name for name in sorted(places.sources()) if "Teaching.method" not in bindings.of_method(name)]
)
def test_losses_and_gradients(first_step, figure, name):
    values, norms = {}, {}
    for device in ("cpu", DEVICE):
        method, batch = first_step(name, device)
        terms = method.losses(batch)
        sum(terms.values()).backward()
        values[device] = {term: value.item() for term, value in terms.items()}
        norms[device] = torch.nn.utils.get_total_norm(
            [p.grad for p in method.student.parameters() if p.grad is not None]
        )
    differences = {
        term: abs(values[DEVICE][term] / value - 1) if value else 0.0 for term, value in values["cpu"].items()
    }
    figure(f"{name}: largest relative difference of a loss from the CPU's", f"{max(differences.values()):.1e}")
    for term, value in values["cpu"].items():
        assert values[DEVICE][term] == pytest.approx(value, rel=DRAWN_THERE.get((name, term), 1e-3), abs=1e-5), term
    drawn = max((tolerance for (method, _), tolerance in DRAWN_THERE.items() if method == name), default=0.0)
    assert norms[DEVICE].item() == pytest.approx(norms["cpu"].item(), rel=max(1e-2, drawn))


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_corruptions(name):
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cpu, gpu = (
        corruptions.corrupt(images.to(device), name, 3, torch.Generator().manual_seed(1)).cpu()
        for device in ("cpu", DEVICE)
    )
    # Rounding may move a grey level to the next one, and, where it decides between two pixels, an isolated pixel further.
    assert (255 * (cpu - gpu).abs() > 1.5).float().mean() < 0.01
