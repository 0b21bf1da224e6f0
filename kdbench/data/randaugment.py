"""RandAugment and TrivialAugment for a whole batch at once, with the operations and magnitudes of torchvision.

An operation works on all its images together. Grey levels are computed in whole numbers or by single roundings, so that an
image comes out the same on every machine, whichever images are in the batch with it. Where torchvision rounds a
sum of floating-point products instead (Contrast, Color, Sharpness), it can give a grey level less or more; and where the
source of a pixel lies midway between two pixels, it may take the other one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.config.settings import Augment
from kdbench.config.switches import Strong
from kdbench.pinned import to_device

MAGNITUDES = 31
"""Magnitudes of an operation are numbered 0..30."""

_MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_TABLES = ("Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize")
OPERATIONS = (*_MOVES, *_TABLES, "Color", "Sharpness", "Identity")
"""Operations by their number; each is equally likely."""

_TIE = 0.5 + 2**-10  # Midway between two pixels is common in shears; rounding noise must not choose between them.


class Policy:
    """Operations on images of one size.

    Args:
        operations: number of operations on an image, one after another.
        amounts: by how much each changes an image, as `amounts` has it.
        fill: grey level, 0..255, of pixels from outside the image.
    """

    def __init__(self, operations: int, amounts: Tensor, fill: int):
        self.operations = operations
        self.fill = fill
        self._amounts = amounts

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """The operations on `count` images: (count, n, 3) int64 for n operations one after another.

        The last dimension has the number of the operation, its magnitude, and 1 for the negative sign.
        """
        raise NotImplementedError

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The images (B, H, W, C) uint8 after their operations.

        Args:
            images: on any device.
            drawn: (B, n, 3) int64 as `draw` gives it, on the CPU: which images an operation has decides what is launched,
                and a GPU would have to be waited for.
        """
        operation, magnitude, negative = drawn.unbind(2)
        amount = self._amounts[operation, negative, magnitude]
        for step in range(drawn.shape[1]):
            images = self._step(images, operation[:, step], amount[:, step])
        return images

    def _step(self, images: Tensor, operation: Tensor, amount: Tensor) -> Tensor:
        order = operation.argsort(stable=True)
        there = to_device(torch.stack([order, order.argsort()]), images.device)
        ends = torch.bincount(operation, minlength=len(OPERATIONS)).cumsum(0).tolist()
        groups = dict(zip(OPERATIONS, map(slice, [0, *ends], ends), strict=False))
        operation, amount = operation[order], amount[order]
        images = images.index_select(0, there[0])
        moved = slice(0, groups[_MOVES[-1]].stop)
        if moved.stop:
            source = _inverse_affine(operation[moved], amount[moved], *images.shape[1:3])
            images[moved] = _resample(images[moved], to_device(source, images.device), self.fill)
        amount = to_device(amount.float(), images.device)
        _look_up(images, amount, {name: groups[name] for name in _TABLES})
        for name, degenerate in (("Color", _grey), ("Sharpness", _smooth)):
            group = groups[name]
            if group.start < group.stop:
                whole = images[group].int()
                images[group] = _blend(whole, degenerate(whole), amount[group].int().view(-1, 1, 1, 1))
        return images.index_select(0, there[1])


