"""The training set of a run, looked at before the run starts: whether it is what is asked for, and whether a step fits into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import signature
from kdbench.config.settings import Split
from kdbench.config.switches import Labels
from kdbench.data.readers import registry
from kdbench.errors import UserError, loading_torch
from kdbench.plan import steps
from kdbench.plan.spec import Spec

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays
    from kdbench.data.readers.listing import Listing


def check_images(values: Mapping[str, Any], content: Arrays | Listing, folder: Path | None) -> list[str]:
    """Compare the configuration of a protocol with the images that its runs read.

    Args:
        values: the configuration.
        folder: the data folder.

    Returns:
        Sentences for the user: where image files will be decoded.

    Raises:
        UserError: a measure needs files that are not there; `kdbench data check` has listed broken images; the disk has too
            little room for decoded images.
        RunError: the images do not fit `Dataset.mean` or `ResizedCrop.*`.
    """
    from kdbench.data import memory
    from kdbench.data.readers import decoded_file
    from kdbench.data.readers.listing import Listing

    source = str(values["Dataset.source"])
    registry.check_channels(source, content, values["Dataset.mean"])
    registry.check_crop(source, content, values.get("ResizedCrop.test_share", 1.0))
    if values.get("Measures.published_corruptions"):
        with loading_torch():
            from kdbench.measures import published_corruptions

        published_corruptions.check(source, folder)
    if not isinstance(content, Listing):
        return []
    _check_broken(content, source, folder)
    usual = {name: parameter.default for name, parameter in signature.shared()["Machine"].parameters.items()}
    images, share = (values.get(f"Machine.{name}", usual[name]) for name in ("images", "memory"))
    placement = memory.placement(content, images, share, crops="ResizedCrop.min_area" in values)
    if placement.where == "cache" and folder:
        decoded_file.path(content, folder)
    return [placement.sentence]


def count(values: Mapping[str, Any], content: Arrays | Listing) -> int:
    """The number of training images of a protocol.

    Raises:
        RunError: the training set cannot be what is asked for (`training_set`).
    """
    from kdbench.data.training_set import training_set

    changes = Labels(**{f.name: values[key] for f in fields(Labels) if (key := f"Labels.{f.name}") in values})
    split = Split(values["Split.validation"], values["Split.seed"])
    return len(training_set(content.train_labels, content.classes, split, changes).train)


def check_budget(spec: Spec, values: Mapping[str, Any], images: int) -> None:
    """Refuse a run whose budget is less than one step.

    Args:
        values: its configuration.
        images: number of its training images.

    Raises:
        RunError: see `steps.budget_of`.
    """
    attributes = signature.of_method(spec.source).attributes
    passes = attributes.get("passes") or attributes.get("images_per_anchor", 1) * len(attributes.get("views", ("",)))
    per_step = steps.anchors(int(values["Train.batch_size"]), passes) * passes
    steps.budget_of(values["Train.epochs"], images, values.get("Control.budget", 1.0), per_step)


def _check_broken(listing: Listing, source: str, folder: Path | None) -> None:
    """Refuse images of which `kdbench data check` has found some that cannot be read, unless they are left out already."""
    from kdbench.data.readers import inspection

    verdict = inspection.remembered(listing, source, folder) if folder else None
    if verdict and verdict.broken:
        more = f" (and {len(verdict.broken) - 1:,} more)" if len(verdict.broken) > 1 else ""
        raise UserError(
            f"{next(iter(verdict.broken.values()))}{more}; mend or remove it, or pass Dataset.skip_broken=True"
        )
