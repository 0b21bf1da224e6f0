"""The losses of the feature-based test methods are the reference, and the definition where that is silent."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def load(module: nn.Module, case, **names: str) -> nn.Module:
    """`module` in float64 with the case's values: keyword arguments lead from its parameters (with __ for the dot)."""
    module = module.double()
    for name, fixed in names.items():
        parameter = module.get_parameter(name.replace("__", "."))
        parameter.data.copy_(case.fixed[fixed].view_as(parameter))
    return module


@pytest.mark.parametrize("name", ["dks", "dks_selfkdlib"])
def test_dks(reference, name):
    from kdbench.methods.dks import synergy

    case = reference(name)
    exits, labels = case.student["exit_logits"], case.fixed["labels"]
    ce = torch.stack([F.cross_entropy(z, labels) for z in exits]).sum()
    # The authors add eps to the probabilities, which logits do without: these logits give the probabilities with it.
    eps = case.params.get("eps", 0.0)
    smoothed = exits if not eps else ((exits.softmax(dim=2) + eps) / (1 + exits.shape[2] * eps)).log()
    loss = ce + synergy(list(smoothed), case.params["temperature"])
    assert loss.item() == pytest.approx(case.entry["loss"], rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, exits)
    assert gradient.flatten(1).norm(dim=1).tolist() == pytest.approx(case.entry["grad_norm"], rel=1e-6)


def test_sla_sd(reference):
    from kdbench.method import distillation
    from kdbench.methods.sla_sd import aggregated, joint_labels

    case = reference("sla_sd")
    labels = case.fixed["labels"]
    # There the four rotations of an image follow one another; here the images of one rotation do.
    joint, single = (
        case.student[name].unflatten(0, (-1, 4)).transpose(0, 1) for name in ("joint_logits", "single_logits")
    )
    joint, single = joint.flatten(0, 1), single[0]
    parts = {
        "ce_joint": F.cross_entropy(joint, joint_labels(labels)),
        "ce_single": F.cross_entropy(single, labels),
        "kl": distillation(single, aggregated(joint).detach(), case.params["temperature"]),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))