class RandAugment(Policy):
    """RandAugment or TrivialAugment.

    Args:
        given: policy, number of operations and magnitude.
        height, width: height and width of the images in pixels.
        fill: grey level, 0..255, of pixels from outside the image.
    """

    def __init__(self, given: Strong | Augment, height: int, width: int, fill: int):
        trivial = given.policy == "trivialaugment"
        super().__init__(1 if trivial else given.operations, amounts(trivial, height, width), fill)
        self.magnitude = MAGNITUDES - 1 if trivial else given.magnitude
        self.random_magnitude = trivial or given.random_magnitude

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `Policy.draw`. All three numbers are drawn in any case, and each operation's after those of the one before, so
        that no setting moves another choice.
        """
        drawn = torch.empty(count, self.operations, 3, dtype=torch.int64)
        for step in range(self.operations):
            for place, limit in enumerate((len(OPERATIONS), self.magnitude + 1, 2)):
                drawn[:, step, place] = torch.randint(limit, (count,), generator=generator)
        if not self.random_magnitude:
            drawn[:, :, 1] = self.magnitude
        return drawn


def amounts(trivial: bool, height: int, width: int, magnitudes: int = MAGNITUDES) -> Tensor:
    """(operations, 2, magnitudes) float64: by how much each operation changes an image, for each sign and magnitude.

    Shears in pixels a pixel, translations in whole pixels, rotations in degrees; Brightness as factor; Contrast, Color and
    Sharpness in thousandths of the image (the rest is the degenerate image); Posterize in bits; Solarize as grey level.
    The ranges are those of torchvision.transforms.RandAugment, or of TrivialAugmentWide if `trivial`.
    """
    shear, across, down, angle, blend, bits = (
        (0.99, 32.0, 32.0, 135.0, 0.99, 6) if trivial else (0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4)
    )

    def signed(top: float) -> Tensor:
        ramp = torch.linspace(0, top, magnitudes).double()
        return torch.stack([ramp, -ramp])

    thousandths = (1000 * (1 + signed(blend))).round()
    of = dict.fromkeys(OPERATIONS, torch.zeros(2, magnitudes, dtype=torch.float64))
    of |= {"ShearX": signed(shear), "ShearY": signed(shear), "Rotate": signed(angle)}
    of |= {"TranslateX": signed(across).trunc(), "TranslateY": signed(down).trunc()}
    of |= {"Brightness": 1 + signed(blend), **dict.fromkeys(("Contrast", "Color", "Sharpness"), thousandths)}
    of["Posterize"] = (8 - torch.arange(magnitudes) / ((magnitudes - 1) / bits)).round().double().expand(2, -1)
    of["Solarize"] = 255 * torch.linspace(1, 0, magnitudes).double().expand(2, -1)
    return torch.stack([of[name] for name in OPERATIONS])


def _inverse_affine(operation: Tensor, amount: Tensor, height: int, width: int) -> Tensor:
    """(6, B) float32: xx, xy, x, yx, yy, y of the source's place, from an output pixel's place; both from the centre."""
    shear_x, shear_y, right, down, degrees = (torch.where(operation == n, amount, 0.0) for n in range(len(_MOVES)))
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    # Shears leave the image's upper left corner where it is, rotations its centre.
    x, y = shear_x * height / 2 - right, shear_y * width / 2 - down
    return torch.stack([cosine, shear_x - sine, x, shear_y + sine, cosine, y]).float()


def _resample(images: Tensor, source: Tensor, fill: int) -> Tensor:
    """The images (B, H, W, C), each output pixel taken from the pixel nearest to its place in the source."""
    count, height, width, channels = images.shape
    xx, xy, x, yx, yy, y = source[..., None]
    column = torch.arange(width, device=images.device) - (width - 1) / 2
    row = torch.arange(height, device=images.device) - (height - 1) / 2
    # A sum of a part for each row and a part for each column: nothing is multiplied for each pixel.
    from_column = (xx * column)[:, None, :] + (xy * row + x + (width - 1) / 2 - _TIE)[:, :, None]
    from_row = (yx * column)[:, None, :] + (yy * row + y + (height - 1) / 2 - _TIE)[:, :, None]
    from_column, from_row = from_column.ceil_(), from_row.ceil_()
    inside = (from_column >= 0) & (from_column < width) & (from_row >= 0) & (from_row < height)
    place = torch.where(inside, from_row * width + from_column, height * width).int()
    place += (height * width + 1) * torch.arange(count, dtype=torch.int32, device=images.device)[:, None, None]
    pixels = torch.cat([images.flatten(1, 2), images.new_full((count, 1, channels), fill)], dim=1)
    return pixels.flatten(0, 1).index_select(0, place.flatten()).view_as(images)


def _look_up(images: Tensor, amount: Tensor, groups: dict[str, slice]) -> None:
    """Replace grey levels, in place, by each image's table of 256 for each channel."""
    levels = torch.arange(256, device=images.device).view(1, 256, 1)
    whole = slice(groups[_TABLES[0]].start, groups[_TABLES[-1]].stop)
    chosen = images[whole]
    if not len(chosen):
        return
    table = chosen.new_empty(len(chosen), 256, chosen.shape[-1])
    makers = (_brightness, _contrast, _posterize, _solarize, _autocontrast, _equalize)
    for group, maker in zip(groups.values(), makers, strict=True):
        if group.start < group.stop:
            rows = slice(group.start - whole.start, group.stop - whole.start)
            table[rows] = maker(levels, images[group], amount[group].view(-1, 1, 1))
    count, channels = len(chosen), chosen.shape[-1]
    first = torch.arange(count, dtype=torch.int32, device=images.device)[:, None] * (256 * channels)
    first = (first + torch.arange(channels, dtype=torch.int32, device=images.device))[:, None, None]
    place = torch.add(first, chosen, alpha=channels)
    images[whole] = table.flatten().index_select(0, place.flatten()).view_as(chosen)


