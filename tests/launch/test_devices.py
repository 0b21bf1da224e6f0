"""What is refused before anything starts because this machine lacks it, on machines of several kinds."""

import pytest

from kdbench.config import processor
from kdbench.errors import UserError
from kdbench.launch import devices
from kdbench.plan import expand, request


def check(*words):
    return devices.check(expand.plan(request.parse(["methods=ce", "dataset=digits", *words])))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make this a machine with some GPUs, as CUDA_VISIBLE_DEVICES shows them, on some system."""

    def make(gpus, platform="linux", drivers=()):
        monkeypatch.setattr(devices.sys, "platform", platform)
        monkeypatch.setattr(processor, "_GPU_DRIVERS", [tmp_path / name for name in drivers])
        for name in drivers:
            (tmp_path / name).touch()
        if gpus is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)

    return make


@pytest.mark.parametrize("gpus", ["", None])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["Machine.device=mps"], "Machine.device=mps needs an Apple GPU, which this machine does not have"),
        (["Machine.device=cuda"], "Machine.device=cuda needs a GPU, but this machine has none"),
        (["Machine.device=cuda:1"], "Machine.device=cuda:1 needs a GPU, but this machine has none"),
        (["gpus=2"], "gpus=2, but this machine has no GPU; pass Machine.device=cpu"),
    ],
)
def test_a_machine_without_gpus(machine, gpus, words, sentence):
    machine(gpus)
    with pytest.raises(UserError) as caught:
        check(*words)
    assert str(caught.value).startswith(sentence)
    for fine in ([], ["Machine.device=cpu"], ["gpus=2", "Machine.device=cpu"]):
        check(*fine)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["gpus=3"], "gpus=3, but this machine has 2 GPUs"),
        (["gpus=3", "Machine.device=cuda"], "gpus=3, but this machine has 2 GPUs"),
        (["Machine.device=cuda:2"], "Machine.device=cuda:2, but this machine has cuda:0 to cuda:1"),
    ],
)
def test_a_machine_with_two_gpus(machine, words, sentence):
    machine("4,7")
    with pytest.raises(UserError) as caught:
        check(*words)
    assert str(caught.value) == sentence
    for fine in ([], ["gpus=2"], ["Machine.device=cuda"], ["Machine.device=cuda:1"]):
        check(*fine)


def test_what_is_not_certain_is_left_to_torch(machine):
    machine(None, drivers=["kfd"])
    for fine in (["Machine.device=cuda:1"], ["gpus=2"], ["Machine.device=xpu"]):
        check(*fine)
    machine("", platform="darwin")
    check("Machine.device=mps")


def test_without_a_device_nothing_is_looked_up(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", lambda: pytest.fail("asked for the GPUs"))
    check()
    check("Machine.device=cpu", "gpus=2")


@pytest.mark.parametrize(
    ("gpus", "words", "sentence"),
    [
        ("", [], "runs_per_gpu=2, but this machine has no GPU; pass workers=2 to share its CPU"),
        ("0,1", ["gpus=2"], "runs_per_gpu=2 is for runs on one GPU, not with gpus=2; leave one out"),
        ("0,1", ["Machine.device=cpu"], "runs_per_gpu=2 needs GPUs, but Machine.device=cpu; leave one out"),
        (
            "0,1",
            ["Machine.device=cuda:1"],
            "runs_per_gpu=2 is for all GPUs, but Machine.device=cuda:1 names one; leave it out",
        ),
    ],
)
def test_runs_that_cannot_share_a_gpu(machine, gpus, words, sentence):
    machine(gpus)
    specs = expand.plan(request.parse(["methods=ce", "dataset=digits", *words]))
    with pytest.raises(UserError) as caught:
        devices.check_shared(specs, 2)
    assert str(caught.value).startswith(sentence)
    devices.check_shared(specs, 1)


def test_runs_share_gpus_of_another_machine(machine):
    machine("")
    devices.check_shared(expand.plan(request.parse(["methods=ce", "dataset=digits"])), 2, here=False)


BFLOAT16 = "Train.precision=bfloat16"


def test_bfloat16_on_a_cpu_that_imitates_it_is_reported_once(machine, monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setattr(processor, "cpu_flags", lambda: {"amx_bf16"})
    why = "ATEN_CPU_CAPABILITY=default limits torch to instructions without bfloat16"
    slow = [f"{BFLOAT16} is slower than float32 here, because {why}"]
    machine("")
    assert check(BFLOAT16, "student=resnet8,resnet14") == check("Machine.device=cpu", f"{BFLOAT16},float32") == slow
    assert check() == check("Train.precision=auto") == []
    machine("0")
    assert check(BFLOAT16) == [], "the run is on a GPU"
    assert check(BFLOAT16, "Machine.device=cpu") == slow
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert check(BFLOAT16, "Machine.device=cpu") == []
