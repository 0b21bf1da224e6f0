"""The precision that a machine computes natively, on machines of several kinds."""

import subprocess
import sys

import pytest
import torch

from kdbench.config import processor
from kdbench.config.processor import native_precision

NONE = "this CPU has no bfloat16 instructions (avx512_bf16, amx_bf16)"


@pytest.fixture(autouse=True)
def cpu(monkeypatch, tmp_path):
    """Make this a machine without GPUs, and with a CPU that has some flags."""
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processor, "_GPU_DRIVERS", [tmp_path / "nvidiactl"])
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")

    def make(flags, line="flags"):
        lines = f"model name\t: a CPU of amx_bf16\n{line}\t\t: {flags}\nbugs\t\t: avx512_bf16\n\n"
        (tmp_path / "cpuinfo").write_text(lines * 2)

    make("fpu avx2 avx512f")
    return make


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Give this machine GPUs of some compute capabilities, as torch would report them."""

    def make(*capabilities, hip=None):
        (tmp_path / "nvidiactl").touch()
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
        monkeypatch.setattr(torch.version, "hip", hip)

    return make


@pytest.mark.parametrize(
    ("flags", "precision", "reason"),
    [
        ("fpu avx512_bf16 avx2", "bfloat16", "this CPU has instructions for it (avx512_bf16)"),
        ("amx_bf16 avx512_bf16", "bfloat16", "this CPU has instructions for it (avx512_bf16, amx_bf16)"),
        ("fpu avx512f avx512_vnni amx_tile", "float32", NONE),
        ("", "float32", NONE),
    ],
)
def test_a_cpu_is_judged_by_its_flags(cpu, flags, precision, reason):
    cpu(flags)
    for device in ("auto", "cpu"):
        assert native_precision(device) == processor.Choice(precision, reason)


def test_flags_are_those_of_one_line_of_x86_or_arm_and_none_on_other_systems(cpu, tmp_path):
    assert processor.cpu_flags() == {"fpu", "avx2", "avx512f"}
    cpu("fp asimd bf16", line="Features")
    assert processor.cpu_flags() == {"fp", "asimd", "bf16"}
    (tmp_path / "cpuinfo").unlink()
    assert processor.cpu_flags() == frozenset()
    assert native_precision("cpu") == processor.Choice("float32", NONE)


@pytest.mark.parametrize(
    ("variable", "limits"),
    [
        ("ATEN_CPU_CAPABILITY=default", True),
        ("DNNL_MAX_CPU_ISA=avx2", True),
        *(("ONEDNN_MAX_CPU_ISA=" + value, True) for value in ("AVX2", "avx512_core", "AVX512_CORE_VNNI", "SSE41")),
        *(("ONEDNN_MAX_CPU_ISA=" + value, False) for value in ("AVX512_CORE_BF16", "AVX512_CORE_AMX", "DEFAULT")),
        ("ATEN_CPU_CAPABILITY=avx2", False),
    ],
)
def test_variables_limit_the_instructions(cpu, monkeypatch, variable, limits):
    cpu("avx512_bf16 amx_bf16")
    monkeypatch.setenv(*variable.split("="))
    choice = native_precision("cpu")
    assert choice.precision == ("float32" if limits else "bfloat16")
    assert (choice.reason == f"{variable} limits torch to instructions without bfloat16") == limits


@pytest.mark.parametrize(
    ("capabilities", "device", "precision", "reason"),
    [
        ([(8, 0)], "auto", "bfloat16", "GPU 0 computes it natively (compute capability 8.0)"),
        ([(10, 0), (9, 0)], "cuda", "bfloat16", "GPU 1 computes it natively (compute capability 9.0)"),
        ([(8, 6), (7, 5)], "auto", "float32", "GPU 1 has no bfloat16 units (compute capability 7.5, below 8.0)"),
        ([(7, 0), (9, 0)], "cuda:1", "bfloat16", "GPU 1 computes it natively (compute capability 9.0)"),
        ([(7, 0), (9, 0)], "cpu", "float32", NONE),
        ([], "auto", "float32", NONE),  # a driver, and no GPU that torch can use
        ([(9, 0)], "cuda:1", "float32", "torch finds no GPU for Machine.device=cuda:1"),
    ],
)
def test_gpus_are_judged_by_the_least_that_a_run_may_get(gpus, capabilities, device, precision, reason):
    gpus(*capabilities)
    assert native_precision(device) == processor.Choice(precision, reason)


def test_other_devices_get_float32(cpu, gpus):
    cpu("avx512_bf16")
    assert native_precision("cuda").precision == "float32"
    assert native_precision("mps").precision == "float32"
    gpus((9, 0), hip="6.2")
    assert native_precision("auto").precision == "float32"


@pytest.mark.parametrize(("visible", "may"), [("", False), ("-1", False), ("0", True), ("GPU-1,GPU-2", True)])
def test_a_hidden_gpu_is_none(gpus, monkeypatch, visible, may):
    assert not processor.may_have_gpu()
    gpus((9, 0))
    assert processor.may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert processor.may_have_gpu() == may
    assert native_precision("auto").precision == ("bfloat16" if may else "float32")


def test_a_cpu_is_judged_without_torch():
    code = "import sys; from kdbench.config import processor as p; p.native_precision('cpu'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
