"""Teachers: finished runs, or weights from outside; in both cases known by the checksum of what was really loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.config import extensions
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.method import Teacher
from kdbench.plan.spec import TEACHER_SEED, Spec
from kdbench.run import checkpoint
from kdbench.store.folder import CHECKPOINT, RunFolder
from kdbench.streams import Streams

TOLERANCE = 0.5
"""Points of accuracy by which a teacher measured again may differ from its own run (another device rounds differently)."""


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher as it was loaded.

    Attributes:
        network: on the CPU, until `to` moves it.
        run: id of the run that trained it, None for weights from outside.
        sha256: of its weights.
        recorded: the accuracy in percent that its run recorded.
    """

    network: Backbone
    run: str | None
    sha256: str
    recorded: float | None

    def to(self, device: torch.device) -> None:
        """Move it to the device, channels last in memory."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def seen_by_methods(self) -> Teacher:
        """What a method gets of it."""
        return Teacher(self.network)

    def confirm(self, measured: float) -> None:
        """Compare the accuracy measured again with the recorded one.

        Raises:
            RunError: they differ by more than `TOLERANCE`.
        """
        if self.recorded is not None and abs(measured - self.recorded) > TOLERANCE:
            raise RunError(
                f"the teacher {self.run} scores {measured:.2f} % on the test set, but its run recorded {self.recorded:.2f} %"
            )


def load(spec: Spec, runs: Path, task: Task) -> tuple[LoadedTeacher, ...]:
    """The teachers of a run; none if it needs none.

    Args:
        task: the dataset, which must be the one that they were trained on.

    Raises:
        RunError: one is not there, not the one claimed, or of no known architecture.
    """
    classes, channels = task.classes, task.image_shape[0]
    if spec.teacher_run is not None:
        return (_of_run(spec.teacher_run, runs, classes, channels, task.digest),)
    if spec.teacher_untrained is not None:
        return (_untrained(spec.teacher_untrained, classes, channels),)
    if spec.teacher_file is not None:
        return (_of_file(Path(spec.teacher_file).expanduser(), classes, channels),)
    return ()


def _of_run(run: str, runs: Path, classes: int, channels: int, data: str) -> LoadedTeacher:
    folder = RunFolder(runs, run)
    if folder.state() != "finished":
        raise RunError(f"its teacher's run {run} is {folder.state()}")
    result = folder.result() or {}
    state = checkpoint.load(folder / CHECKPOINT)["student"]
    sha256 = checkpoint.weights_sha256(state)
    if sha256 != result["weights.sha256"]:
        raise RunError(
            f"the weights of the teacher's run {run} are not those that it recorded (sha256 differs); "
            f"train it again: {result['provenance.command']} --rerun"
        )
    if result.get("data.sha256") != data:
        raise RunError(
            f"the teacher's run {run} was trained on other images than those that are there now (data.sha256)"
        )
    network = registry.build(result["student"], classes, channels)
    network.load_state_dict(state)
    return LoadedTeacher(network, run, sha256, result["accuracy.last"])


def _untrained(name: str, classes: int, channels: int) -> LoadedTeacher:
    with Streams(TEACHER_SEED).as_global("init"):
        network = registry.build(name, classes, channels)
    return LoadedTeacher(network, None, checkpoint.weights_sha256(network.state_dict()), None)


def _of_file(path: Path, classes: int, channels: int) -> LoadedTeacher:
    state = _state_in(checkpoint.load(path), path)
    name = _architecture(state, path, classes, channels)
    network = registry.build(name, classes, channels)
    network.load_state_dict(state)
    return LoadedTeacher(network, None, checkpoint.weights_sha256(state), None)


def _state_in(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state dict in a file: at the top, or where training scripts usually put it."""
    for key in ("student", "model", "state_dict", "net"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {name.removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise RunError(f"there are no tensors in '{path.name}'")
    return state


def _architecture(state: Mapping[str, Tensor], path: Path, classes: int, channels: int) -> str:
    """The backbone whose state dict has these names and shapes; the nearest is named where none has."""
    differences = {}
    for name in extensions.members("backbone"):
        with torch.device("meta"):
            wanted = {key: value.shape for key, value in registry.build(name, classes, channels).state_dict().items()}
        missing = sorted(wanted.keys() - state.keys())
        unexpected = sorted(state.keys() - wanted.keys())
        misshapen = sorted(key for key in wanted.keys() & state.keys() if wanted[key] != state[key].shape)
        if not missing and not unexpected and not misshapen:
            return name
        differences[name] = missing, unexpected, misshapen
    nearest = min(differences, key=lambda name: sum(map(len, differences[name])))
    parts = [
        f"{word} {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}"
        for word, keys in zip(("missing", "unexpected", "of another shape"), differences[nearest], strict=True)
        if keys
    ]
    raise RunError(
        f"the weights in '{path.name}' fit no backbone with {classes} classes; nearest is {nearest}: {'; '.join(parts)}"
    )
