"""The modules of a library's model that end its stages, and their outputs as maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench.errors import UserError

STAGES = 4
"""Deepest stage maps that are offered, as in residual networks; the shallower ones are the stem."""

_POOLING = ("Pool", "Flatten", "Identity", "Dropout")
"""Parts of names of modules that are not the end of a stage."""


class _Output(NamedTuple):
    """What a module of a network returned: the side of its map, of dimensions 4, or of its grid of tokens, of dimensions 3."""

    name: str
    module: nn.Module
    side: int
    dimensions: int


@torch.no_grad()
def stages(network: nn.Module, fc: nn.Module, model: str, image: tuple[int, int, int]) -> tuple[str, ...]:
    """The names of the modules that end the stages, shallowest first.

    Args:
        fc: the classifier.
        model: the name of the network, for the sentence.
        image: (channels, height, width) that it is made for.

    Raises:
        UserError: the classifier does not give the logits alone, or there are no maps.
    """
    outputs: list[_Output] = []

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and len(output) == 1 and _is_map(output):
                outputs.append(_Output(name, module, as_map(output).shape[-1], output.dim()))

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in network.named_modules() if name]
    pooled: list[Tensor] = []
    was_training = network.training
    network.eval()
    try:
        with entering(fc, pooled):
            logits = network(torch.zeros(1, *image))
        is_last = torch.allclose(fc(pooled[-1]), logits)
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    names = _of_blocks(network, outputs) or _of_resolutions(outputs)
    if not is_last or not names:
        what = "stage maps" if is_last else "single linear classifier at its end"
        raise UserError(f"{model} has no {what}, which every student and teacher needs")
    return names


def _of_resolutions(outputs: list[_Output]) -> tuple[str, ...]:
    """The last module of each resolution on the way from the image to the deepest map."""
    last: dict[int, str] = {}
    largest = 1
    for output in reversed(outputs):
        is_pooling = any(word in type(output.module).__name__ for word in _POOLING)
        if output.dimensions != 4 or output.side <= 1 or is_pooling or _is_inside(output, outputs):
            continue
        # Squeeze-excitation makes small maps inside blocks, which are followed by larger ones.
        if output.side > largest:
            largest = output.side
            last[largest] = output.name
    return tuple(last[side] for side in sorted(last, reverse=True)[-STAGES:])


def _is_inside(output: _Output, outputs: list[_Output]) -> bool:
    """True for a map inside a block that returns a smaller one: the block is where the resolution falls."""
    for block in outputs:
        if output.name.startswith(f"{block.name}.") and block.side < output.side:
            sides = {each.side for each in outputs if each.name.startswith(f"{block.name}.") and each.side > 1}
            if len(sides) <= 2:
                return True
    return False


def _of_blocks(network: nn.Module, outputs: list[_Output]) -> tuple[str, ...]:
    """The blocks at the quarters of a transformer's depth; none for a network whose resolution falls."""
    tokens = {output.name: output.side for output in outputs if output.dimensions == 3}
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Sequential, nn.ModuleList)):
            continue
        children = [f"{name}.{child}" if name else child for child, _ in module.named_children()]
        blocks = [child for child in children if child in tokens]
        if len(blocks) >= STAGES and len({tokens[block] for block in blocks}) == 1:
            return tuple(blocks[(number + 1) * len(blocks) // STAGES - 1] for number in range(STAGES))
    return ()


def _is_map(x: Tensor) -> bool:
    """True for tokens, and for a square map in either order."""
    return x.dim() == 3 or (x.dim() == 4 and x.shape[2] in (x.shape[1], x.shape[3]))


def as_map(x: Tensor) -> Tensor:
    """A map (B, C, H, W) of one in that order, of one with the channels last, or of tokens (B, N, C) that form a square grid.

    Class and other tokens in front of the grid are left out.
    """
    if x.dim() == 3:
        side = math.isqrt(x.shape[1])
        grid: Tensor = x[:, x.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
        return grid
    _, first, second, third = x.shape
    if second != third and first == second:
        return x.permute(0, 3, 1, 2)
    return x


@contextmanager
def recorded(network: nn.Module, names: Iterable[str], into: dict[str, Tensor]) -> Iterator[None]:
    """Keep what the modules of these names return."""

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            into[name] = output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def entering(module: nn.Module, into: list[Tensor]) -> Iterator[None]:
    """Keep what enters a module."""
    handle = module.register_forward_pre_hook(lambda _, inputs: into.append(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
