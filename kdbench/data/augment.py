"""Random crop, mirror image, policy, cutout and random erasing for a whole batch at once, on the device, from uint8 images.

What is random is drawn apart from what is computed: `Draws` come from a generator on the CPU, so that the same images are
augmented in the same way on every machine, and for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdbench.config.settings import Augment, Dataset, Settings
from kdbench.config.switches import NO_CROP, NO_MIX, Mix, ResizedCrop, Strong
from kdbench.data import erasing, resized_crop
from kdbench.data.autoaugment import AutoAugment
from kdbench.data.images import Images, Wanted
from kdbench.data.randaugment import Policy, RandAugment
from kdbench.pinned import to_device


class Draws(NamedTuple):
    """The random choices for B images, int64.

    Attributes:
        top, left: (B,) corner of the crop in the padded image.
        mirror: (B,) 1 to mirror.
        cut_y, cut_x: (B,) centre of the cutout.
        operations: (B, n, 3) what the policy does, as `Policy.draw` has it; n is 0 for a kind without a policy.
        crop: (B, 1) the number that decides the resized crop (`resized_crop.box`); (B, 0) without resized crops.
        erase: (B, 4) top, left, height and width of the box that is erased; (B, 0) for a kind without random erasing.
    """

    top: Tensor
    left: Tensor
    mirror: Tensor
    cut_y: Tensor
    cut_x: Tensor
    operations: Tensor
    crop: Tensor
    erase: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """`function` of each choice: `draws.map(share.own)` are those for this rank's images."""
        return Draws(*map(function, self))

    def pick(self, which: Tensor | slice) -> Draws:
        return self.map(lambda choice: choice[which])

    def to(self, device: torch.device) -> Draws:
        """All choices on the device but the operations and resized crops, which are read on the CPU."""
        if device.type == "cpu":
            return self
        together = to_device(torch.stack([*self[:5], *self.erase.unbind(1)]), device)  # one copy for all
        top, left, mirror, cut_y, cut_x = together[:5].unbind()
        return Draws(top, left, mirror, cut_y, cut_x, self.operations, self.crop, together[5:].t())

    @staticmethod
    def join(parts: list[Draws]) -> Draws:
        """The choices for several sets of images, of one kind."""
        return Draws(*(torch.cat(choices) for choices in zip(*parts, strict=True)))


