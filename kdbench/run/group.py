"""One run in several processes, a GPU each: who is who, what a rank has of a step's batch, and what all of them add up.

Randomness has no state (kdbench/streams.py), so every rank works out the whole batch of a step on the CPU and then
takes its own anchors with all that belongs to them: together the ranks see what one process would see. Rank r's loss
counts with its share w_r of the images (Σ w_r = 1) and gradients are summed over the ranks, hence the sum is the gradient
of the whole batch's mean, however unequal the shares.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kdbench.errors import RunError
from kdbench.method.share import Share

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a rank waits for the others: longer than the first one needs to read the data or to evaluate meanwhile."""

JOIN = datetime.timedelta(minutes=5)
"""How long a rank tries to reach the process that all ranks meet at, which is there before any of them is started."""

HEAR_OUT = datetime.timedelta(seconds=5)
"""How long a process whose neighbour is gone waits for that one's last words."""


class GroupBroken(Exception):
    """Another process of the group is gone: not the run's fault, and it resumes in a new group."""


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    """Around what needs all processes: that one of them is gone is a `GroupBroken`."""
    try:
        yield
    except RuntimeError as error:  # gloo's, and torch.distributed.DistError
        raise GroupBroken(str(error)) from error


@dataclass(frozen=True)
class Group:
    """The processes of one run, seen from one of them; `Group()` is a run in a single process.

    All methods but `say` and `hear` are collective: every rank calls them, in the same order.

    Attributes:
        rank: from 0; the `first` rank alone writes files, evaluates and reports.
        size: number of ranks.
        device: what this rank computes on; None in a single process, which decides for itself.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    _store: Any = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        return self.rank == 0

    @staticmethod
    @contextlib.contextmanager
    def from_environment(device: str) -> Iterator[Group]:
        """Join the group that the environment names, and leave it at the end.

        torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. A group of one is a single process,
        which needs no communication.

        Args:
            device: as `Machine.device` has it: "cpu" (gloo), "cuda" (NCCL; each rank has the GPU of its LOCAL_RANK), or
                "auto".

        Raises:
            RunError: the environment names no group, or there is no GPU for this rank.
        """
        try:
            rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        except (KeyError, ValueError):
            raise RunError("this process is not one of a group: RANK, WORLD_SIZE and LOCAL_RANK are not set") from None
        if size == 1:
            yield Group()
            return
        kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        if kind == "cuda":
            if local >= torch.cuda.device_count():
                raise RunError(f"rank {rank} needs GPU {local} of this machine, which has {torch.cuda.device_count()}")
            torch.cuda.set_device(place)
        store, *_ = next(iter(dist.rendezvous("env://", rank, size, timeout=JOIN)))
        store.set_timeout(TIMEOUT)
        dist.init_process_group(
            "nccl" if kind == "cuda" else "gloo",
            store=dist.PrefixStore("collectives", store), rank=rank, world_size=size, timeout=TIMEOUT,
        )  # fmt: skip
        try:
            yield Group(rank, size, place, dist.PrefixStore("kdbench", store))
        finally:
            dist.destroy_process_group()

    def share(self, anchors: int) -> Share:
        """The part of every step that this rank computes.

        Raises:
            RunError: there are fewer anchors than ranks.
        """
        if anchors < self.size:
            raise RunError(
                f"a step of {anchors} anchor{'s' * (anchors > 1)} cannot be shared by {self.size} GPUs: "
                "take fewer, or a larger Train.batch_size"
            )
        return Share() if self.size == 1 else _Part(self, anchors)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the ranks of tensors of one shape, without gradient."""
        if self.size == 1:
            return x
        total = x.detach().clone(memory_format=torch.contiguous_format)
        with _speaking():
            dist.all_reduce(total)
        return total

    def stack(self, x: Tensor) -> Tensor:
        """(size, …): the tensors of all ranks, which have one shape, without gradient."""
        if self.size == 1:
            return x.unsqueeze(0)
        x = x.detach().contiguous()
        every = [torch.empty_like(x) for _ in range(self.size)]
        with _speaking():
            dist.all_gather(every, x)
        return torch.stack(every)

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Replace every gradient by its sum over the ranks, in place.

        They are those of the same parameters on all ranks: as the ranks run the same code, a parameter that gets none on
        one rank gets none on any.
        """
        if self.size == 1 or not gradients:
            return
        # One flat sum after the backward pass instead of DistributedDataParallel: that wraps a `forward`, which methods
        # do not have, averages over ranks whatever their shares, and must know of parameters without gradient. What it
        # gains, to communicate during the backward pass, is little for networks of this size.
        flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view(gradient.shape))

    def from_first(self, compute: Callable[[], float]) -> float:
        """Return what `compute` returns on the first rank, which alone calls it."""
        if self.size == 1:
            return compute()
        value = torch.tensor(compute() if self.first else 0.0, dtype=torch.float64, device=self.device)
        with _speaking():
            dist.broadcast(value, src=0)
            return value.item()

    def check_equal(self, numbers: Mapping[str, int]) -> None:
        """Raises RunError on all ranks if they do not have the same numbers (64 bits); the names say what differs."""
        if self.size == 1:
            return
        every = self.stack(torch.tensor(list(numbers.values()), device=self.device))
        differs = (every != every[0]).any(dim=0).tolist()
        for name, different in zip(numbers, differs, strict=True):
            if different:
                raise RunError(f"{name} are not the same on all {self.size} GPUs")

    def say(self, topic: str, message: str) -> str:
        """Tell all ranks, unless another has said something of this topic before; returns what stands."""
        if self._store is None:
            return message
        try:
            return str(self._store.compare_set(topic, "", message), "utf-8")
        except RuntimeError:  # whoever holds the store has ended: nobody listens any more
            return message

    def hear(self, topic: str) -> str:
        """Wait until a rank has said something of this topic; only in a group of several.

        Raises:
            GroupBroken: nobody has, for `TIMEOUT`, or nobody is there any more.
        """
        with _speaking():
            return str(self._store.get(topic), "utf-8")

    def last_words(self, topic: str) -> str | None:
        """The last message of another process on this topic, if there was one."""
        with contextlib.suppress(RuntimeError):
            self._store.wait([topic], HEAR_OUT)
            return str(self._store.get(topic), "utf-8")
        return None


def checksum(tensors: Iterable[Tensor]) -> int:
    """Sum of all bits in words of each tensor's own width: exact, whatever the order in which a device adds."""
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    total = 0
    for x in tensors:
        bits = x.detach().contiguous().reshape(-1).view(words[x.element_size()])
        total += int(bits.sum(dtype=torch.int64))
    return total % 2**63


