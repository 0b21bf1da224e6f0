"""Weights on disk: tensors and plain containers only, loaded without running anything."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.errors import RunError
from kdbench.files import write_atomically

FORMAT = 1


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values of a state dict, wherever it lies and however it was saved."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save(path: Path, backbone: str, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a finished run's network: the name of its backbone, its weights, and plain facts about the run."""
    buffer = io.BytesIO()
    weights = {name: value.detach().cpu() for name, value in state.items()}
    torch.save({"format": FORMAT, "backbone": backbone, "student": weights, "facts": dict(facts)}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What a file of weights holds.

    Raises:
        RunError: it cannot be read, or holds something else than tensors and plain containers.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"the weights in '{path.name}' cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise RunError(f"the weights in '{path.name}' are no dictionary of tensors")
    return content
