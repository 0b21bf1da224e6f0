"""Methods built on torch's meta device, where nothing is computed, to learn before a run starts which networks they refuse.

A method refuses a student, or a student with its teachers, by a RunError in `setup`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdbench import methods
from kdbench.backbones import registry
from kdbench.backbones.backbone import Backbone
from kdbench.backbones.copies import copy_of
from kdbench.config import run_config, signature
from kdbench.data.readers import registry as readers
from kdbench.errors import RunError
from kdbench.method import Method
from kdbench.plan.request import WeightFile
from kdbench.plan.spec import Spec
from kdbench.run import arithmetic, load
from kdbench.run import teacher as teachers_
from kdbench.store.folder import SPEC, RunFolder

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays
    from kdbench.data.readers.listing import Listing

SIDE = 64
"""Height and width of images that are not at hand: so large that only a pair of networks is refused, and no small maps."""
_META, _CPU = torch.device("meta"), torch.device("cpu")


class Rehearsal:
    """The methods of runs on images of one kind.

    Args:
        specs: all runs of the plan, among them those that train teachers.
        runs: the folder of all runs.
        content: the images; None if they are not at hand.
    """

    def __init__(self, specs: Iterable[Spec], runs: Path, content: Arrays | Listing | None):
        self._planned = {spec.id: spec for spec in specs}
        self._runs = runs
        self._content = content
        self._networks: dict[tuple[str, int, int], Backbone] = {}
        self._teachers: dict[str, list[dict[str, Any]]] = {}

    def refusal(self, spec: Spec) -> str | None:
        """The sentence with which the method of a run refuses its networks; None if it takes them.

        Whatever else goes wrong is left for the run itself to report.
        """
        try:
            teachers = [each for teachers in self._each_teacher(spec) for each in teachers]
        except Exception:  # of files that someone else may have written
            return None
        try:
            self._built(spec, teachers)
        except RunError as error:
            return str(error)
        except Exception:  # of code of the user's too, which may need values that the meta device does not have
            return None
        return None

    def _built(self, spec: Spec, teachers: list[dict[str, Any]]) -> Method:
        with warnings.catch_warnings(), arithmetic.kept(), _META:
            warnings.simplefilter("ignore")
            arithmetic.with_import(spec.source, lambda: methods.load(spec.source))
            described = self._described(spec, teachers)
            labels = torch.arange(described["images"], device=_CPU) % described["classes"]
            return load.built(described, labels, _META, self._network)

    def _network(self, name: str, classes: int, channels: int, pretrained: bool = False) -> Backbone:
        """A copy of a network that is built once, as `registry.build` makes it; its maps are measured once, too."""
        arguments = name, classes, channels
        if arguments not in self._networks:
            with _CPU:  # on the meta device drawing weights and measuring maps take ten times as long
                network = registry.build(name, classes, channels, pretrained)
            copied = copy_of(network).to(_META)
            copied.stage_shapes = cache(network.stage_shapes)  # type: ignore[method-assign]
            self._networks[arguments] = copied
        return copy_of(self._networks[arguments])

    def _described(self, spec: Spec, teachers: list[dict[str, Any]]) -> dict[str, Any]:
        """A run's method as `load.description` gives it, of the configuration."""
        values = run_config.parse(spec.config, spec.id).values
        prefix = f"{signature.of_method(spec.source).name}."
        classes, shape, images = self._facts(values)
        return {
            "source": spec.source,
            "parameters": {key.removeprefix(prefix): v for key, v in values.items() if key.startswith(prefix)},
            "student": spec.student,
            "classes": classes,
            "image_shape": shape,
            "label_smoothing": values["Train.label_smoothing"],
            "batch_size": values["Train.batch_size"],
            "steps": int(values["Train.epochs"] * images / values["Train.batch_size"]),
            "teachers": teachers,
            "images": images,
        }

    def _facts(self, values: Mapping[str, Any]) -> tuple[int, list[int], int]:
        """Number of classes, shape (channels, height, width) and number of the images."""
        content = self._content
        if content is None:
            side = int(values.get("Dataset.size") or SIDE)
            return readers.classes(values["Dataset.source"]) or 10, [len(values["Dataset.mean"]), side, side], 1000
        sides = content.train_images.shape[1:3] if hasattr(content, "train_images") else (content.size, content.size)
        return len(content.classes), [content.channels, *map(int, sides)], len(content.train_labels)

    def _each_teacher(self, spec: Spec) -> Iterable[list[dict[str, Any]]]:
        """The descriptions of the teachers of a run; several of a run that keeps states of its training."""
        if spec.teacher_untrained is not None:
            yield [load.as_teacher({"backbone": spec.teacher_untrained})]
        if spec.teacher_file is not None:
            if spec.teacher_file not in self._teachers:
                self._teachers[spec.teacher_file] = [self._of_file(spec)]
            yield self._teachers[spec.teacher_file]
        for run in spec.teacher_runs:
            if run not in self._teachers:
                folder = Path(spec.teacher_folders.get(run, self._runs / run))
                plain = RunFolder(folder.parent, folder.name).read(SPEC) if run not in self._planned else None
                self._teachers[run] = self._of_run(self._planned[run] if plain is None else Spec.from_plain(plain))
            yield self._teachers[run]

    def _of_file(self, spec: Spec) -> dict[str, Any]:
        values = run_config.parse(spec.config, spec.id).values
        classes, (channels, *_), _ = self._facts(values)
        normalisation = tuple(values["Dataset.mean"]), tuple(values["Dataset.std"])
        file = WeightFile.of(str(spec.teacher_file))
        return dict(teachers_.of_file(file, classes, channels, normalisation).description)

    def _of_run(self, spec: Spec) -> list[dict[str, Any]]:
        """The descriptions of a run as a teacher, without its method where that has nothing but the student."""
        teachers = [each for described in self._each_teacher(spec) for each in described]
        method = self._built(spec, teachers)
        own = any(not name.startswith("student.") for name in method.state_dict())
        described = self._described(spec, teachers) if own or method.deployed() is not method.student else None
        states = int(run_config.parse(spec.config, spec.id).values.get("Teaching.states", 1))
        plain = {"backbone": spec.student, "method": None}
        return [*[plain] * (states - 1), {"backbone": spec.student, "method": described}]
