import mmap

import torch
from torch import nn

from kdbench.measures import cost


def test_parameters_by_hand():
    assert cost.parameters(nn.Linear(3, 4)) == 16


def test_peak_memory_sees_what_was_there_and_is_gone():
    peak = cost.PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    # Mapped, not torch.ones: malloc may serve a large tensor from freed memory that is still resident.
    with mmap.mmap(-1, 100 * 2**20) as large:
        for page in range(0, len(large), mmap.PAGESIZE):
            large[page] = 1
    assert peak.bytes() - before > 80 * 2**20
    assert cost.PeakMemory(torch.device("cpu")).bytes() < peak.bytes() + 2**20
