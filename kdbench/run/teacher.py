"""Teachers: finished runs, or weights from outside; in both cases known by the checksum of what was really loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.config import extensions, run_config
from kdbench.config.settings import Dataset
from kdbench.data.readers import registry as readers
from kdbench.data.task import Task
from kdbench.errors import RunError
from kdbench.method import Method, Teacher
from kdbench.plan.request import WeightFile
from kdbench.plan.spec import TEACHER_SEED, Spec
from kdbench.run import checkpoint, fault, plausibility, student_file, weight_file
from kdbench.run import load as load_
from kdbench.store.folder import CHECKPOINT, RunFolder
from kdbench.streams import Streams

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays
    from kdbench.data.readers.listing import Listing

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
        method: the method that trained it, where that has more than the network.
        scale, shift: (C, 1, 1) each, from the student's normalisation to its own; None where they are the same.
        is_earlier: a state of its training before the end.
        description: what a network like it is built from (`load.as_teacher`).
    """

    network: Backbone
    run: str | None
    sha256: str
    recorded: float | None
    method: Method | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    is_earlier: bool = False
    description: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device) -> None:
        """Move it to the device, channels last in memory."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.method is not None:
            self.method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.method.info = replace(self.method.info, device=device)

    def seen_by_methods(self) -> Teacher:
        """The teacher as methods see it."""
        device = next(self.network.parameters()).device
        scale, shift = (None if each is None else each.to(device) for each in (self.scale, self.shift))
        return Teacher(self.network, self.method, scale, shift)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in the student's normalisation."""
        return self.seen_by_methods()(images, ["logits"]).logits

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
    """The teachers of a run, in the order of the spec, states of one run by their age; none if it needs none.

    Args:
        task: the dataset, which must be the one that they were trained on.

    Raises:
        RunError: one is not there, not the one claimed, or of no known architecture.
    """
    classes, channels = task.classes, task.image_shape[0]
    if spec.teacher_untrained is not None:
        return (_untrained(spec.teacher_untrained, classes, channels),)
    teachers = []
    own = _normalisation_of(run_config.parse(spec.config, spec.id).values)
    if spec.teacher_file is not None:
        teachers.append(of_file(WeightFile.of(spec.teacher_file), classes, channels, own))
    for run in spec.teacher_runs:
        folder = Path(spec.teacher_folders.get(run, runs / run))
        teachers += _of_run(RunFolder(folder.parent, folder.name), own, task.digest)
    return tuple(teachers)


def check_run(folder: RunFolder, values: Mapping[str, Any], data: str | None) -> None:
    """Load a finished run that is to teach, as its students will.

    Args:
        values: the configuration of a student's run.
        data: checksum of the students' images; None if they are not at hand.

    Raises:
        RunError: it cannot be loaded, or is not what its result says.
    """
    try:
        _of_run(folder, _normalisation_of(values), data)
    except Exception as error:  # of files that someone else may have written
        sentence, run = fault.sentence(error), folder.path.name
        raise RunError(sentence if run in sentence else f"the run {run} cannot teach: {sentence}") from error


def check_file(file: WeightFile, values: Mapping[str, Any], content: Arrays | Listing | None) -> str | None:
    """Read a weight file that is to teach, as its students will, and try it on training images.

    Args:
        values: the configuration of a student's run.
        content: the images; None if they are not at hand.

    Returns:
        A sentence if it is near chance, or right on classes in another order (`plausibility.doubt`).

    Raises:
        RunError: it cannot be read, or does not fit any backbone with the classes and channels of the images.
    """
    if content is None:
        state = weight_file.read(file.path)
        coarse = values.get("Dataset.labels") == "coarse"  # the reader declares the number of the fine classes
        classes = (None if coarse else readers.classes(values["Dataset.source"])) or weight_file.classes_of(state)
        weight_file.fitting(state, file.path, classes, len(values["Dataset.mean"]), file.network)
        return None
    teacher = of_file(file, len(content.classes), content.channels, _normalisation_of(values))
    dataset = Dataset(**{name: values[f"Dataset.{name}"] for name in ("source", "mean", "std", "mirrored")})
    return plausibility.doubt(teacher.network, plausibility.some(content), dataset, file.path.name, teacher.logits)


def doubt(spec: Spec, teachers: Sequence[LoadedTeacher], task: Task, dataset: Dataset) -> str | None:
    """A sentence about the first teacher of a run, if the user named it and `plausibility.doubt` finds it odd."""
    trained_by_the_plan = spec.teacher_word is None or (
        spec.teacher_file is None and extensions.is_backbone(spec.teacher_word)
    )
    if not teachers or trained_by_the_plan:
        return None
    first = next(teacher for teacher in teachers if not teacher.is_earlier)
    name = WeightFile.of(spec.teacher_file).path.name if spec.teacher_file else first.run
    return plausibility.doubt(first.network, task.train, dataset, str(name), first.logits)


