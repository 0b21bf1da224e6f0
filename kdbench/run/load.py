"""A finished run, loaded from its folder without images: the deployed network, or the whole method with what it trained.

What a method keeps of each training image (buffers with a row for each) is left out of the checkpoint, and so is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import methods
from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone, Features
from kdbench.config import places, run_config, signature
from kdbench.errors import RunError, UserError
from kdbench.method import Info, Method, Teacher, second_task
from kdbench.plan.spec import Spec
from kdbench.run import checkpoint
from kdbench.store.folder import CHECKPOINT, CONFIG
from kdbench.streams import Streams

_CPU = torch.device("cpu")


def deployed(folder: Path) -> nn.Module:
    """The deployed network of a finished run: normalised images (B, C, H, W) to logits (B, K); on the CPU, in evaluation mode.

    Raises:
        RunError: the weights cannot be read, or the network is another one than the student and cannot be built here.
    """
    return deployed_of(checkpoint.load(folder / CHECKPOINT))


def deployed_of(content: Mapping[str, Any]) -> nn.Module:
    """The deployed network of what a checkpoint holds, as `deployed` returns it.

    Raises:
        RunError: see `deployed`.
    """
    network = fresh_network(content)
    network.load_state_dict(content["student"])
    return network.eval()


def image_shape(content: Mapping[str, Any], run: str) -> tuple[int, int, int]:
    """(channels, height, width) of the images of what a checkpoint holds.

    Raises:
        RunError: the checkpoint does not record it.
    """
    if "method" not in content:
        raise RunError(f"the checkpoint of {run} does not record the size of its images; an earlier kdbench wrote it")
    channels, height, width = content["method"]["image_shape"]
    return channels, height, width


def method(folder: Path) -> Method:
    """The method of a finished run, with its student, modules and exits; on the CPU, in evaluation mode.

    Its own teachers are networks of the right architecture, but untrained.

    Raises:
        RunError: the weights cannot be read, or are those of another version of the method's file.
    """
    return filled(checkpoint.load(folder / CHECKPOINT), folder.name)


def normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel that a run's images were normalised with, for pixel values in 0..1."""
    values = run_config.read(folder / CONFIG)
    return tuple(values["Dataset.mean"]), tuple(values["Dataset.std"])


