"""A library that counts the energy of GPUs that are not there."""

import pytest


class FakeNvml:
    """Two GPUs that count millijoules; as much of pynvml as is used."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.used = {"GPU-a": 5_000, "GPU-b": 70_000}
        self.broken = False

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid not in self.used:
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.broken:
            raise self.NVMLError
        return self.used[handle]


@pytest.fixture
def nvml():
    return FakeNvml()
