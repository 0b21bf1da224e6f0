import torch
from torch import nn

from kdbench.backbones.registry import build
from kdbench.method.exits import branch_logits, numbered


def test_branches_read_the_last_stages_before_the_deepest():
    network = build("resnet8", 4, 1).eval()
    stages = network(torch.randn(2, 1, 8, 8), features=True).stages
    one, two = (network.fresh_stages(first).eval() for first in (1, 2))
    both = branch_logits(nn.ModuleList([one, two]), stages)
    assert all(torch.equal(z, branch(x).logits) for z, branch, x in zip(both, (one, two), stages, strict=False))
    (last,) = branch_logits(nn.ModuleList([two]), stages)
    assert torch.equal(last, both[1])


def test_exits_are_numbered_from_one():
    assert list(numbered("exit", torch.zeros(2, 3, 4))) == ["exit1", "exit2"]
