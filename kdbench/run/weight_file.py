"""Weights from outside: the state dict in a file, read without running anything, and the backbone that it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.backbones import registry
from kdbench.config import extensions
from kdbench.errors import RunError
from kdbench.run import checkpoint
from kdbench.run.checkpoint import shown_name

WRAPPINGS = ("student", "model", "state_dict", "net", "model_state_dict", "network")
"""Keys under which programs keep a state dict; the first that a file has counts."""

DEPTH = 4
"""Levels of such keys that are looked through."""

MOST_PREFIXES = 16
"""Prefixes that are removed, one before the other."""


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch.save or safetensors, as it is or under keys, its names without what all begin with.

    Raises:
        RunError: the file cannot be read, or holds something else.
    """
    content = _safetensors(path) if is_safetensors(path) else checkpoint.load(path)
    return _without_prefix(_unwrapped(content, path, DEPTH))


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the parts that all of its names begin with: `module.`, `_orig_mod.`, `model.`, however nested.

    They are the names that DataParallel, torch.compile, Lightning and modules that hold a network give to it.
    """
    state = dict(state)
    for _ in range(MOST_PREFIXES):
        if len({name.partition(".")[0] for name in state}) > 1 or not all("." in name for name in state):
            break
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return state


def is_safetensors(path: Path) -> bool:
    """True if a file has the form of safetensors, or its name: 8 bytes of length, then a JSON object."""
    if path.suffix == ".safetensors":
        return True
    try:
        with path.open("rb") as file:
            return file.read(9)[7:] == b"\0{"
    except OSError:
        return False


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise RunError(
            f"reading '{path.name}' needs the package safetensors; install it with: pip install 'kdbench[safetensors]'"
        ) from None
    try:
        return dict(load_file(path))
    except Exception as error:  # SafetensorError, and what torch raises for types and shapes that it lacks
        raise RunError(checkpoint.unreadable(path, error)) from None


def _unwrapped(content: Mapping[Any, Any], path: Path, depth: int) -> dict[str, Tensor]:
    """The state dict in a file: under the keys where programs usually put it, else at the top, else under the only such key."""
    for key in WRAPPINGS:
        if depth and isinstance(content.get(key), Mapping):
            return _unwrapped(content[key], path, depth - 1)
    inside = [key for key, value in content.items() if isinstance(value, Mapping) and _is_state(value)]
    if len(inside) > 1:
        names = ", ".join(f"'{shown_name(key)}'" for key in inside[:8])
        raise RunError(
            f"there are several state dicts in '{path.name}' ({names}); save one of them alone, with torch.save"
        )
    state = content[inside[0]] if inside else content
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise RunError(f"there are no tensors in '{path.name}'")
    for name, value in tensors.items():
        if value.is_nested or value.layout != torch.strided or value.device.type != "cpu":
            raise RunError(f"the weights in '{path.name}' are not plain tensors ({shown_name(name)})")
    return tensors


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def classes_of(state: Mapping[str, Tensor]) -> int:
    """The number of classes that the weights were trained for: what the last matrix gives."""
    matrices = [value for value in state.values() if value.dim() == 2]
    return max(1, len(matrices[-1])) if matrices else 1


def fitting(
    state: Mapping[str, Tensor], path: Path, classes: int, channels: int, network: str | None = None
) -> tuple[str, dict[str, Tensor]]:
    """The backbone whose state dict has these names and shapes, and the weights under the names that it gives them.

    Args:
        state: what `read` returned.
        path: its file, for sentences.
        network: the backbone that the user named; None if every one of kdbench's own and of plug-ins is tried.

    Raises:
        RunError: no backbone has; the nearest is named, and how it differs. Or some weights are not numbers.
    """
    if network is not None:
        built = registry.build(network, classes, channels, pretrained=False)
        return network, _fitted(state, built.state_dict(), path, network)
    differences: dict[str, _Difference] = {}
    # Building all takes seconds: those that the file's name or folder mentions come first.
    for backbone in sorted(extensions.members("backbone"), key=lambda name: name not in str(path).lower()):
        source = extensions.member("backbone", backbone, "backbone").path
        own = _state_of(backbone, classes, channels, source, source.stat().st_mtime_ns)
        if own is None:
            continue
        wanted = _without_prefix(own)
        differences[backbone] = _Difference(state, wanted)
        if not differences[backbone].number:
            return backbone, _fitted(state, own, path, backbone)
    if not differences:
        raise RunError(f"the weights in '{path.name}' do not fit any backbone with {classes} classes")
    nearest = min(differences, key=lambda backbone: differences[backbone].number)
    raise RunError(
        f"the weights in '{path.name}' do not fit any backbone with {classes} classes; nearest is {nearest}: {differences[nearest]}"
    )


def _fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, network: str) -> dict[str, Tensor]:
    """Weights under the names that a network gives them.

    Raises:
        RunError: names or shapes differ from the network's, or some weights are not numbers.
    """
    wanted = _without_prefix(own)
    difference = _Difference(state, wanted)
    if difference.number:
        raise RunError(f"the weights in '{path.name}' do not fit {network}: {difference}")
    weights = {full: state[name] for full, name in zip(own, wanted, strict=True)}
    _check_values(weights, own, path)
    return weights


@lru_cache(maxsize=256)
def _state_of(backbone: str, classes: int, channels: int, source: Path, version: int) -> dict[str, Tensor] | None:
    """The state dict of a backbone, without values; None for a plug-in's network that cannot be built.

    Args:
        source, version: the file that declares it, and when that was last changed.
    """
    try:
        with torch.device("meta"):
            return registry.build(backbone, classes, channels).state_dict()
    except Exception:  # it says nothing about the file
        return None


def _check_values(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Refuse values that cannot be copied to a network, or that would make all its outputs nan."""
    for name, value in weights.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise RunError(f"the weights in '{path.name}' are not floating-point numbers ({name} is {kind})")
        if value.is_floating_point() and not value.float().isfinite().all():
            raise RunError(f"the weights in '{path.name}' are not all finite ({name})")