def _brightness(levels: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return (levels * factor).clamp_(0, 255)


def _contrast(levels: Tensor, images: Tensor, thousandths: Tensor) -> Tensor:
    """A blend with the mean of the grey image; in whole numbers, since a mean is none."""
    pixels, share = images.shape[1] * images.shape[2], thousandths.long()
    total = _grey(images.int()).sum((1, 2))[:, :, None]
    blended = levels * share * pixels + total * (1000 - share)
    return blended.div_(1000 * pixels, rounding_mode="floor").clamp_(0, 255)


def _posterize(levels: Tensor, images: Tensor, bits: Tensor) -> Tensor:
    dropped = 8 - bits.long()
    return levels >> dropped << dropped


def _solarize(levels: Tensor, images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(levels >= threshold, 255 - levels, levels)


def _autocontrast(levels: Tensor, images: Tensor, unused: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one level stays as it is."""
    pixels = images.flatten(1, 2)
    low, high = pixels.amin(1, keepdim=True).float(), pixels.amax(1, keepdim=True).float()
    flat = low == high
    low, scale = low.masked_fill(flat, 0), ((high - low) * (1 / 255)).masked_fill(flat, 1)
    return ((levels - low) / scale).clamp_(0, 255)


def _equalize(levels: Tensor, images: Tensor, unused: Tensor) -> Tensor:
    """Spread each channel's levels evenly, by PIL's rule (ImageOps.equalize); a channel with too few stays as it is."""
    count, _, _, channels = images.shape
    pixels = images.flatten(1, 2).transpose(1, 2).flatten(0, 1).long()
    # One dimension, because only there is the sum deterministic by torch's own account on every device.
    place = pixels + 256 * torch.arange(len(pixels), device=images.device)[:, None]
    histogram = torch.zeros(256 * len(pixels), dtype=torch.int64, device=images.device)
    histogram = histogram.scatter_add_(0, place.flatten(), torch.ones_like(place).flatten()).view(-1, 256)
    last = histogram.gather(1, pixels.amax(1, keepdim=True))
    step = (pixels.shape[1] - last) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = torch.where(step > 0, table, levels.view(1, 256))
    return table.view(count, channels, 256).transpose(1, 2)


def _grey(images: Tensor) -> Tensor:
    """(B, H, W, 1) int32, rounded down: the luma of three channels, otherwise the mean of all."""
    if images.shape[-1] != 3:
        return images.sum(-1, keepdim=True, dtype=torch.int32) // images.shape[-1]
    red, green, blue = images.split(1, dim=-1)
    grey: Tensor = (2989 * red + 5870 * green + 1140 * blue) // 10000
    return grey


def _smooth(images: Tensor) -> Tensor:
    """(B, H, W, C) int32: the mean over 3 × 3 pixels with the centre counted five times; the border stays as it is."""
    height, width = images.shape[1:3]
    if height < 3 or width < 3:
        return images
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = images.clone()
    inner = smooth[:, 1:-1, 1:-1]
    inner.copy_((2 * (total + 4 * inner) + 13) // 26)
    return smooth


def _blend(images: Tensor, degenerate: Tensor, thousandths: Tensor) -> Tensor:
    """int32 images and what they are blended with, rounded down to 0..255."""
    return ((images * thousandths + degenerate * (1000 - thousandths)) // 1000).clamp_(0, 255)
