"""Corruptions from processing: functions of images (B, C, H, W) in 0..1, a severity from 0 and draws; lengths: pixels at 32×32."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kdbench.measures.corruptions import geometry
from kdbench.measures.corruptions.draws import Draws


def contrast(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """The share of the difference from each channel's mean that is kept."""
    left = (0.75, 0.50, 0.40, 0.30, 0.15)[severity]
    return torch.lerp(images.mean(dim=(2, 3), keepdim=True), images, left)


def elastic_transform(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Stretched and squeezed: displacements of this standard deviation, smooth over an eighth of the image."""
    strength = (0.6, 0.8, 1.0, 1.25, 1.6)[severity] * geometry.scale(images)
    count, _, height, width = images.shape
    by = F.interpolate(draws.normal(count, 2, 8, 8), size=(height, width), mode="bicubic", align_corners=True)
    return geometry.displaced(images, strength * by.permute(0, 2, 3, 1))


def pixelate(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Fewer and larger pixels: so many at 32×32. What a larger one adds to a pixel's width scales with larger images."""
    pixels = (28, 25, 22, 19, 16)[severity]
    cell = 1 + (32 / pixels - 1) * max(1.0, geometry.scale(images))
    return geometry.in_cells(images, cell, draws.uniform(2, len(images)))


def jpeg_compression(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """JPEG of this quality; images of other than three channels as one grey image a channel."""
    quality = (80, 65, 58, 50, 40)[severity]
    count, channels, height, width = images.shape
    pixels = (images * 255).round().to(torch.uint8).cpu()
    pixels = pixels.permute(0, 2, 3, 1) if channels == 3 else pixels.reshape(count * channels, height, width)
    decoded = torch.from_numpy(np.stack([_through_jpeg(image, quality) for image in pixels.numpy()]))
    decoded = decoded.permute(0, 3, 1, 2) if channels == 3 else decoded.reshape(images.shape)
    return decoded.to(images.device).float() / 255


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    with io.BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
        with Image.open(file) as compressed:
            return np.asarray(compressed)