class _Difference:
    """The names and shapes in which a state dict differs from a backbone's."""

    def __init__(self, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]):
        self._state, self._wanted = state, wanted
        self._missing = [shown_name(name) for name in sorted(wanted.keys() - state.keys())]
        self._unexpected = [shown_name(name) for name in sorted(state.keys() - wanted.keys())]
        self._misshapen = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
        self.number = len(self._missing) + len(self._unexpected) + len(self._misshapen)

    def __str__(self) -> str:
        parts = [_listed("missing", self._missing), _listed("unexpected", self._unexpected), self._shapes()]
        return "; ".join(filter(None, parts))

    def _shapes(self) -> str:
        first = next((name for name, value in self._wanted.items() if value.dim() == 4), None)
        last = next((name for name, value in reversed(list(self._wanted.items())) if value.dim() == 2), None)
        explained, others = [], []
        for name in self._misshapen:
            theirs, ours = self._state[name].shape, self._wanted[name].shape
            if name == first and len(theirs) == 4 and theirs[2:] != ours[2:]:
                explained.append(f"{name} (its first convolution is {_shape(theirs[2:])}, here {_shape(ours[2:])})")
            elif name == first and len(theirs) == 4 and theirs[1] != ours[1]:
                explained.append(f"{name} (its images have {theirs[1]} channels, here {ours[1]})")
            elif name == last and len(theirs) == 2 and theirs[1] == ours[1]:
                explained.append(f"{name} (it has {theirs[0]} classes, here {ours[0]})")
            elif not (last in self._misshapen and name == f"{last}".replace("weight", "bias")):
                others.append(f"{name} ({_shape(theirs)}, here {_shape(ours)})")
        return _listed("of another shape", [*explained, *others])


def _listed(word: str, names: Sequence[str]) -> str:
    return f"{word} {', '.join(names[:3])}{', …' if len(names) > 3 else ''}" if names else ""


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a number"
