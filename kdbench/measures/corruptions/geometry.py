"""Filters and displacements of whole batches, with lengths that need not be whole pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def scale(images: Tensor) -> float:
    """Pixels for what is one pixel at 32×32."""
    return min(images.shape[-2:]) / 32


def displaced(images: Tensor, by: Tensor) -> Tensor:
    """Each pixel from another place: images (B, C, H, W), `by` (B, H, W, 2) pixels (x, y); bilinear, mirrored outside."""
    _, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    last = torch.tensor([width - 1, height - 1], device=images.device)
    grid = 2 * (torch.stack([x, y], dim=-1) + by) / last - 1
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)


def averaged(images: Tensor, points: Tensor) -> Tensor:
    """The mean of images (B, C, H, W) displaced by each of `points` (B or 1, P, 2), in pixels; bilinear, mirrored outside."""
    count = len(images)
    radius = max(1, math.ceil(points.abs().max().item()))
    taps = torch.arange(-radius, radius + 1, device=images.device)
    along, across = (F.relu(1 - (points[..., axis, None] - taps).abs()) for axis in (0, 1))
    kernels = torch.einsum("bpi,bpj->bij", across, along)[:, None] / points.shape[1]
    padded = F.pad(images, [radius] * 4, mode="reflect")
    # A kernel for each image: images take the place of channels.
    return F.conv2d(padded.transpose(0, 1), kernels.expand(count, -1, -1, -1), groups=count).transpose(0, 1)


def transformed(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a map that is linear along each axis: rows (H', H) · images (B, C, H, W) · columns (W', W)ᵀ."""
    return rows @ (images @ columns.T)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian filter of `sigma` pixels, edges repeated."""

    def matrix(size: int) -> Tensor:
        radius = math.ceil(4 * sigma)
        taps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        weights = torch.exp(-0.5 * (taps / sigma).square())
        source = (torch.arange(size)[:, None] + taps.long()).clamp(0, size - 1)
        banded = torch.zeros(size, size).scatter_add_(1, source, (weights / weights.sum()).expand(size, -1))
        return banded.to(images.device)

    height, width = images.shape[-2:]
    return transformed(images, matrix(height), matrix(width))


def zoomed(images: Tensor, factor: float) -> Tensor:
    """The middle, `factor` times as large (at least 1); bilinear."""

    def matrix(size: int) -> Tensor:
        middle = (size - 1) / 2
        source = middle + (torch.arange(size) - middle) / factor
        return F.relu(1 - (source[:, None] - torch.arange(size)).abs()).to(images.device)

    height, width = images.shape[-2:]
    return transformed(images, matrix(height), matrix(width))


def in_cells(images: Tensor, cell: float, begin: Tensor) -> Tensor:
    """Mean over each square of `cell` × `cell` pixels, shown in place of every pixel whose middle lies in it.

    Args:
        begin: (2, B) from 0 to below 1, how much of the first cell of each image's rows and columns is outside of it.
    """

    def matrices(size: int, outside: Tensor) -> Tensor:
        pixel = torch.arange(size, device=images.device)
        place = (pixel + 0.5) / cell + outside[:, None]  # of each pixel's middle, in cells
        first = (place.floor() - outside[:, None]) * cell
        inside = torch.minimum(pixel + 1, (first + cell)[..., None]) - torch.maximum(pixel, first[..., None])
        inside = inside.clamp(min=0)
        return (inside / inside.sum(dim=2, keepdim=True))[:, None]

    height, width = images.shape[-2:]
    rows, columns = matrices(height, begin[0]), matrices(width, begin[1])
    return rows @ (images @ columns.transpose(-2, -1))
