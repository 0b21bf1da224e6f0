"""Checks of a resolved configuration: nothing is missing or out of range, and its parts go together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING
from typing import TYPE_CHECKING

from kdbench.config import extensions, optimisers, schedules, settings, signature
from kdbench.config.reading import Reading
from kdbench.errors import UserError

if TYPE_CHECKING:
    from kdbench.config.resolve import Config

GPUS, OPTIMISER, ACCUMULATE = "Machine.gpus", "Train.optimiser", "Train.accumulate"


def of_config(config: Config) -> None:
    """Check all of a configuration.

    Raises:
        UserError: a parameter has no value or one out of range; the reader, the method or several GPUs do not go with a setting.
    """
    _complete(config)
    _ranges(config)
    check_reading(config.shared["Dataset.source"].value, config.shared)
    _mix(config)
    _accumulation(config)
    _second_task(config)


def _complete(config: Config) -> None:
    optimiser = optimisers.OPTIMISERS[
        config.shared[OPTIMISER].value if OPTIMISER in config.shared else optimisers.USUAL
    ]
    wanted = [settings.Dataset, settings.Split, settings.Augment, optimiser, settings.Train]
    schedule = config.shared.get("Train.schedule")
    names = [cls.__name__ for cls in wanted] + ([schedule.value.name] if schedule else [])
    for name in names:
        for parameter, declared in signature.shared()[name].parameters.items():
            if declared.default is MISSING and f"{name}.{parameter}" not in config.shared:
                whose = f"dataset '{config.dataset}'" if name == "Dataset" else f"recipe '{config.recipe}'"
                raise UserError(
                    f"the {whose} does not set {name}.{parameter}; include a complete one, or give it a value"
                )


def _ranges(config: Config) -> None:
    """Build every settings object once, so that a value out of range is refused before anything starts."""
    groups = ("dataset", "recipe", "machine", "measures", "method")
    classes = [cls for group in groups for cls in signature.SHARED_BY_GROUP[group]]
    for cls in classes:
        values = {b.parameter: b.value for b in config.every().values() if b.configurable == cls.__name__}
        if not values:
            continue
        parameters = signature.shared()[cls.__name__].parameters
        if cls in schedules.SCHEDULES and len(values) < len(parameters):
            continue
        # Every value is given: what is left out gin would fill in from the run that this process did last.
        usual = {n: p.default for n, p in parameters.items() if p.default is not MISSING}
        try:
            cls(**{**usual, **values})
        except ValueError as error:
            raise UserError(first_line(error)) from None


def check_reading(source: str, given: Collection[str]) -> None:
    """Compare settings of a dataset with those that its reader takes.

    Args:
        given: keys of parameters, such as "Dataset.size"; those of other settings are passed over.

    Raises:
        UserError: the reader does not take one of them.
    """
    reader = extensions.members("reader").get(source)
    if reader is None:
        return  # `registry.check_folder` refuses it
    takes = reader.options.get("takes", ())
    for name in Reading._fields:
        if f"Dataset.{name}" in given and name not in takes:
            which = ", ".join(
                sorted(r.name for r in extensions.members("reader").values() if name in r.options.get("takes", ()))
            )
            raise UserError(f"the reader '{source}' does not take Dataset.{name}; those that do: {which or 'none'}")


def _mix(config: Config) -> None:
    """Refuse mixed images for a method that needs more of an image than a mixture of labels."""
    if not any(f"Mix.{name}" in config.shared for name in ("mixup", "cutmix")):
        return
    several = config.signature.attributes.get("images_per_anchor", 1) != 1
    where = config.signature.needs_classes
    if where or several:
        why = f"it reads the class of each image ({where})" if where else "it samples images around each anchor"
        raise UserError(f"{config.method} cannot be trained on mixed images (Mix.*): {why}")


def _second_task(config: Config) -> None:
    """Refuse a second task where there is none, or a method that sorts its terms itself."""
    if "SecondTask.weight" not in config.shared:
        return
    source, labels = (
        config.shared[key].value if key in config.shared else None for key in ("Dataset.source", "Dataset.labels")
    )
    if source != "cifar100" or labels == "coarse":
        raise UserError("SecondTask.weight needs the fine classes of cifar100, whose superclasses are the second task")
    if config.machine["Machine.compile"].value:
        raise UserError("SecondTask.weight does not work with Machine.compile, because it looks into the student")
    if "update" in config.signature.functions:
        raise UserError(
            f"SecondTask.weight does not work with the method '{config.method}', whose own update sorts its terms"
        )


def _accumulation(config: Config) -> None:
    """Refuse parts of a batch where a method or several GPUs need the whole."""
    if ACCUMULATE not in config.shared:
        return
    given = f"{ACCUMULATE}={config.shared[ACCUMULATE].value}"
    if "update" in config.signature.functions:
        raise UserError(
            f"{given} does not work with the method '{config.method}', whose own update takes the losses of a whole batch"
        )
    if config.machine[GPUS].value > 1:
        raise UserError(f"{given} requires {GPUS}=1; several GPUs already share each batch")


def first_line(error: ValueError) -> str:
    """Our sentence in an error of a settings class; gin adds lines of its own."""
    return (str(error).splitlines() or ["a value is out of range"])[0]
