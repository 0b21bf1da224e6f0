"""The metadata of a student's weights: which run they are of, and which images they are for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

METADATA = "kdbench"
"""The key of the metadata of a file that holds a student's facts, as a JSON object."""


@dataclass(frozen=True)
class Facts:
    """The metadata of a student's weights.

    Attributes:
        run: id of the run that trained it.
        student: name of its backbone, without pretrained weights that it started from.
        classes: number of logits K.
        class_names: in the order of the logits; empty where the run did not record them.
        mean, std: of each channel, for pixel values in 0..1.
        image_shape: (channels, height, width) of the images that it was trained on.
        accuracy: top-1 on the test set in percent, after the last epoch.
        kdbench: version that wrote the file.
    """

    run: str
    method: str
    dataset: str
    student: str
    seed: int
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]
    accuracy: float
    protocol: str
    kdbench: str

    def text(self) -> str:
        """The facts as a JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, text: str) -> Facts:
        """The facts that `text` returned.

        Raises:
            ValueError: one is missing, or is not what it should be; the message is the reason.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("its metadata are not JSON") from None
        if not isinstance(content, dict):
            raise ValueError("its metadata are not a JSON object")
        facts = cls(**{field.name: _value(field.name, content) for field in fields(cls)})
        if len(facts.image_shape) != 3 or not all(0 < each <= _LARGEST for each in facts.image_shape):
            raise ValueError("the 'image_shape' of its metadata is not (channels, height, width)")
        channels = facts.image_shape[0]
        if len(facts.mean) != channels or len(facts.std) != channels or min(facts.std) <= 0:
            raise ValueError(f"its mean and std do not fit images of {channels} channels")
        if facts.class_names and len(facts.class_names) != facts.classes:
            raise ValueError(f"it has {facts.classes} classes and {len(facts.class_names)} names of classes")
        return facts


_NUMBERS = {"seed": int, "classes": int, "accuracy": float}
_LISTS = {"class_names": str, "mean": float, "std": float, "image_shape": int}
_LARGEST = 1 << 16


def _value(name: str, content: Mapping[str, Any]) -> Any:
    if name not in content:
        raise ValueError(f"its metadata have no '{name}'")
    value = content[name]
    if name in _LISTS and isinstance(value, list) and all(_is(each, _LISTS[name]) for each in value):
        return tuple(value)
    if name not in _LISTS and _is(value, _NUMBERS.get(name, str)):
        return value
    raise ValueError(f"the '{name}' of its metadata is not what kdbench writes")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool)
