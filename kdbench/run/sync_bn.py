"""Batch normalisation over the images of all ranks, so that several GPUs normalise as one would.

torch.nn.SyncBatchNorm does the same on GPUs only. This one is a few lines that also run on CPUs, where tests hold it
against nn.BatchNorm on the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdbench.precision import at_least_float32
from kdbench.run.group import Group


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation with mean and variance of all ranks' images; made by `synchronise`."""

    group: Group

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any (B, C, …): it stands in for BatchNorm1d, 2d and 3d

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        output: Tensor
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps, self.group)
        if not self.track_running_stats:  # as in nn.BatchNorm: switched off, they stay as they are
            return output
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            unbiased = variance * (count / (count - 1))
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                running.copy_((1 - momentum) * running + momentum * now)
        return output


def synchronise(module: nn.Module, group: Group) -> None:
    """Make every BatchNorm1d, 2d and 3d in `module` a `SyncBatchNorm`, in place; names and values of its state stay."""
    if group.size == 1:
        return
    for each in module.modules():
        if type(each) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            # The object itself changes its class: whoever else holds it would miss a copy in its place.
            each.__class__ = SyncBatchNorm
            each.group = group  # type: ignore[assignment]


class _Normalise(torch.autograd.Function):
    """Normalised input, and mean, biased variance (C,) and number of values per channel (1,) over all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Group) -> Any:
        variance, mean = torch.var_mean(at_least_float32(x), _all_but_channels(x), correction=0)
        count = mean.new_full((1,), x.numel() // x.shape[1])
        every = group.stack(torch.cat([mean, variance, count]))
        # Chan et al.: variances of the shares, and of their means. The mean of squares less the square of the mean, in
        # which large numbers cancel, would need no less communication.
        means, variances, counts = every.split([len(mean), len(mean), 1], dim=1)
        count = counts.sum(dim=0)
        mean = (counts * means).sum(dim=0) / count
        variance = (counts * (variances + (means - mean).square())).sum(dim=0) / count
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, count)
        output = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        dims, shape = _all_but_channels(x), (1, -1, *[1] * (x.dim() - 2))
        gradient = at_least_float32(gradient)
        normal = (at_least_float32(x) - mean.view(shape)) * inverse_std.view(shape)
        bias_gradient = gradient.sum(dims)
        weight_gradient = (gradient * normal).sum(dims)
        means = ctx.group.sum(torch.stack([bias_gradient, weight_gradient])) / count
        scale = inverse_std if weight is None else inverse_std * weight
        rest = gradient - means[0].view(shape) - normal * means[1].view(shape)
        by_input = (rest * scale.view(shape)).to(x.dtype)
        by_weight, by_bias = (None, None) if weight is None else (weight_gradient, bias_gradient)
        return by_input, by_weight, by_bias, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]
