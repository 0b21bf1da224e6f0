"""Weights from outside: the state dict in a file, read without running anything, and the backbone that it fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.backbones import registry
from kdbench.config import extensions, places, run_config
from kdbench.data.readers import registry as readers
from kdbench.errors import RunError, UserError
from kdbench.plan.spec import Spec
from kdbench.run import checkpoint

WRAPPINGS = ("student", "model", "state_dict", "net", "model_state_dict", "network")
"""Keys under which programs keep a state dict; the first that a file has counts."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def check(specs: Iterable[Spec]) -> None:
    """Read the weight files of runs that are about to start, and check that they fit a backbone.

    The number of classes is checked where the reader of the images declares it; the run itself checks it always.

    Raises:
        UserError: a file cannot be read, or fits no backbone.
    """
    checked = set()
    for spec in specs:
        if spec.teacher_file is None or (spec.teacher_file, spec.dataset) in checked:
            continue
        checked.add((spec.teacher_file, spec.dataset))
        values = run_config.parse(spec.config, spec.id)
        classes, channels = readers.classes(values["Dataset.source"]), len(values["Dataset.mean"])
        path = places.user_path(spec.teacher_file)
        try:
            fitting_backbone(state := read(path), path, classes or _classes(state), channels)
        except RunError as error:
            raise UserError(str(error)) from None


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of torch.save or safetensors, as it is or one level down, its names without `PREFIXES`.

    Raises:
        RunError: the file cannot be read, or holds something else.
    """
    content = _safetensors(path) if is_safetensors(path) else checkpoint.load(path)
    state = _unwrapped(content, path)
    while any(all(name.startswith(prefix) for name in state) for prefix in PREFIXES):
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
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise RunError(
            f"reading '{path.name}' needs the package safetensors; install it with: pip install 'kdbench[safetensors]'"
        ) from None
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(checkpoint.unreadable(path, error)) from None


def _unwrapped(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict in a file: under the key where programs usually put it, else at the top, else under the only such key."""
    for key in WRAPPINGS:
        if isinstance(content.get(key), Mapping):
            return _tensors(content[key], f"under '{key}' in '{path.name}'")
    inside = [key for key, value in content.items() if isinstance(value, Mapping) and _is_state(value)]
    if len(inside) > 1:
        names = ", ".join(f"'{key}'" for key in inside)
        raise RunError(
            f"there are several state dicts in '{path.name}' ({names}); save one of them alone, with torch.save"
        )
    if inside:
        return _tensors(content[inside[0]], f"in '{path.name}'")
    return _tensors(content, f"in '{path.name}'")


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _tensors(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not state:
        raise RunError(f"there are no tensors {where}")
    return state


def _classes(state: Mapping[str, Tensor]) -> int:
    """The number of classes that the weights were trained for: what the last matrix gives."""
    matrices = [value for value in state.values() if value.dim() == 2]
    return len(matrices[-1]) if matrices else 1


def fitting_backbone(state: Mapping[str, Tensor], path: Path, classes: int, channels: int) -> str:
    """The backbone whose state dict has these names and shapes.

    Raises:
        RunError: none has; the nearest is named, and how it differs.
    """
    differences: dict[str, _Difference] = {}
    for name in extensions.members("backbone"):
        try:
            with torch.device("meta"):
                wanted = registry.build(name, classes, channels).state_dict()
        except Exception:  # a plug-in's network that cannot be built says nothing about the file
            continue
        differences[name] = _Difference(state, wanted)
        if not differences[name].number:
            return name
    nearest = min(differences, key=lambda name: differences[name].number)
    raise RunError(
        f"the weights in '{path.name}' do not fit any backbone with {classes} classes; nearest is {nearest}: {differences[nearest]}"
    )


class _Difference:
    """The names and shapes in which a state dict differs from a backbone's."""

    def __init__(self, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]):
        self._state, self._wanted = state, wanted
        self._missing = sorted(wanted.keys() - state.keys())
        self._unexpected = sorted(state.keys() - wanted.keys())
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
