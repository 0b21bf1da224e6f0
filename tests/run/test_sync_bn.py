import copy

import torch
from torch import nn

from kdbench.backbones.registry import build
from kdbench.run.group import Group
from kdbench.run.sync_bn import SyncBatchNorm


@torch.no_grad()
def test_batch_statistics_leave_synchronised_running_statistics_untouched():
    network = build("resnet8", classes=5).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # what `synchronise` does where there are several processes
            module.__class__, module.group = SyncBatchNorm, Group()
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(4, 3, 8, 8)
    with network.batch_statistics():
        inside = network(x)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network.train()(x), inside)
    assert not torch.equal(network.bn1.running_mean, before["bn1.running_mean"])
