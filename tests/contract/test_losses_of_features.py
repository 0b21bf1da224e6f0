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


<<<<<<< ours
@pytest.mark.parametrize("form", ["map", "pooled"])
def test_srrl(reference, form):
    from kdbench.methods.srrl import Connector

    case = reference(f"srrl_{form}")
    x = case.student["student_map" if form == "map" else "student_features"]
    target = case.fixed["teacher_map"].mean(dim=(2, 3)) if form == "map" else case.fixed["teacher_features"]
    connector = load(
        Connector(x.shape[1], target.shape[1]), case,
        conv__weight="connector_weight", bn__weight="bn_weight", bn__bias="bn_bias",
    )  # fmt: skip
    classify = nn.Linear(target.shape[1], len(case.fixed["fc_bias"])).double()
    load(classify, case, weight="fc_weight", bias="fc_bias")
    feature = connector(x)
    parts = {"feature": F.mse_loss(feature, target), "regression": F.mse_loss(classify(feature), classify(target))}
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(case.entry["parts"], rel=1e-6)
    case.check(sum(parts.values()))


@pytest.mark.parametrize("larger", ["student", "teacher"])
def test_simkd(reference, larger):
    from kdbench.methods.simkd import Projector, simkd_loss

    case = reference(f"simkd_{larger}_larger")
    x, target = case.student["student_map"], case.fixed["teacher_map"]
    projector = Projector(x.shape[1], target.shape[1], case.params["factor"], tuple(target.shape[2:]))
    names = {f"{3 * n}__weight": f"conv{n + 1}_weight" for n in range(3)}
    names |= {f"{3 * n + 1}__{part}": f"bn{n + 1}_{part}" for n in range(3) for part in ("weight", "bias")}
    projected = load(projector, case, **names)(x)
    logits = F.linear(projected.mean(dim=(2, 3)), case.fixed["fc_weight"], case.fixed["fc_bias"])
    assert logits.square().mean().item() == pytest.approx(case.entry["parts"]["logits_mean_square"], rel=1e-6)
    case.check(simkd_loss(projected, target))
=======
@pytest.mark.parametrize("name", ["fsp", "fsp_downsampled"])
def test_fsp(reference, name):
    from kdbench.methods.fsp import fsp_loss

    case = reference(name)
    case.check(fsp_loss(case.maps("student"), case.maps("teacher")))


def test_fsp_refuses_networks_of_other_widths():
    from kdbench.methods.fsp import fsp_loss

    narrow, wide = [[torch.ones(2, width, 4, 4) for width in widths] for widths in ((3, 4, 5), (3, 4, 6))]
    with pytest.raises(RunError, match="maps 1 and 2 of the student have 4 and 5 channels, the teacher's 4 and 6"):
        fsp_loss(narrow, wide)


def test_ab(reference):
    from kdbench.methods.ab import boundary_loss

    case = reference("ab")
    case.check(boundary_loss(case.maps("student"), case.maps("teacher"), case.params["margin"]))


def test_ab_connected(reference):
    from kdbench.methods.ab import Connector, boundary_loss

    case = reference("ab_connector")
    connector = load(
        Connector((4, 2, 2), (5, 2, 2)), case,
        conv__weight="conv_weight", conv__bias="conv_bias", bn__weight="bn_weight", bn__bias="bn_bias",
    )  # fmt: skip
    first, second = case.maps("student")
    case.check(boundary_loss([first, connector(second)], case.maps("teacher"), case.params["margin"]))


def test_ofd_margins(reference):
    from kdbench.methods.ofd import margin

    case = reference("ofd_margin")
    margins = margin(case.fixed["bn_weight"], case.fixed["bn_bias"])
    assert margins.tolist() == pytest.approx(case.entry["parts"]["margin"], rel=1e-6)
    assert margins.sum().item() == pytest.approx(case.entry["loss"], rel=1e-6)


def test_the_margin_of_a_channel_without_spread_is_its_own_negative_value():
    from kdbench.methods.ofd import margin

    assert margin(torch.zeros(2), torch.tensor([-0.5, 0.5])).tolist() == [-0.5, 0.0]


def test_ofd_connected(reference):
    from kdbench.methods.ofd import Connector, ofd_loss

    case = reference("ofd_connected")
    maps = []
    for number, x in enumerate(case.maps("student"), start=1):
        names = {f"bn__{part}": f"bn_{number}_{part}" for part in ("weight", "bias")}
        width = len(case.fixed[f"margin_{number}"])
        connector = load(Connector(x.shape[1], width), case, conv__weight=f"connector_{number}_weight", **names)
        maps.append(connector(x))
    case.check(ofd_loss(maps, case.maps("teacher"), [case.fixed[f"margin_{n}"] for n in (1, 2)]))
>>>>>>> theirs


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
