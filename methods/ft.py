"""Factor transfer: the student's translated map imitates factors, the code of an autoencoder of the teacher's map.

Kim, Park and Kwak, "Paraphrasing complex network: network compression via factor transfer", NeurIPS 2018.

Family: feature
Loss: phase 1: MSE(decode(encode(F_S^t)), F_S^t); phase 2: CE + w · mean |a(f) − a(f^t)|, f = translate(F_S), f^t = encode(F_S^t)
Source: RepDistiller (distiller_zoo/FT.py, Paraphraser and Translator of models/util.py, helper/pretrain.py)
Choice: factors are compared by their attention a (mean square over the channels, normalised over the pixels), as RepDistiller does;
    FT.compare='factor' compares the whole factors, normalised for each image, as the paper does (with FT.weight=500).
Choice: phase 1 minimises the squared error, as RepDistiller does; FT.reconstruction='l1' is the authors' absolute error.
Choice: the translator has batch normalisation, as RepDistiller's has; FT.translator_norm=False is the authors' without it.
Choice: the paraphraser depends on the teacher alone, so phase 1 is a run of its own, `ft_paraphraser`, once for each teacher;
    FT.part='both' (`ft_phases`) trains it in each student's run, out of the budget or, with FT.on_top=True, in addition to it.
Choice: phase 1 has a fifth of the recipe's rate, as in RepDistiller's for residual students (0.01, and 0.05 afterwards).
Choice: factors of unequal resolution are averaged to the lower one in both forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Method, Phase, RunError, at_least_float32, full_precision, kd_term
from kdbench.method.connectors import equal_resolution, normalised


def attention(factor: Tensor) -> Tensor:
    """Mean square over the channels of a factor (B, k, H, W), normalised over the pixels, (B, H·W)."""
    return normalised(factor.square().mean(dim=1).flatten(1))


def ft_loss(factor: Tensor, target: Tensor, compare: Literal["attention", "factor"] = "attention") -> Tensor:
    """Mean absolute difference of what two factors (B, k, H, W) are compared by; the larger one is averaged first.

    Args:
        compare: "attention", for which their widths may differ, or the whole "factor", normalised for each image.
    """
    ours, theirs = (
        attention(x) if compare == "attention" else normalised(x.flatten(1)) for x in equal_resolution(factor, target)
    )
    return F.l1_loss(ours, theirs)


class Paraphraser(nn.Module):
    """Autoencoder of a map: three 3×3 convolutions to the factor, three transposed ones back, LeakyReLU after each.

    Args:
        width: channels C of the map.
        factors: channels k of the factor.
    """

    def __init__(self, width: int, factors: int):
        super().__init__()
        self.encoder = _layers(nn.Conv2d, (width, width, factors, factors))
        self.decoder = _layers(nn.ConvTranspose2d, (factors, factors, width, width))

    def encode(self, x: Tensor) -> Tensor:
        """The factor (B, k, H, W) of a map (B, C, H, W), in float32."""
        with full_precision(x.device):
            factor: Tensor = self.encoder(at_least_float32(x))
            return factor

    def forward(self, x: Tensor) -> Tensor:
        """The map (B, C, H, W) made from its factor."""
        with full_precision(x.device):
            reconstructed: Tensor = self.decoder(self.encode(x))
            return reconstructed


class Translator(nn.Module):
    """The factor of a student's map: three 3×3 convolutions, each with batch normalisation, if wanted, and LeakyReLU.

    Args:
        width: channels of the map.
        factors: channels k of the factor.
    """

    def __init__(self, width: int, factors: int, norm: bool):
        super().__init__()
        self.layers = _layers(nn.Conv2d, (width, width, factors, factors), norm)

    def forward(self, x: Tensor) -> Tensor:
        """The factor (B, k, H, W) of a map (B, C, H, W), in float32."""
        with full_precision(x.device):
            factor: Tensor = self.layers(at_least_float32(x))
            return factor


def _layers(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], widths: Sequence[int], norm: bool = False
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, target in pairwise(widths):
        layers += [kind(width, target, 3, padding=1), *([nn.BatchNorm2d(target)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class FT(Method):
    """Phase 1 trains the paraphraser on the teacher's deepest map, phase 2 student and translator on the classes and `ft_loss`.

    Args:
        part: "transfer", phase 2 with the paraphraser of the teacher's run; "paraphraser", phase 1 alone, after which the student
            is its teacher and is kept with the paraphraser; "both", one after the other.
        weight: of `ft_loss`.
        compare: what of the factors `ft_loss` compares.
        factor_rate: channels of the factor for each channel of the teacher's map.
        reconstruction: error that phase 1 minimises, squared or absolute.
        translator_norm: give the translator batch normalisation.
        share: of the budget that phase 1 gets, if there are both.
        on_top: give phase 1 its images in addition to the budget, if there are both.
        rate_factor: times the recipe's learning rate, in phase 1.
        kd_weight, temperature: of distillation in phase 2.
    """

    needs_teacher = True

    part: Literal["transfer", "paraphraser", "both"]
    weight: float
    compare: Literal["attention", "factor"]
    factor_rate: float
    reconstruction: Literal["l2", "l1"]
    translator_norm: bool
    share: float
    on_top: bool
    rate_factor: float
    kd_weight: float
    temperature: float

    def setup(self) -> None:
        (width, *ours), (target, *theirs) = self.stage_shapes()[-1], self.stage_shapes(self.teacher)[-1]
        factors = max(1, int(self.factor_rate * target))
        if self.part == "paraphraser":
            self.paraphraser = Paraphraser(target, factors)
            self.become_teacher()
            return
        if self.compare == "attention" and all(min(sides) == 1 for sides in zip(ours, theirs, strict=True)):
            maps = " and ".join("×".join(map(str, sides)) for sides in (ours, theirs))
            raise RunError(
                "ft needs factors of more than one pixel, because it compares pixels: the deepest maps of student and teacher "
                f"have {maps} pixels; take larger images, networks with larger deepest maps, or FT.compare='factor'"
            )
        self.translator = Translator(width, factors, self.translator_norm)
        if self.part == "both":
            self.paraphraser = Paraphraser(target, factors)
            return
        trained = self.teachers[0].method
        if not isinstance(trained, FT):
            raise RunError(
                "ft needs a teacher with a paraphraser, which a run of ft_paraphraser trains; FT.part='both' trains one here"
            )
        for name in ("factor_rate", "reconstruction", "rate_factor"):
            own, taught = getattr(self, name), getattr(trained, name)
            if own != taught:
                raise RunError(
                    f"ft needs the FT.{name} of the teacher's paraphraser, {taught!r}, not {own!r}; "
                    "for another one, bind it in a method's gin file that Teaching.method names, or take FT.part='both'"
                )

    def phases(self) -> Sequence[Phase]:
        if self.part == "transfer":
            return (Phase(),)
        first = list(self.paraphraser.parameters())
        alone = self.part == "paraphraser"
        share, on_top = (None, False) if alone else (self.share, self.on_top)
        phase = Phase("paraphraser", share, self.paraphrase, first, passes=0, rate="constant", on_top=on_top)
        if alone:
            return (phase,)
        second = [p for p in self.parameters() if p not in {*first}]
        return phase, Phase("transfer", trains=second)

    def optimisers(self, parameters: list[nn.Parameter], settings: Any) -> dict[str, torch.optim.Optimizer]:
        optimisers = super().optimisers(parameters, settings)
        if self.part != "transfer" and {*parameters} == {*self.paraphraser.parameters()}:
            for optimiser in optimisers.values():
                for group in optimiser.param_groups:
                    group["rate_factor"] = self.rate_factor
        return optimisers

    def paraphrase(self, batch: Batch) -> dict[str, Tensor]:
        target = at_least_float32(self.teach(batch).stages[-1])
        error = F.mse_loss if self.reconstruction == "l2" else F.l1_loss
        return {"paraphraser": error(self.paraphraser(target), target)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        out, taught = self.student(batch.images, features=True), self.teach(batch)
        with torch.no_grad():
            target = self._encode(taught.stages[-1])
        return {
            "ce": self.cross_entropy(out.logits, batch.labels),
            "ft": self.weight * ft_loss(self.translator(out.stages[-1]), target, self.compare),
            **kd_term(out.logits, taught.logits, self.kd_weight, self.temperature),
        }

    def _encode(self, x: Tensor) -> Tensor:
        """The factor (B, k, H, W) of the teacher's map, by the paraphraser of this run or of the teacher's."""
        trained = self if self.part == "both" else cast(FT, self.teachers[0].method)  # as `setup` saw
        return trained.paraphraser.encode(x)
