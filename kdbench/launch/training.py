"""The training set of a run, looked at before the run starts: whether it is what is asked for, and whether a step fits into it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import signature
from kdbench.config.settings import Split
from kdbench.config.switches import Labels
from kdbench.data.readers import registry
from kdbench.errors import UserError, loading_torch
from kdbench.plan.spec import Spec

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays
    from kdbench.data.readers.listing import Listing


def check(spec: Spec, values: Mapping[str, Any], content: Arrays | Listing, folder: Path | None) -> list[str]:
    """Compare the configuration of a run with the images that it reads.

    Args:
        values: the configuration.
        folder: the data folder.

    Returns:
        Sentences for the user: where image files will be decoded.

    Raises:
        UserError: the budget is less than one step; a measure needs files that are not there; `kdbench data
            check` has found broken images; the disk has too little room
            for decoded images.
        RunError: the images have other channels than the configuration; the training set cannot be what is asked for.
    """
    from kdbench.data import memory
    from kdbench.data.readers import decoded_file
    from kdbench.data.readers.listing import Listing
    from kdbench.data.training_set import training_set

    source = str(values["Dataset.source"])
    registry.check_channels(source, content, values["Dataset.mean"])
    changes = Labels(**{f.name: values[key] for f in fields(Labels) if (key := f"Labels.{f.name}") in values})
    split = Split(values["Split.validation"], values["Split.seed"])
    images = len(training_set(content.train_labels, content.classes, split, changes).train)
    _check_budget(spec, values, images)
    if values.get("Measures.published_corruptions"):
        with loading_torch():
            from kdbench.measures import published_corruptions

        published_corruptions.check(source, folder)
    if not isinstance(content, Listing):
        if values.get("ResizedCrop.test_share", 1.0) != 1:
            raise UserError(
                f"ResizedCrop.test_share is for image files, and '{source}' has images of one size; pass ResizedCrop.test_share=1"
            )
        return []
    _check_broken(content, source, folder)
    usual = {name: parameter.default for name, parameter in signature.shared()["Machine"].parameters.items()}
    images, share = (values.get(f"Machine.{name}", usual[name]) for name in ("images", "memory"))
    placement = memory.placement(content, images, share, crops="ResizedCrop.min_area" in values)
    if placement.where == "cache" and folder:
        decoded_file.path(content, folder)
    return [placement.sentence]


def _check_broken(listing: Listing, source: str, folder: Path | None) -> None:
    """Refuse images of which `kdbench data check` has found that some cannot be read, unless they are left out already."""
    from kdbench.data.readers import inspection

    verdict = inspection.remembered(listing, source, folder) if folder else None
    if verdict and verdict.broken:
        more = f" (and {len(verdict.broken) - 1:,} more)" if len(verdict.broken) > 1 else ""
        raise UserError(
            f"{next(iter(verdict.broken.values()))}{more}; mend or remove it, or pass Dataset.skip_broken=True"
        )


def _check_budget(spec: Spec, values: Mapping[str, Any], images: int) -> None:
    attributes = signature.of_method(spec.source).attributes
    passes = attributes.get("passes") or attributes.get("images_per_anchor", 1) * len(attributes.get("views", ("",)))
    batch = int(values["Train.batch_size"])
    step = math.ceil(batch / passes) * passes
    budget = round(values.get("Control.budget", 1.0) * values["Train.epochs"] * images)
    if budget < step:
        raise UserError(
            f"Train.epochs={values['Train.epochs']:g} of {images:,} training images is a budget of {budget:,}, less than one "
            f"step of Train.batch_size={batch}; pass a smaller batch size or more epochs"
        )
