"""The initialisation that the residual networks and the heads built from their blocks share."""

from __future__ import annotations

from torch import nn


def he_normal(module: nn.Module) -> None:
    """Draw the weights of every convolution in `module` from a normal distribution with variance 2 / fan-out, in place.

    He et al., "Delving deep into rectifiers", ICCV 2015, section 2.2, backward case. Batch normalisation (1, 0) and
    linear layers keep torch's own initialisation.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