def description(spec: Spec, method: Method, teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The description from which a method is rebuilt and filled, as plain containers and tensors.

    Args:
        teachers: descriptions of its teachers (`LoadedTeacher.description`).
    """
    info = method.info
    prefix = f"{signature.of_method(spec.source).name}."
    values = run_config.parse(spec.config, spec.id).values
    deploys_student = method.deployed() is method.student
    per_image = {name for name, buffer in method.named_buffers() if buffer.dim() and len(buffer) == info.images}
    state = {
        name: value
        for name, value in method.state_dict().items()
        if name not in per_image and not (deploys_student and name.startswith("student."))
    }
    return {
        "source": spec.source,
        "parameters": {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)},
        "student": spec.student,
        "classes": info.classes,
        "train_labels": info.train_labels.to(torch.int32),
        "image_shape": list(info.image_shape),
        "label_smoothing": info.label_smoothing,
        "batch_size": info.batch_size,
        "steps": info.steps,
        "teachers": [dict(teacher) for teacher in teachers],
        "deploys_student": deploys_student,
        **({"second_labels": method.second_head.label_of.tolist()} if method.second_head is not None else {}),
        "state": state,
    }


def as_teacher(content: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a teacher, of what its checkpoint holds: its backbone, and how its method is built, without weights."""
    if "method" not in content:
        return {"backbone": content["backbone"], "method": None}
    architecture = {name: value for name, value in content["method"].items() if name not in ("state", "train_labels")}
    return {"backbone": content["backbone"], "method": architecture}


def fresh_network(content: Mapping[str, Any]) -> nn.Module:
    """A network like the one that a checkpoint holds the weights of."""
    described = content.get("method")
    if described is not None and not described["deploys_student"]:
        return built(described, described["train_labels"].long()).deployed()
    if described is not None:
        return registry.build(content["backbone"], described["classes"], described["image_shape"][0], pretrained=False)
    fc, first = content["student"]["fc.weight"], next(w for w in content["student"].values() if w.dim() == 4)
    return registry.build(content["backbone"], len(fc), first.shape[1])


def filled(content: Mapping[str, Any], run: str) -> Method:
    """The method of what a checkpoint holds.

    Raises:
        RunError: it holds the network alone, or the method's file is missing or another version of it.
    """
    described = content.get("method")
    if described is None:
        raise RunError(f"the checkpoint of {run} holds the network alone; an earlier kdbench wrote it")
    if described["source"] not in places.sources():
        raise RunError(
            f"methods/{described['source']}.py, which trained {run}, is not here; name its folder with --plugins"
        )
    try:
        method = built(described, described["train_labels"].long())
        missing, unexpected = method.load_state_dict(described["state"], strict=False)
        method.deployed().load_state_dict(content["student"])
    except (RuntimeError, ValueError) as error:
        raise RunError(
            _another_version(described["source"], run, str(error).strip().splitlines()[-1].strip())
        ) from None
    kept = [name for name in missing if not _is_left_out(name, method, described["deploys_student"])]
    if kept or unexpected:
        raise RunError(_another_version(described["source"], run, ", ".join([*kept, *unexpected][:3])))
    return method.eval()


def _is_left_out(name: str, built: Method, deploys_student: bool) -> bool:
    buffer = dict(built.named_buffers()).get(name)
    per_image = buffer is not None and buffer.dim() > 0 and len(buffer) == built.info.images
    return per_image or (deploys_student and name.startswith("student."))


def _another_version(source: str, run: str, why: str) -> str:
    return f"the weights of {run} do not fit methods/{source}.py, which has changed since ({why})"


def built(
    described: Mapping[str, Any],
    labels: Tensor,
    device: torch.device = _CPU,
    build: Callable[..., Backbone] = registry.build,
) -> Method:
    """A method as it is described, with untrained networks.

    Args:
        labels: (N,) of the training images.
        device: the one that the method is informed of; torch's default device decides where it is built.
        build: makes the networks, called as `registry.build`.
    """
    channels = described["image_shape"][0]

    def network(name: str | None, stream: str) -> Backbone:
        return build(name or described["student"], described["classes"], channels, pretrained=False)

    info = Info(
        classes=described["classes"],
        train_labels=labels,
        image_shape=tuple(described["image_shape"]),
        label_smoothing=described["label_smoothing"],
        device=device,
        batch_size=described["batch_size"],
        steps=described["steps"],
        network=network,
    )
    with Streams(0).as_global("load"):
        teachers = [_untrained(teacher, described, labels, device, build) for teacher in described["teachers"]]
        student = network(None, "the student")
        method: Method = methods.class_of(described["source"])(student, teachers, info, **described["parameters"])
        if described.get("second_labels"):
            second_task.attach(method, described["second_labels"])
    return method


def _untrained(
    teacher: Mapping[str, Any],
    taught: Mapping[str, Any],
    labels: Tensor,
    device: torch.device,
    build: Callable[..., Backbone],
) -> Teacher:
    if teacher["method"] is None:
        return Teacher(build(teacher["backbone"], taught["classes"], taught["image_shape"][0], pretrained=False))
    method = built(teacher["method"], labels, device, build)
    return Teacher(network_of(method), method)


def network_of(built: Method) -> Backbone:
    """The deployed network of a method, as a teacher's."""
    network = built.deployed()
    return network if isinstance(network, Backbone) else LogitsOnly(network)


class LogitsOnly(Backbone):
    """A deployed network that is not a backbone, as a teacher: it has logits and no maps.

    Args:
        network: images (B, C, H, W) to logits (B, K).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def stem(self, images: Tensor) -> Tensor:
        raise UserError("the teacher's method deploys a network that is not a backbone, which has logits alone")

    def forward(self, images: Tensor, features: bool | Iterable[Any] = False) -> Tensor | Features:
        """Logits (B, K).

        Raises:
            UserError: more than logits is asked for.
        """
        if features is not False:
            self.stem(images)
        logits: Tensor = self.network(images)
        return logits
