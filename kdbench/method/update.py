"""One update of the parameters, in parts: what `Method.update` is given to go from named terms to moved parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdbench.method.share import Share


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
        for parameter in self.parameters:
            parameter.grad = None
        self._share.weighted(loss).backward()
        self._sum([p.grad for p in self.parameters if p.grad is not None])

    def gradient(self, loss: Tensor, keep_graph: bool = False) -> list[Tensor | None]:
        """The gradient of the whole batch's loss, one entry for each parameter; None where it does not reach one.

        Args:
            keep_graph: for a further `gradient` of terms of the same forward pass.
        """
        found = torch.autograd.grad(
            self._share.weighted(loss), self.parameters, retain_graph=keep_graph, allow_unused=True
        )
        gradients: list[Tensor | None] = [
            None if g is None else g.clone() if self._share.weight < 1 else g for g in found
        ]
        self._sum([g for g in gradients if g is not None])
        return gradients

    def set_gradient(self, gradients: Sequence[Tensor | None]) -> None:
        """Put gradients into `.grad` of the parameters."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def clip(self) -> None:
        """Clip what is in `.grad`, as the recipe says."""
        if self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)

    def step(self, *names: str) -> None:
        """Clip, and take a step of the optimisers of these names, all by default."""
        self.clip()
        for name in names or self.optimisers:
            self.optimisers[name].step()
