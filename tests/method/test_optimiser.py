"""The optimiser of a recipe, against torch's own."""

import pytest
import torch
from torch import nn

from kdbench.config.optimisers import SGD, AdamW
from kdbench.errors import UserError
from kdbench.method import Share, Update, optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def settings(**changed) -> AdamW:
    return AdamW(**{"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.3, "decay_vectors": False, **changed})


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_adamw_is_torchs_step_by_step(decay_vectors):
    ours, theirs = network(), network()
    vectors, others = [[p for p in theirs.parameters() if (p.dim() <= 1) is one] for one in (True, False)]
    groups = [{"params": others}, {"params": vectors, "weight_decay": 0.3 if decay_vectors else 0.0}]
    reference = torch.optim.AdamW(groups, betas=(0.8, 0.99), weight_decay=0.3)
    parameters = list(ours.parameters())
    built = optimiser.build(parameters, settings(decay_vectors=decay_vectors))
    update = Update(parameters, built, Share(), lambda gradients: None, 0.0)
    for step in range(5):
        rate = 0.01 / (step + 1)
        images = torch.randn(6, 3, 4, 4)
        update.set_rate(rate)
        update.backward(ours(images).square().mean())
        update.step()
        for group in reference.param_groups:
            group["lr"] = rate
        reference.zero_grad()
        theirs(images).square().mean().backward()
        reference.step()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other)


def test_sgd_keeps_its_name_and_settings():
    (name,), (sgd,) = zip(
        *optimiser.build([nn.Parameter(torch.ones(2))], SGD(0.1, 0.9, 5e-4, True)).items(), strict=True
    )
    group = sgd.param_groups[0]
    assert (name, group["momentum"], group["weight_decay"], group["nesterov"]) == ("sgd", 0.9, 5e-4, True)


def test_a_network_without_vectors_has_one_group():
    (adamw,) = optimiser.build([nn.Parameter(torch.ones(2, 2))], settings()).values()
    assert len(adamw.param_groups) == 1


def test_a_step_of_an_optimiser_that_is_not_there_is_a_sentence():
    parameters = [nn.Parameter(torch.ones(2, 2))]
    update = Update(parameters, optimiser.build(parameters, settings()), Share(), lambda gradients: None, 0.0)
    with pytest.raises(UserError, match="unknown optimiser 'sgd'; valid: adamw"):
        update.step("sgd")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"lr": 0.0}, "AdamW.lr"), ({"betas": (0.9,)}, "AdamW.betas"), ({"betas": (0.9, 1.0)}, "AdamW.betas"),
     ({"weight_decay": -1.0}, "AdamW.weight_decay")],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings(**wrong)