class _Part(Share):
    """Rank r's part of `anchors` anchors; the first ranks have one more where the number does not divide."""

    def __init__(self, group: Group, anchors: int):
        each, more = divmod(anchors, group.size)
        self.group = group
        self.counts = [each + (rank < more) for rank in range(group.size)]
        first = sum(self.counts[: group.rank])
        self._anchors = slice(first, first + self.counts[group.rank])
        self.weight = self.counts[group.rank] / anchors

    def own(self, whole: Tensor) -> Tensor:
        part: Tensor = whole.unflatten(0, (-1, sum(self.counts)))[:, self._anchors].flatten(0, 1)
        return part

    def gather(self, x: Tensor) -> Tensor:
        anchors = self.counts[self.group.rank]
        if len(x) % anchors:
            raise ValueError(f"gather takes rows in blocks of this rank's {anchors} anchors, not {len(x)} rows")
        gathered: Tensor = _Gather.apply(x, self)
        return gathered

    def mean(self, value: Tensor) -> Tensor:
        return self.group.sum(value * self.weight)

    def summed(self, value: Tensor) -> Tensor:
        return value / self.weight

    def weighted(self, loss: Tensor) -> Tensor:
        return loss * self.weight

    def whole(self, x: Tensor) -> Tensor:
        """The rows of all ranks in the order of the whole batch, without gradient."""
        blocks = len(x) // self.counts[self.group.rank]
        missing = max(self.counts) * blocks - len(x)
        padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
        rows = self.group.stack(padded)
        parts = [rows[r, : n * blocks].unflatten(0, (blocks, n)) for r, n in enumerate(self.counts)]
        return torch.cat(parts, dim=1).flatten(0, 1)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, part: _Part) -> Tensor:
        ctx.part = part
        return part.whole(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.part.own(ctx.part.group.sum(gradient)), None