def _checked(folder: RunFolder, data: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result and the checkpoint of a run that teaches."""
    run = folder.path.name
    if folder.state() != "finished":
        raise RunError(f"its teacher's run {run} is {folder.state()}")
    result = folder.typed_result()
    content = checkpoint.load(folder / CHECKPOINT)
    try:
        sha256 = checkpoint.weights_sha256(content["student"])
    except (KeyError, AttributeError, TypeError):
        raise RunError(f"the {CHECKPOINT} of the teacher's run {run} does not hold the weights of a run") from None
    if sha256 != result.get("weights.sha256"):
        raise RunError(
            f"the weights of the teacher's run {run} do not match the recorded checksum (sha256); "
            f"train it again: {result.get('provenance.command', 'kdbench run')} --rerun"
        )
    if data is not None and result.get("data.sha256") != data:
        raise RunError(f"the teacher's run {run} was trained on different images from the present ones (data.sha256)")
    return result, content


def _normalisation_of(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std that the images of a run are normalised with."""
    return tuple(values["Dataset.mean"]), tuple(values["Dataset.std"])


def _of_run(
    folder: RunFolder, students: tuple[tuple[float, ...], tuple[float, ...]], data: str | None
) -> list[LoadedTeacher]:
    """The states that a run kept of its training, the last being its end.

    Args:
        students: mean and std that the student's images are normalised with.
        data: checksum of the student's images; None if it is not known.
    """
    run = folder.path.name
    result, content = _checked(folder, data)
    sha256 = result["weights.sha256"]
    scale, shift = _renormalisation(students, load_.normalisation(folder.path))
    trained = content.get("method", {}).get("state") or content.get("method", {}).get("deploys_student") is False
    method = load_.filled(content, run) if trained else None
    network = load_.network_of(method) if method is not None else _network(content, content["student"])
    description = load_.as_teacher(content)
    end = LoadedTeacher(network, run, sha256, result.get("accuracy.last"), method, scale, shift, False, description)
    earlier = [
        replace(
            end,
            network=_network(content, state),
            sha256=checkpoint.weights_sha256(state),
            recorded=None,
            method=None,
            is_earlier=True,
        )
        for state in content.get("states", ())
    ]
    return [*earlier, end]


def _network(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Backbone:
    network = load_.fresh_network(content)
    network.load_state_dict(weights)
    return network if isinstance(network, Backbone) else load_.LogitsOnly(network)


def _renormalisation(
    students: tuple[tuple[float, ...], tuple[float, ...]], own: tuple[tuple[float, ...], tuple[float, ...]]
) -> tuple[Tensor | None, Tensor | None]:
    """Scale and shift, (C, 1, 1) each, from images in the student's normalisation to a teacher's own."""
    if students == own:
        return None, None
    (mean_s, std_s), (mean_t, std_t) = (
        [torch.tensor(each, dtype=torch.float64).reshape(-1, 1, 1) for each in pair] for pair in (students, own)
    )
    return (std_s / std_t).float(), ((mean_s - mean_t) / std_t).float()


def _untrained(name: str, classes: int, channels: int) -> LoadedTeacher:
    with Streams(TEACHER_SEED).as_global("init"):
        network = registry.build(name, classes, channels)
    described = load_.as_teacher({"backbone": name})
    return LoadedTeacher(network, None, checkpoint.weights_sha256(network.state_dict()), None, description=described)


def of_file(
    file: WeightFile, classes: int, channels: int, students: tuple[tuple[float, ...], tuple[float, ...]]
) -> LoadedTeacher:
    """A teacher of weights from outside.

    Args:
        students: mean and std that the student's images are normalised with. A file that `kdbench weights` wrote has its own.

    Raises:
        RunError: the file cannot be read, or does not fit a backbone with these classes and channels.
    """
    state, facts = weight_file.read(file.path), student_file.facts_of(file.path)
    # What kdbench wrote names its network, also one of a library, of which no other file could.
    network = file.network or (facts.student if facts and extensions.is_backbone(facts.student) else None)
    name, state = weight_file.fitting(state, file.path, classes, channels, network)
    built = registry.build(name, classes, channels)
    built.load_state_dict(state)
    scale, shift = _renormalisation(students, (facts.mean, facts.std)) if facts else (None, None)
    described = load_.as_teacher({"backbone": name})
    sha256 = checkpoint.weights_sha256(state)
    return LoadedTeacher(built, None, sha256, None, scale=scale, shift=shift, description=described)
