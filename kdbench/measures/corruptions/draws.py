"""Random numbers drawn on the CPU for images on any device."""

from __future__ import annotations

import torch
from torch import Tensor


class Draws:
    """The random numbers of a corruption, from one generator.

    Args:
        generator: on the CPU.
        device: device of the numbers that are drawn.
    """

    def __init__(self, generator: torch.Generator, device: torch.device):
        self._generator = generator
        self._device = device

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator).to(self._device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device)

    def poisson(self, rates: Tensor) -> Tensor:
        return torch.poisson(rates.cpu(), generator=self._generator).to(self._device)

    def clouds(self, images: Tensor, decay: float) -> Tensor:
        """(B, 1, H, W) in 0..1, a fractal for each of `images`: amplitudes fall with the frequency as f^-decay."""
        count, _, height, width = images.shape
        rows, columns = torch.fft.fftfreq(height) * height, torch.fft.rfftfreq(width) * width
        frequency = torch.hypot(rows[:, None], columns).to(self._device)
        frequency[0, 0] = torch.inf
        spectrum = torch.view_as_complex(self.normal(count, 1, *frequency.shape, 2)) * frequency**-decay
        field = torch.fft.irfft2(spectrum, s=(height, width))
        low, high = field.amin(dim=(2, 3), keepdim=True), field.amax(dim=(2, 3), keepdim=True)
        scaled: Tensor = (field - low) / (high - low)
        return scaled
