"""Settings of a process that change the bits of a result and are in no configuration: torch's own, and environment variables.

The user sets them, or a method's file does. They are recorded in each row, and those of one run do not affect the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from kdbench.config.settings import Machine

_DEFAULTS: dict[str, Any] = {
    "float32_matmul_precision": "highest",
    "default_dtype": torch.float32,
    "backends.cuda.matmul.allow_tf32": False,
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction": True,
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction": True,
    "backends.cudnn.enabled": True,
    "backends.cudnn.allow_tf32": True,
    "backends.cudnn.benchmark": False,
    "backends.cudnn.deterministic": False,
    "backends.mkldnn.enabled": True,
    "backends.mkldnn.deterministic": False,
    "backends.mkldnn.matmul.fp32_precision": "none",
    "backends.mkldnn.conv.fp32_precision": "none",
    "backends.cudnn.conv.fp32_precision": "tf32",
}
"""torch's settings and the values that they have unless somebody changes them; versions of torch lack some."""

_PREFIXES = (
    "ATEN_", "BLIS_", "CUBLAS_", "CUDNN_", "DNNL_", "KMP_DETERMINISTIC", "MKL_", "NCCL_ALGO", "NCCL_PROTO", "NVIDIA_TF32",
    "OMP_DYNAMIC", "OMP_SCHEDULE", "ONEDNN_", "OPENBLAS_", "PYTHONHASHSEED", "TORCHINDUCTOR_", "TORCH_ALLOW_TF32", "TORCH_BLAS",
    "TORCH_CUDNN", "TORCH_LINALG",
)  # fmt: skip
_WITHOUT_EFFECT = ("_NUM_THREADS", "_DIR", "_PATH", "_VERBOSE", "_WARNINGS")
"""Ends of names that do not change results, or whose effect is recorded otherwise (`provenance.threads`)."""

DEFAULT, NONE = "default", "none"
"""What a row records where nothing was changed; older rows record nothing."""


def settings() -> str:
    """torch's settings that differ from its defaults, as "name=value name=value"; `DEFAULT` if none does."""
    changed = [f"{name}={value}" for name, value in _current().items() if value != _DEFAULTS[name]]
    return " ".join(changed) or DEFAULT


def variables(environment: Mapping[str, str] = os.environ) -> str:
    """The environment variables that are known to change results, as "NAME=value NAME=value"; `NONE` without any."""
    names = [n for n in sorted(environment) if n.startswith(_PREFIXES) and not n.endswith(_WITHOUT_EFFECT)]
    return " ".join(f"{name}={environment[name]}" for name in names) or NONE


@contextmanager
def kept() -> Iterator[None]:
    """Put torch's settings back at the end of the block, so that a run in this process is not affected by the run before."""
    before, threads = _current(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        _apply(before)
        torch.set_num_threads(threads)
        set_deterministic(deterministic, warn_only)


def set_deterministic(deterministic: bool, warn_only: bool = False) -> None:
    """torch's switch for deterministic algorithms, which is slow to touch: it imports torch's compiler."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if before != (deterministic, warn_only):
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def with_import(source: str, load: Callable[[], type]) -> type:
    """Import a method's file, which Python does once in a process, so that its settings hold in each of its runs.

    Args:
        source: the name of the method's file.
        load: imports it.
    """
    before = _current()
    cls = load()
    changed = {name: value for name, value in _current().items() if before[name] != value}
    _of_imports[source] = _of_imports.get(source, {}) | changed
    _apply(_of_imports[source])
    return cls


def apply(machine: Machine, device: torch.device, source: str) -> None:
    """Apply what `Machine` decides for a GPU: TF32, and whether cuDNN measures which of its algorithms is the fastest.

    Without `Machine.tf32`, float32 is float32 in convolutions too, where torch allows TF32 by default (10 bits of mantissa instead
    of 23). Which algorithm is the fastest varies from run to run, and so do the bits: not in deterministic mode.

    Args:
        source: the name of the method's file, whose own settings stay.
    """
    if device.type != "cuda":
        return
    values = {
        "backends.cuda.matmul.allow_tf32": machine.tf32,
        "backends.cudnn.allow_tf32": machine.tf32,
        "backends.cudnn.benchmark": not machine.deterministic,
    }
    own = _of_imports.get(source, {})
    _apply({name: value for name, value in values.items() if name not in own})


_of_imports: dict[str, dict[str, Any]] = {}
"""The settings that the import of a method's file has changed, by the file's name."""


def _current() -> dict[str, Any]:
    values = {}
    for name in _DEFAULTS:
        owner, attribute = _owner(name)
        try:
            values[name] = getattr(owner, f"get_{attribute}")() if owner is torch else getattr(owner, attribute)
        except (AttributeError, RuntimeError):  # another version of torch
            continue
    return values


def _apply(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if _current().get(name) == value:  # setting one may have set another
            continue
        owner, attribute = _owner(name)
        if owner is torch:
            getattr(owner, f"set_{attribute}")(value)
        else:
            setattr(owner, attribute, value)


def _owner(name: str) -> tuple[Any, str]:
    """The module of torch that has a setting, and the setting's name there."""
    owner: Any = torch
    *path, attribute = name.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    return owner, attribute
