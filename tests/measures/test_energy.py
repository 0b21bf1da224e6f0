import torch

from kdbench.measures import energy
from kdbench.measures.energy import Energy


def test_what_all_gpus_of_a_run_used_since(nvml):
    one, both = Energy(["GPU-a"], nvml), Energy(["GPU-a", "GPU-b"], nvml)
    nvml.used = {"GPU-a": 6_500, "GPU-b": 72_000}
    assert one.joules() == 1.5
    assert both.joules() == 3.5


def test_there_is_none_where_it_cannot_be_had(nvml):
    assert Energy(["GPU-a"], None).joules() is None
    assert Energy([], nvml).joules() is None
    assert Energy(["GPU-a", "GPU-unknown"], nvml).joules() is None
    counting = Energy(["GPU-a"], nvml)
    nvml.broken = True
    assert counting.joules() is None
    assert Energy(["GPU-a"], nvml).joules() is None, "a GPU that does not count"
    assert energy.of_devices(torch.device("cpu"), 1).joules() is None


def test_a_run_over_several_machines_has_none(nvml, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(energy, "_nvml", lambda: nvml)
    assert energy.of_devices(torch.device("cuda", 0), 4).joules() is None


def test_the_processes_of_a_run_add_up_or_nothing_is_known():
    assert energy.total([1.5, 2.25]) == 3.75
    assert energy.total([1.5, None]) is None
