"""Copies to the device, as far as a machine without a GPU shows them; tests/gpu has the rest."""

import torch

from kdbench.pinned import to_device


def test_a_tensor_that_is_there_is_not_copied():
    x = torch.arange(3)
    assert to_device(x, torch.device("cpu")) is x


def test_other_devices_get_a_copy():
    assert to_device(torch.arange(3), torch.device("meta")).device.type == "meta"
