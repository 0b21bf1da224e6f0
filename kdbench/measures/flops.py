"""FLOPs of single classifiers, and of training; as everywhere, a multiplication and an addition are two.

Matrix products, convolutions and attention count, by the formulas of torch's own counter; element-wise operations do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from kdbench import eager
from kdbench.measures.evaluation import OWN
from kdbench.method import Batch, Method

Losses = Callable[[Batch], Mapping[str, Tensor]]


def of_method(
    method: Method,
    batch: Batch,
    precision: torch.autocast,
    losses: Sequence[tuple[Losses, float]] = (),
    images: int | None = None,
) -> dict[str, int]:
    """The entries `cost.flops`, of one image through the deployed network, `cost.flops.*`, of one image at each exit, if
    there are any, and `cost.flops_training`.

    Args:
        method: a copy that is not needed afterwards, because it takes a step.
        batch: a whole training batch.
        precision: autocast context in which losses are computed.
        losses: losses of each phase and its share of the steps; by default `method.losses` alone.
        images: number that passes through the student in a step; by default that of the batch.
    """
    image = torch.zeros_like(batch.images[:1])
    method.eval()
    exits = of_outputs(lambda: {**method.exits(image), OWN: method.deployed()(image)})
    entries = {"cost.flops": exits.pop(OWN)}
    if len(exits) > 1:
        entries |= {f"cost.flops.{name}": number for name, number in exits.items()}
    method.train()
    with batch.streams.as_global("flops"), precision:
        total = sum(share * of_losses(function, batch) for function, share in losses or [(method.losses, 1.0)])
    return {**entries, "cost.flops_training": round(total / (images or len(batch.images)))}


@torch.no_grad()
def of_outputs(compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, int]:
    """FLOPs that each tensor which `compute` returns depends on, by name, and those of all together as "ensemble".

    An operation that several of them need counts once in "ensemble", even if `compute` repeats it; one that none of them
    needs does not count. `compute` must not call compiled code.
    """
    with _Tracer() as tracer:
        outputs = compute()
    needed = {name: tracer.needs(output) for name, output in outputs.items()}
    every = frozenset[int]().union(*needed.values())
    return {name: sum(map(tracer.flops.__getitem__, operations)) for name, operations in needed.items()} | {
        "ensemble": sum(map(tracer.flops.__getitem__, every))
    }


def through(compute: Callable[[], Mapping[str, Tensor]], last: str) -> dict[str, int]:
    """FLOPs of an image through all classifiers up to and with each, from the one that needs the fewest to `last`, by name.

    Args:
        compute: see `of_outputs`; logits (B, K) by classifier.
    """
    alone = of_outputs(compute)
    order = sorted((name for name in alone if name not in ("ensemble", last)), key=lambda name: alone[name])

    def together() -> dict[str, Tensor]:
        outputs = compute()
        names = [*order, last]
        return {name: torch.cat([outputs[each] for each in names[: place + 1]]) for place, name in enumerate(names)}

    counted = of_outputs(together)
    return {name: counted[name] for name in [*order, last]}


def of_losses(losses: Losses, batch: Batch) -> int:
    """FLOPs of one call of `losses`, forward only.

    The call changes what a training step changes: pass a method that is not needed afterwards.
    """
    with FlopCounterMode(display=False) as counter:
        losses(batch)
    return int(counter.get_total_flops())


class _Tracer(TorchDispatchMode):
    """Records the operations that every tensor came from.

    Contents are numbered: the same operation on the same contents gives the same number, so that what is done twice is
    recognised. They belong to storages, because views share them and operations in place change them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: dict[int, int] = {}
        self._numbers: dict[Any, int] = {}
        self._contents: dict[int, int] = {}
        self._needs: dict[int, frozenset[int]] = {}
        self._alive: list[Any] = []  # else another tensor might get a storage's address

    def needs(self, tensor: Tensor) -> frozenset[int]:
        """The operations that count in `flops`."""
        return self._needs.get(_storage(tensor), frozenset())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        counted = func._overloadpacket in flop_registry
        if not counted:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        leaves = tree_leaves((args, kwargs))
        read = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (str(func), *(self._described(leaf) for leaf in leaves))
        operation = self._numbers.setdefault(key, len(self._numbers))
        needs = frozenset[int]().union(*map(self.needs, read))
        out = func(*args, **kwargs)
        if counted:
            self.flops[operation] = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
            needs |= {operation}
        before = {_storage(tensor) for tensor in read}
        for place, tensor in enumerate(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            storage = _storage(tensor)
            if storage not in before or func._schema.is_mutable:
                self._contents[storage] = self._numbers.setdefault((operation, place), len(self._numbers))
                self._needs[storage] = needs
            self._alive.append(tensor)
        self._alive += read
        return out

    def _described(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return repr(leaf)
        storage = _storage(leaf)
        content = self._contents.setdefault(storage, self._numbers.setdefault(("given", storage), len(self._numbers)))
        return content, leaf.shape, leaf.stride(), leaf.storage_offset(), leaf.dtype


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


for _mode in (_Tracer, *vars(flop_counter).values()):
    if isinstance(_mode, type) and issubclass(_mode, TorchDispatchMode):
        eager.unmarked(_mode)
