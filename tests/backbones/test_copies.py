"""Copies of networks: the same values, and no tensor or module in common."""

import pytest
import torch
from torch import nn

from kdbench.backbones.copies import copy_of
from kdbench.backbones.registry import build


def tensors(network):
    return [*network.parameters(), *network.buffers()]


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2", "vit_tiny"])
@pytest.mark.parametrize("training", [True, False])
def test_it_gives_the_same_and_trains_alone(name, training):
    network = build(name, classes=4).train(training).to(memory_format=torch.channels_last)
    network.fc.requires_grad_(False)
    twin = copy_of(network)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(*pair) for pair in zip(tensors(network), tensors(twin), strict=True))
    assert type(twin) is type(network)
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in network.named_modules()]
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in network.parameters()]
    assert [t.stride() for t in tensors(twin)] == [t.stride() for t in tensors(network)]
    assert {t.data_ptr() for t in tensors(network)}.isdisjoint(t.data_ptr() for t in tensors(twin))
    before = [t.clone() for t in tensors(network)]
    logits = twin(images)
    logits.sum().backward()
    torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.1).step()
    assert all(torch.equal(*pair) for pair in zip(before, tensors(network), strict=True))
    assert network.images_passed == 0 < twin.images_passed
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(logits, network(images))


def test_a_module_in_two_places_stays_one():
    shared = nn.Linear(2, 2)
    twin = copy_of(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}))
    assert twin["a"] is twin["b"][0] is not shared


def test_settings_and_hooks_of_the_copy_are_its_own():
    network, calls = nn.BatchNorm2d(3), []
    twin = copy_of(network)
    twin.register_forward_hook(lambda *_: calls.append("twin"))
    twin.eval()
    network(torch.randn(2, 3, 4, 4))
    assert calls == []
    assert network.training


def test_modules_beside_the_registered_ones_are_those_of_the_copy():
    network = build("mobilenetv2", classes=4)
    twin = copy_of(network)
    of_stages = {p for stage in twin.stage_modules() for p in stage.parameters()}
    assert of_stages < set(twin.parameters())


def test_tied_weights_stay_tied():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    twin = copy_of(network)
    assert twin[1].weight is twin[0].weight is not network[0].weight
