"""The files that runs read, images and teachers, tried before the first run starts.

What cannot be read would otherwise fail each run that needs it, a day later perhaps. Images are read as the first run would
read them: decoded once, they are then in the cache of their reader (0.2 s for CIFAR). So the plan costs what the first run
saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import extensions, places, run_config
from kdbench.data.readers import registry
from kdbench.errors import UserError, loading_torch
from kdbench.plan.spec import Spec
from kdbench.run import fault
from kdbench.store.folder import RunFolder

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays


def check(specs: Sequence[Spec], runs: Path, data: Path | None, dry_run: bool = False) -> list[str]:
    """Read the images and the teachers of runs that are about to start.

    Args:
        runs: the folder of all runs, with the teachers that have finished.
        data: the folder of the datasets; None for those that come with kdbench.
        dry_run: download nothing, and leave out datasets for which no folder is given.

    Returns:
        Sentences for the user: files that were passed by, and teachers that are near chance.

    Raises:
        UserError: the images of a dataset are missing or cannot be read; a teacher cannot be read, does not fit any
            backbone, or is of other images.
    """
    sentences: list[str] = []
    registry.read_once.cache_clear()  # the files may have changed since the last plan of this process
    try:
        for source, datasets in _by_source(specs).items():
            wanted = [spec for spec in specs if spec.dataset in datasets]
            arrays = _images(source, wanted, data, dry_run, sentences)
            if arrays is not None:
                sentences += arrays.notes
                for spec in datasets.values():
                    registry.check_channels(source, arrays, _values(spec)["Dataset.mean"])
            sentences += _teachers(wanted, {spec.id for spec in specs}, runs, arrays)
    except UserError:
        raise
    except Exception as error:  # of a reader or a network of the user's too
        raise UserError(fault.sentence(error)) from error
    return sentences


def _values(spec: Spec) -> Any:
    return run_config.parse(spec.config, spec.id).values


def _by_source(specs: Sequence[Spec]) -> dict[str, dict[str, Spec]]:
    """A spec of each dataset by the dataset's name, by the source of its images."""
    by_source: dict[str, dict[str, Spec]] = {}
    for spec in {spec.dataset: spec for spec in specs}.values():  # parsing a configuration takes milliseconds
        by_source.setdefault(str(_values(spec)["Dataset.source"]), {})[spec.dataset] = spec
    return by_source


def _images(
    source: str, specs: Sequence[Spec], data: Path | None, dry_run: bool, sentences: list[str]
) -> Arrays | None:
    """The images of a source; None where they need not or cannot be read yet."""
    reader = extensions.member("reader", source, "data source")
    needs_folder = reader.options.get("needs_folder", False)
    if not needs_folder and not any(spec.teacher_file for spec in specs):
        return None  # they come with kdbench or with the reader, and not from the user's files
    if needs_folder and dry_run:
        if data is None:
            return None
        if not registry.is_present(source, data):
            sentences.append(f"the images of {source} are not in {data}; without --dry-run they are downloaded")
            return None
    if reader.origin == places.BUILT_IN:
        return registry.read_once(source, data)
    with loading_torch():
        from kdbench.streams import Streams

    with Streams(0).as_global("preparation"):  # a reader may draw from the global generators, as it does in a run
        return registry.read_once(source, data)


def _teachers(specs: Sequence[Spec], to_do: set[str], runs: Path, arrays: Arrays | None) -> list[str]:
    """Read the weight files and the finished runs that teach these runs; sentences about those that are near chance."""
    files = {spec.teacher_file: spec for spec in specs if spec.teacher_file}
    folders = {
        folder: spec
        for spec in specs
        for run in spec.teacher_runs
        if run not in to_do and (folder := Path(spec.teacher_folders.get(run, runs / run))).is_dir()
    }
    finished = [folder for folder in folders if RunFolder(folder.parent, folder.name).state() == "finished"]
    if not files and not finished:
        return []
    with loading_torch():
        from kdbench.run import teacher

    digest = arrays.digest() if arrays else None
    for folder in finished:
        teacher.check_run(RunFolder(folder.parent, folder.name), _values(folders[folder]), digest)
    doubts = [teacher.check_file(places.user_path(file), _values(spec), arrays) for file, spec in files.items()]
    return [doubt for doubt in doubts if doubt]
