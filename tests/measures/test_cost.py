import torch
from torch import nn

from kdbench.measures import cost


def test_parameters_by_hand():
    assert cost.parameters(nn.Linear(3, 4)) == 16


def test_peak_memory_sees_what_was_there_and_is_gone():
    peak = cost.PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    large = torch.ones(100 * 2**20 // 4)
    del large
    assert peak.bytes() - before > 80 * 2**20
    assert cost.PeakMemory(torch.device("cpu")).bytes() < peak.bytes() + 2**20
