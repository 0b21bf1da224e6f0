"""One update of the parameters, in parts: what `Method.update` is given to go from named terms to moved parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdbench.errors import unknown
from kdbench.method.share import Share

Gradient = Sequence[Tensor | None]
"""One entry for each parameter, None where the loss does not reach it."""


class Update:
    """The parts of an update. All of it is exact on several GPUs, and clips as the recipe says.

    Args:
        parameters: those that the phase trains.
        optimisers: by name, as `Method.optimisers` gave them.
        share: of this rank.
        sum_gradients: replaces tensors by their sum over the ranks, in place.
        clip_norm: largest L2 norm of the gradient; 0: no clipping.

    Attributes:
        loss: the sum of all terms of this step.
        rate: the schedule's learning rate at this step.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        optimisers: Mapping[str, torch.optim.Optimizer],
        share: Share,
        sum_gradients: Callable[[Sequence[Tensor]], None],
        clip_norm: float,
    ):
        self.parameters = parameters
        self.optimisers = optimisers
        self.loss = torch.zeros(())
        self.rate = 0.0
        self._share = share
        self._sum = sum_gradients
        self._clip_norm = clip_norm

    def set_rate(self, rate: float) -> None:
        """Give every parameter group its rate; for the loop."""
        self.rate = rate
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("rate_factor", 1.0)

    @staticmethod
    def total(terms: Mapping[str, Tensor]) -> Tensor:
        """The sum of terms, a scalar."""
        return torch.stack([term.float() for term in terms.values()]).sum()

    def backward(self, loss: Tensor) -> None:
        """Put the gradient of the whole batch's loss into `.grad` of all parameters, which had another one before or none."""
        self.backward_each([loss])

    def backward_each(self, losses: Iterable[Tensor]) -> None:
        """As `backward` of the sum of losses; the graph of each is freed before the next one is taken."""
        for parameter in self.parameters:
            parameter.grad = None
        for loss in losses:
            self._share.weighted(loss).backward()
        self._sum([p.grad for p in self.parameters if p.grad is not None])

    def gradient(self, loss: Tensor, keep_graph: bool = False) -> list[Tensor | None]:
        """The gradient of the whole batch's loss, one entry for each parameter; None where it does not reach one.

        Args:
            keep_graph: for a further `gradient` of terms of the same forward pass.
        """
        computed = torch.autograd.grad(
            self._share.weighted(loss), self.parameters, retain_graph=keep_graph, allow_unused=True
        )
        # Copies, because several parameters may get one and the same tensor, which a change in place would change twice.
        gradients: list[Tensor | None] = [None if g is None else g.clone() for g in computed]
        self._sum([g for g in gradients if g is not None])
        return gradients

    def set_gradient(self, *gradients: Gradient) -> None:
        """Put the sum of gradients into `.grad` of the parameters."""
        for parameter, gradient in zip(self.parameters, added(*gradients), strict=True):
            parameter.grad = gradient

    def clip(self, *gradients: Gradient, norm: float | None = None) -> None:
        """Scale gradients in place, all by the one factor that brings the L2 norm of their sum down to `norm`.

        For gradients that an optimiser takes apart, or for those of one term; `step` clips what is in `.grad` itself.

        Args:
            norm: the recipe's by default; 0: no clipping.
        """
        norm = self._clip_norm if norm is None else norm
        total = [g for g in added(*gradients) if g is not None]
        if not norm or not total:
            return
        factor = (norm / (torch.nn.utils.get_total_norm(total) + 1e-6)).clamp(max=1)
        for gradient in gradients:
            for part in gradient:
                if part is not None:
                    part.mul_(factor)

    def step(self, *names: str) -> None:
        """Take a step of the optimisers of these names, all by default, with their gradient clipped as the recipe says.

        The norm is that of all parameters of these optimisers together, and of no others.

        Raises:
            UserError: there is no optimiser of that name, such as "sgd" under a recipe that uses AdamW.
        """
        for name in names:
            if name not in self.optimisers:
                raise unknown("optimiser", name, list(self.optimisers))
        optimisers = [self.optimisers[name] for name in names or self.optimisers]
        if self._clip_norm:
            moved = [p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(moved, self._clip_norm)
        for optimiser in optimisers:
            optimiser.step()


def added(*gradients: Gradient) -> list[Tensor | None]:
    """The sum of gradients, one entry for each parameter; None where all are None."""
    total: list[Tensor | None] = []
    for parts in zip(*gradients, strict=True):
        reached = [part for part in parts if part is not None]
        total.append(sum(reached[1:], start=reached[0]) if reached else None)
    return total
