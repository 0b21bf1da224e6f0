"""Weights on disk: tensors and plain containers only, loaded without running anything."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.errors import RunError
from kdbench.files import write_atomically

FORMAT = 2


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values of a state dict, wherever it lies and however it was saved."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def save(
    path: Path,
    backbone: str,
    deployed: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    method: Mapping[str, Any] | None = None,
    states: Sequence[Mapping[str, Tensor]] = (),
) -> None:
    """Write what a finished run leaves.

    Args:
        backbone: name of the student's backbone.
        deployed: weights of the deployed network; under the key "student", whatever network that is.
        facts: plain facts about the run.
        method: what the method is built and filled from (`kdbench.run.load.description`).
        states: the deployed network's weights along the training, without its end.
    """
    buffer = io.BytesIO()
    content = {"format": FORMAT, "backbone": backbone, "student": _on_cpu(deployed), "facts": dict(facts)}
    if method is not None:
        content["method"] = {**method, "state": _on_cpu(method["state"])}
    if states:
        content["states"] = [_on_cpu(state) for state in states]
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in state.items()}


def load(path: Path) -> dict[str, Any]:
    """The contents of a file of weights.

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
