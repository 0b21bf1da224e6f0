"""Weights on disk: tensors and plain containers only, loaded without running anything."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.errors import RunError, shortened
from kdbench.files import write_atomically
from kdbench.words import printable

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
    before: Callable[[], None] = lambda: None,
) -> None:
    """Write what a finished run leaves.

    Args:
        backbone: name of the student's backbone.
        deployed: weights of the deployed network; under the key "student", whatever network that is.
        facts: plain facts about the run.
        method: what the method is built and filled from (`kdbench.run.load.description`).
        states: the deployed network's weights along the training, without its end.
        before: see `write_atomically`.
    """
    buffer = io.BytesIO()
    content = {"format": FORMAT, "backbone": backbone, "student": _on_cpu(deployed), "facts": dict(facts)}
    if method is not None:
        content["method"] = {**method, "state": _on_cpu(method["state"])}
    if states:
        content["states"] = [_on_cpu(state) for state in states]
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue(), before=before)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in state.items()}


def load(path: Path) -> dict[str, Any]:
    """The contents of a file of weights.

    Raises:
        RunError: it cannot be read, or holds something else than tensors and plain containers.
    """
    if (unpacked := _unpacked_size(path)) and unpacked > path.stat().st_size:
        # torch.save packs without compression, so this is not of it, and may fill the memory.
        raise RunError(f"the weights in '{path.name}' cannot be read: its parts would unpack to {unpacked} bytes")
    try:
        with warnings.catch_warnings(action="ignore"):  # they are about forms of files that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none of torch's may raise anything
        raise RunError(unreadable(path, error)) from None
    if isinstance(content, Mapping):
        return dict(content)
    raise RunError(f"'{path.name}' holds a {type(content).__name__}, not a state dict; save it with: {_SAVE}")


def _unpacked_size(path: Path) -> int:
    """Bytes of all members of a zip archive; 0 for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except Exception:  # a damaged archive raises anything; torch.load is about to fail as well
        return 0


_SAVE = "torch.save(model.state_dict(), PATH)"


def unreadable(path: Path, error: Exception) -> str:
    """The sentence about a file of weights that cannot be read, from its first bytes; torch's own advice is not passed on."""
    return f"the weights in '{path.name}' cannot be read: {_reason(path, error)}"


def _reason(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(64)
        size = path.stat().st_size
    except OSError as system:
        return system.strerror or type(system).__name__
    if not start:
        return "the file is empty"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "reading it takes more memory than this machine has"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; get the file itself with: git lfs pull"
    if isinstance(error, pickle.UnpicklingError) and (others := _other_objects(path, str(error))):
        names = ", ".join(map(shown_name, others[:3]))
        network = any(name.startswith("torch.nn.") for name in others)
        what = "a whole network" if network else "other objects than tensors and plain containers"
        save = _SAVE if network else "torch.save(content['model'], PATH), with its own key"
        return f"it holds {what} ({names}), and loading that could run code; save its state dict alone: {save}"
    if start[7:9] == b"\0{":  # safetensors
        return f"it is truncated or damaged ({size} bytes)"
    if start.startswith(b"PK"):
        if b"constants.pkl" in path.read_bytes():
            return f"it is a TorchScript archive; save its state dict alone: {_SAVE}"
        return f"it is truncated or damaged ({size} bytes)"
    if start.lstrip()[:1] == b"<":
        return f"it is a web page (it begins with {_shown(start)}); download the file itself"
    return f"it is not a file of torch.save or safetensors, or damaged ({size} bytes, it begins with {_shown(start)})"


def _other_objects(path: Path, message: str) -> list[str]:
    """The classes and functions that a file would call, by name."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return sorted(names, key=lambda name: (name.startswith("torch.nn."), name))
    except Exception:  # a file that an old torch wrote; the message names the first
        return re.findall(r"GLOBAL (\S+)", message)


def shown_name(name: Any) -> str:
    """A name from a file, as a sentence may show it."""
    return shortened(printable(str(name)), 60)


def _shown(start: bytes) -> str:
    line = start.strip().splitlines()[0][:24] if start.strip() else start
    return repr(line.decode("ascii", errors="replace").replace("\ufffd", "?"))
