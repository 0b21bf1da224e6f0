"""What methods that compare feature maps share: pairing of stages, resolutions, normalisation, and adapters.

An adapter leads from a student's map to the shape of a teacher's. It is trained with the student, is part of the method and
not of the student, and computes in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.backbones.backbone import Backbone
from kdbench.errors import RunError
from kdbench.method.batch import Batch
from kdbench.precision import at_least_float32, full_precision

Shape = tuple[int, int, int]
"""Channels, height and width of a map."""
T = TypeVar("T")
U = TypeVar("U")


def paired(ours: Sequence[T], theirs: Sequence[U]) -> list[tuple[T, U]]:
    """Stages of student and teacher, paired from the deepest; the shallow stages of the longer network are left out.

    Returns:
        The pairs, shallowest first.
    """
    stages = min(len(ours), len(theirs))
    return list(zip(ours[-stages:], theirs[-stages:], strict=True))


def equal_resolution(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W) and (B, C', H', W') at the lower of their resolutions, in float32 or wider: the larger is averaged."""
    height, width = (min(sides) for sides in zip(x.shape[2:], target.shape[2:], strict=True))
    size = height, width
    return pooled(x, size), pooled(target, size)


def pooled(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map (B, C, H, W) averaged to `size` (height, width), in float32 or wider; `x` itself where it has that size.

    A map of lower resolution is repeated.
    """
    x = at_least_float32(x)
    (height, width), (rows, columns) = x.shape[2:], size
    if (height, width) == (rows, columns):
        return x
    # The next two give the same bits as the last, whose gradient is refused on a GPU in deterministic mode but for a single pixel.
    if (rows, columns) != (1, 1) and height % rows == width % columns == 0:
        return F.avg_pool2d(x, (height // rows, width // columns))
    if rows % height == columns % width == 0:
        return x.repeat_interleave(rows // height, dim=2).repeat_interleave(columns // width, dim=3)
    return F.adaptive_avg_pool2d(x, (rows, columns))


def normalised(x: Tensor, dim: int | tuple[int, ...] = 1, eps: float = 1e-12) -> Tensor:
    """`x` over its L2 norm along `dim`. Where the norm is below `eps` the result is `x / eps`, without a gradient.

    torch's own normalisation has a gradient of the order of 1 / eps there.
    """
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    small = norm < eps
    # Not only the result is chosen: a root at 0 has an infinite gradient, and 0 · ∞ is not 0.
    safe = torch.linalg.vector_norm(x.masked_fill(small, 1.0), dim=dim, keepdim=True)
    return torch.where(small, x.detach() / eps, x / safe)


def dropout(x: Tensor, probability: float, batch: Batch, stream: str = "drop-out") -> Tensor:
    """Drop-out of features (B, D) whose mask is drawn for the whole batch, so that it does not depend on the number of GPUs.

    Args:
        stream: name of the random stream; one name gives one mask in a step.
    """
    images = len(batch.share.gather(batch.labels))
    uniform = torch.rand(images, x.shape[1], generator=batch.streams(stream, device=x.device), device=x.device)
    return x * (batch.share.own(uniform) >= probability) / (1 - probability)


def check_preactivations(
    method: str, *networks: Backbone, remedy: str = "use another network, such as a resnet"
) -> None:
    """Refuse networks that do not offer the maps before the last ReLU of each stage; for `setup`, so that a plan can refuse them.

    Args:
        method: its name, for the sentence.
        remedy: end of the sentence.

    Raises:
        RunError: one of them does not.
    """
    for network in networks:
        if type(network).before_and_after_relu is Backbone.before_and_after_relu:
            raise RunError(
                f"{method} needs maps before the last ReLU of each stage, which {type(network).__name__} does not offer; "
                f"{remedy}"
            )


class ConvBN(nn.Module):
    """A convolution that keeps the resolution, batch normalisation, and a ReLU if wanted, in float32.

    Args:
        width, target: channels before and after.
        kernel: 1 or 3.
        relu: end with a ReLU.
        bias: of the convolution.
        wide_normal: draw the weights of the convolution from N(0, √(2 / target)), as torch's default does not.
    """

    def __init__(
        self,
        width: int,
        target: int,
        kernel: int = 1,
        *,
        relu: bool = False,
        bias: bool = False,
        wide_normal: bool = False,
    ):
        super().__init__()
        self.conv = nn.Conv2d(width, target, kernel, padding=kernel // 2, bias=bias)
        self.bn = nn.BatchNorm2d(target)
        self.relu = relu
        if wide_normal:
            nn.init.normal_(self.conv.weight, std=math.sqrt(2 / target))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, target, H, W) of a map (B, width, H, W)."""
        with full_precision(x.device):
            x = self.bn(self.conv(at_least_float32(x)))
            return F.relu(x) if self.relu else x


def separable(width: int, target: int) -> nn.Sequential:
    """Depth-wise separable convolutions that halve the resolution of a map (B, width, H, W), with `target` channels after.

    Twice a depth-wise 3×3 convolution (the first with stride 2), a 1×1 convolution, batch normalisation and ReLU, without bias.
    """
    layers: list[nn.Module] = []
    for wanted, stride in ((width, 2), (target, 1)):
        layers.append(nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False))
        layers += [nn.Conv2d(width, wanted, 1, bias=False), nn.BatchNorm2d(wanted), nn.ReLU()]
    return nn.Sequential(*layers)


class Regressor(nn.Module):
    """Convolution with bias, batch normalisation and, if wanted, a ReLU from one shape to another (FitNets' regressor).

    Equal resolutions: kernel 1. Twice the target's: kernel 3, stride 2. Half of it: transposed, kernel 4, stride 2. Larger
    otherwise: an unpadded kernel of 1 + H − H^t. Smaller otherwise: kernel 3, and the result keeps the student's
    resolution, to which the teacher's map must be averaged (`equal_resolution`).

    Source: RepDistiller (ConvReg); the last case is that of the SimKD toolbox.
    """

    def __init__(self, shape: Shape, target: Shape, *, relu: bool):
        super().__init__()
        width, height, _ = shape
        channels, wanted, _ = target
        self.conv: nn.Module
        if height == wanted:
            self.conv = nn.Conv2d(width, channels, 1)
        elif height == 2 * wanted:
            self.conv = nn.Conv2d(width, channels, 3, stride=2, padding=1)
        elif 2 * height == wanted:
            self.conv = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
        elif height > wanted:
            self.conv = nn.Conv2d(width, channels, 1 + height - wanted)
        else:
            self.conv = nn.Conv2d(width, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C^t, …) of a map (B, C, H, W)."""
        with full_precision(x.device):
            x = self.bn(self.conv(at_least_float32(x)))
            return F.relu(x) if self.relu else x
