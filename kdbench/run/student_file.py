"""A trained student as one file of safetensors, from which alone it is built again: its weights, and facts as metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.config import extensions
from kdbench.errors import RunError, UserError
from kdbench.run import checkpoint, load, weight_file
from kdbench.run.student_facts import METADATA, Facts
from kdbench.store.folder import CHECKPOINT, RESULT, RunFolder
from kdbench.version import __version__


@dataclass(frozen=True)
class Student:
    """A trained student.

    Attributes:
        network: normalised images (B, C, H, W) to logits (B, K); on the CPU, in evaluation mode.
        facts: its metadata.
        is_backbone: it is a network by the name of `facts.student`; False for one that its method puts together.
    """

    network: nn.Module
    facts: Facts
    is_backbone: bool = True

    def on_pixels(self) -> OnPixels:
        """The network with its normalisation inside."""
        return OnPixels(self.network, self.facts.mean, self.facts.std)


class OnPixels(nn.Module):
    """A network behind the normalisation of its images: pixel values (B, C, H, W) in 0..1 to logits (B, K).

    Args:
        network: takes normalised images.
        mean, std: of each of the C channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)
        self.network = network
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def of_run(folder: RunFolder) -> Student:
    """The deployed network of a finished run: without adapters, branches that are not deployed, and teachers.

    A network that started from a library's pretrained weights gets the library's own normalisation, so that its weights
    have the library's names and no others.

    Raises:
        UserError: the run has not finished, or its result cannot be used.
        RunError: its weights cannot be read, or do not match their recorded checksum.
    """
    run, result = folder.path.name, finished(folder)
    content = checkpoint.load(folder / CHECKPOINT)
    image_shape = load.image_shape(content, run)
    network = load.deployed_of(content)
    if checkpoint.weights_sha256(network.state_dict()) != result.get("weights.sha256"):
        raise RunError(f"the weights of {run} do not match the recorded checksum (sha256)")
    mean, std = load.normalisation(folder.path)
    described = content["method"]
    facts = Facts(
        run=run,
        **{name: str(result[name]) for name in ("method", "dataset", "protocol")},
        student=content["backbone"],
        seed=result["seed"],
        classes=described["classes"],
        class_names=_class_names(content, described["classes"]),
        mean=mean,
        std=std,
        image_shape=image_shape,
        accuracy=result["accuracy.last"],
        kdbench=__version__,
    )
    return with_own_normalisation(Student(network, facts, described["deploys_student"]))


def _class_names(content: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """The names that a checkpoint holds; none if an earlier kdbench wrote it."""
    names = content.get("facts", {}).get("class_names", ())
    return tuple(names) if len(names) == classes and all(isinstance(name, str) for name in names) else ()


def finished(folder: RunFolder) -> dict[str, Any]:
    """The result of a run that has finished.

    Raises:
        UserError: there is none, it is a failed run's, or it is not what kdbench writes.
    """
    run = folder.path.name
    folder.check_links()
    try:
        result = folder.checked(RESULT)
    except FileNotFoundError:
        raise UserError(f"the run '{run}' has not finished, so it has no weights yet") from None
    except (OSError, ValueError) as error:
        raise UserError(f"the {RESULT} of the run '{run}' cannot be used: {error}") from None
    if result.get("status") == "failed":
        raise UserError(f"the run '{run}' has failed ({result.get('error')}); it has no weights")
    needed = ("method", "dataset", "student", "protocol", "seed", "accuracy.last")
    if missing := [name for name in needed if result.get(name) is None]:
        raise UserError(f"the {RESULT} of the run '{run}' cannot be used: it has no '{missing[0]}'")
    if not (folder / CHECKPOINT).is_file():
        raise UserError(f"the run '{run}' has no {CHECKPOINT}, so its weights are gone")
    return result


def with_own_normalisation(student: Student) -> Student:
    """A student whose normalisation is that of the pretrained weights that it started from."""
    name = student.facts.student
    if (
        not student.is_backbone
        or not extensions.library_of(name)
        or "scale" not in dict(student.network.named_buffers())
    ):
        return student
    scale, shift = (getattr(student.network, each).double().flatten() for each in ("scale", "shift"))
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in (student.facts.mean, student.facts.std))
    facts = replace(
        student.facts,
        student=name.partition(":")[0] if name.startswith("torchvision/") else name.partition(".")[0],
        mean=tuple((mean - shift * std / scale).float().tolist()),
        std=tuple((std / scale).float().tolist()),
    )
    own = {key: value for key, value in student.network.state_dict().items() if key not in ("scale", "shift")}
    return Student(_built(facts, own), facts)


def _built(facts: Facts, state: Mapping[str, Tensor]) -> Backbone:
    network = registry.build(facts.student, facts.classes, facts.image_shape[0], pretrained=False)
    network.load_state_dict(state)
    return network.eval()


def write(student: Student, path: Path) -> None:
    """Write a student's weights and facts.

    Raises:
        UserError: its method puts the network together, so that the name of a backbone does not describe it; or the package
            safetensors is missing.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise UserError(
            f"writing '{path.name}' needs the package safetensors; install it with: pip install 'kdbench[safetensors]'"
        ) from None
    if not student.is_backbone:
        raise UserError(
            f"the method of {student.facts.run} deploys a network of its own, which weights alone do not describe; "
            "write it as a program with --to student.pt2 or --to student.onnx"
        )
    state = {name: value.contiguous().clone() for name, value in student.network.state_dict().items()}
    # One entry, because safetensors writes several in a random order: a teacher's file is known by the checksum of its bytes.
    path.write_bytes(save(state, {METADATA: student.facts.text()}))


def read(path: Path) -> Student:
    """The student in a file that `write` wrote, built from that file alone.

    Raises:
        RunError: the file cannot be read, is not one that kdbench wrote, or its weights do not fit its student.
        UserError: there is no backbone of its student's name here.
    """
    state = weight_file.read(path)
    facts = facts_of(path)
    if facts is None:
        raise RunError(f"'{path.name}' does not describe its network; kdbench weights writes files that do")
    if not any(value.dim() == 2 and len(value) == facts.classes for value in state.values()):
        raise RunError(
            f"the weights in '{path.name}' are not of {facts.classes} classes"
        )  # before such a network is built
    _, weights = weight_file.fitting(state, path, facts.classes, facts.image_shape[0], facts.student)
    return Student(_built(facts, weights), facts)


def facts_of(path: Path) -> Facts | None:
    """The facts in a file's metadata; None if it is not a file of safetensors, or another program wrote it.

    Raises:
        RunError: its facts are not what kdbench writes.
    """
    text = _metadata(path).get(METADATA)
    if text is None:
        return None
    try:
        return Facts.of(text)
    except ValueError as error:
        raise RunError(f"'{path.name}' cannot be used: {error}") from None


def _metadata(path: Path) -> dict[str, str]:
    if not weight_file.is_safetensors(path):
        return {}
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # as in weight_file.read, which reads the same file
        raise RunError(checkpoint.unreadable(path, error)) from None