class Augmenter:
    """Turns places in a set of images into normalised, augmented batches.

    Args:
        images: the images; their device is that of the batches.
        settings: the augmentation of the kind "recipe".
        dataset: mean and standard deviation for normalisation, and whether images may be mirrored.
        strong: policy and cutout of the kind "strong"; without it there is only the kind "recipe".
        crop: resized crops, in place of the padded ones.
        mix: how the images of a batch are mixed, which is done by the loop.
    """

    def __init__(
        self,
        images: Images,
        settings: Augment,
        dataset: Dataset,
        strong: Strong | None = None,
        crop: ResizedCrop = NO_CROP,
        mix: Mix = NO_MIX,
    ):
        self.height, self.width, _ = images.shape
        self.settings = settings
        self.mix = mix
        self.flip = settings.flip and dataset.mirrored
        self.crop = crop
        self.images = images
        self.pad = 0 if crop.is_on else round(settings.padding * self.width)
        self.cut = {"recipe": round(settings.cutout * self.width)}
        self.policy = {"recipe": policy_of(settings, self.height, self.width, settings.fill)}
        if strong:
            self.cut["strong"] = round(strong.cutout * self.width)
            self.policy["strong"] = policy_of(strong, self.height, self.width, settings.fill)
        # Padded once and for all where they are in memory: a crop is then nothing but an index.
        self._pixels = self._padded(images.images).flatten(0, 2) if images.in_memory and not crop.is_on else None
        device = images.labels.device
        self.scale, self.shift = _normalisation(dataset, device)
        self._rows = torch.arange(self.height, device=device)
        self._columns = torch.arange(self.width, device=device)

    @classmethod
    def of(cls, images: Images, settings: Settings) -> Augmenter:
        """The augmenter of a run for its training images."""
        augment = settings.augment.changed_by(settings.control)
        return cls(images, augment, settings.dataset, settings.strong, settings.resized_crop, settings.mix)

    def draw(self, count: int, generator: torch.Generator, kind: str = "recipe") -> Draws:
        """Random choices for `count` images, on the CPU.

        All are drawn whatever the settings, so that one switch moves no other choice. Those that both kinds make come
        first and are the same for both.

        Raises:
            ValueError: this augmenter does not have the kind.
        """

        def whole(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=generator)

        policy = self._policy_of(kind)
        crop = whole(2 * self.pad + 1), whole(2 * self.pad + 1), whole(2), whole(self.height), whole(self.width)
        operations = torch.empty(count, 0, 3, dtype=torch.int64)
        if policy and kind != "recipe":
            operations = policy.draw(count, generator)
        numbers = (
            torch.randint(2**62, (count, 1), generator=generator) if self.crop.is_on else crop[0].view(-1, 1)[:, :0]
        )
        if policy and kind == "recipe":  # behind the resized crop, which it does not move
            operations = policy.draw(count, generator)
        erase = torch.empty(count, 0, dtype=torch.int64)
        if self._erases(kind):
            chance, area = self.settings.erasing, self.settings.erasing_max_area
            erase = erasing.draw(count, (self.height, self.width), chance, area, generator)
        return Draws(*crop, operations, numbers, erase)

    def wanted(self, index: Tensor, draws: Sequence[Draws]) -> Wanted:
        """The images to be fetched for views of the images at `index` (B,), both on the CPU; see `Images.fetch`."""
        if not self.crop.is_on:
            return Wanted(index)  # all views are made of the same pixels
        return Wanted(index.repeat(len(draws)), torch.cat([each.crop[:, 0] for each in draws]))

    def __call__(self, index: Tensor, draws: Draws, kind: str = "recipe", fetched: Tensor | None = None) -> Tensor:
        """The images at `index` (B,), augmented: (B, C, H, W) float32, normalised, channels last in memory.

        Args:
            index: places of the images, on their device.
            draws: draws for the same B images and kind, brought to the device by `Draws.to`.
            fetched: (B, H, W, C) uint8, the images as `Images.fetch` has them; None where they are in memory.

        Raises:
            ValueError: this augmenter does not have the kind, or the draws are for another one.
        """
        policy = self._policy_of(kind)
        if draws.operations.shape[1] != (policy.operations if policy else 0):
            raise ValueError(f"the draws are not for the kind '{kind}'")
        batch = self._crop(index, draws, fetched)
        if policy:
            batch = policy(batch, draws.operations)
        values = batch.float()
        # In place: a second copy takes as long as the arithmetic.
        batch = torch.addcmul(self.shift, values, self.scale, out=values)
        if self.cut[kind]:
            batch = batch * self._outside_cut(draws, self.cut[kind])[..., None]
        if self._erases(kind):
            top, left, height, width = draws.erase.t()
            batch = batch * self._outside(top, left, height[:, None], width[:, None])[..., None]
        return batch.permute(0, 3, 1, 2)

    def views(
        self, index: Tensor, draws: Sequence[Draws], kinds: Sequence[str], fetched: Tensor | None = None
    ) -> Tensor:
        """Several views of each image, in blocks by view: (V · B, C, H, W), image b of view v at v · B + b.

        Args:
            index: (B,) places of the images, on their device.
            draws: draws of each view, on the CPU.
            kinds: kind of each view.
            fetched: the images that `wanted` asks for; None where they are in memory.

        Raises:
            ValueError: see `__call__`; or the numbers of draws and kinds differ.
        """
        if fetched is None:
            parts: Sequence[Tensor | None] = [None] * len(draws)
        else:
            parts = fetched.chunk(len(draws)) if self.crop.is_on else [fetched] * len(draws)
        views = [
            self(index, each.to(index.device), kind, part) for each, kind, part in zip(draws, kinds, parts, strict=True)
        ]
        return views[0] if len(views) == 1 else torch.cat(views)

    def _erases(self, kind: str) -> bool:
        return kind == "recipe" and self.settings.erasing > 0

    def _policy_of(self, kind: str) -> Policy | None:
        if kind not in self.policy:
            raise ValueError(f"this augmenter makes views of the kinds {', '.join(self.policy)}, not '{kind}'")
        return self.policy[kind]

    def _padded(self, images: Tensor) -> Tensor:
        fill = self.settings.fill
        return torch.nn.functional.pad(images, (0, 0, *[self.pad] * 4), value=fill) if self.pad else images

    def _crop(self, index: Tensor, draws: Draws, fetched: Tensor | None) -> Tensor:
        """(B, H, W, C) uint8, cropped and mirrored."""
        pixels, place = self._pixels, index
        if pixels is None:
            images = self._resized(index, draws) if fetched is None else fetched
            if not self.pad:
                return self._mirrored(images, draws.mirror)
            pixels, place = self._padded(images).flatten(0, 2), torch.arange(len(index), device=index.device)
        columns = self._columns.expand(len(index), -1)
        if self.flip:
            columns = torch.where(draws.mirror[:, None] == 1, self.width - 1 - columns, columns)
        height, width = self.height + 2 * self.pad, self.width + 2 * self.pad
        rows = place[:, None] * height + draws.top[:, None] + self._rows
        chosen = rows[:, :, None] * width + (columns + draws.left[:, None])[:, None, :]
        batch = pixels.index_select(0, chosen.flatten())
        return batch.view(len(index), self.height, self.width, -1)

    def _mirrored(self, images: Tensor, mirror: Tensor) -> Tensor:
        if not self.flip:
            return images
        # Whole images are copied: three times as fast as an index for each pixel, and without waiting for the device.
        count = len(images)
        return torch.cat([images, images.flip(2)])[mirror * count + torch.arange(count, device=images.device)]

    def _resized(self, index: Tensor, draws: Draws) -> Tensor:
        """The resized crops of images in memory."""
        numbers = draws.crop[:, 0].tolist()
        boxes = [resized_crop.box(number, self.width, self.height, self.crop) for number in numbers]
        return resized_crop.resized(self.images.take(index), boxes)

    def _outside_cut(self, draws: Draws, cut: int) -> Tensor:
        """(B, H, W), 0 inside a square of side `cut` and 1 outside; the square may reach over the edge, as in the paper."""
        half = cut // 2
        return self._outside(draws.cut_y - half, draws.cut_x - half, cut, cut)

    def _outside(self, top: Tensor, left: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
        """(B, H, W), 0 inside a box of each image and 1 outside; corners (B,), sides (B, 1) or those of all."""
        from_top, from_left = self._rows - top[:, None], self._columns - left[:, None]
        rows = (from_top >= 0) & (from_top < height)
        columns = (from_left >= 0) & (from_left < width)
        return (~(rows[:, :, None] & columns[:, None, :])).float()


def policy_of(given: Augment | Strong, height: int, width: int, fill: int) -> Policy | None:
    """The operations on images of this size, if there are any."""
    if given.policy == "none":
        return None
    return (
        AutoAugment(height, width, fill) if given.policy == "autoaugment" else RandAugment(given, height, width, fill)
    )


def normalise(images: Tensor, dataset: Dataset) -> Tensor:
    """(B, H, W, C) uint8 as (B, C, H, W) float32, normalised and not augmented."""
    scale, shift = _normalisation(dataset, images.device)
    return torch.addcmul(shift, images.float(), scale).permute(0, 3, 1, 2)


def _normalisation(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = to_device(torch.tensor([dataset.mean, dataset.std]), device)
    return 1 / (255 * std), -mean / std
