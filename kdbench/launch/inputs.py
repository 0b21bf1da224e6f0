"""The files that runs read, images and teachers, tried before the first run starts, and which networks their methods refuse.

What cannot be read would otherwise fail each run that needs it, a day later perhaps. Images are read as the first run would
read them: decoded once, they are then in the cache of their reader (0.2 s for CIFAR). So the plan costs what the first run
saves.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.config import extensions, places, run_config, signature
from kdbench.config.reading import Reading
from kdbench.data.readers import registry
from kdbench.errors import UserError, loading_torch
from kdbench.launch import training
from kdbench.plan.request import WeightFile
from kdbench.plan.spec import Spec
from kdbench.run import fault
from kdbench.store.folder import RunFolder

if TYPE_CHECKING:
    from kdbench.data.readers.arrays import Arrays
    from kdbench.data.readers.listing import Listing


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
            backbone, or is of other images; a method refuses its networks.
    """
    sentences: list[str] = []
    refused: list[tuple[Spec, str]] = []
    registry.read_once.cache_clear()  # the files may have changed since the last plan of this process
    try:
        for (source, reading), wanted in _by_images(specs).items():
            content = _images(source, reading, wanted, data, dry_run, sentences)
            if content is not None:
                sentences += content.notes
                sentences += _protocols(wanted, content, data)
            sentences += _teachers(wanted, {spec.id for spec in specs}, runs, content)
            refused += _refused(wanted, specs, runs, content)
        _check_refused(refused, specs)
        sentences += _kept_outputs(specs)
    except UserError:
        raise
    except Exception as error:  # of a reader or a network of the user's too
        raise UserError(fault.sentence(error)) from error
    return sentences


def _protocols(specs: Sequence[Spec], content: Arrays | Listing, data: Path | None) -> list[str]:
    """Sentences about the images of each protocol; of many methods on a million images, these are looked at once."""
    counts: dict[str, int] = {}
    sentences: dict[str, None] = {}
    for spec in {(spec.protocol, spec.method): spec for spec in specs}.values():
        values = _values(spec)
        if spec.protocol not in counts:
            sentences |= dict.fromkeys(training.check_images(values, content, data))
            counts[spec.protocol] = training.count(values, content)
        training.check_budget(spec, values, counts[spec.protocol])
    return list(sentences)


def _kept_outputs(specs: Sequence[Spec]) -> list[str]:
    """A sentence about the disk that outputs of teachers in training may take, where they are kept."""
    taught = [spec for spec in specs if spec.teacher_runs or spec.teacher_file]
    most = _values(taught[0]).get("Machine.teacher_cache_gib", 0) if taught else 0  # the same for all runs of a plan
    if not most:
        return []
    files = {(spec.protocol, spec.seed, spec.teacher_runs, spec.teacher_file) for spec in taught}
    return [
        f"the outputs of teachers in training take at most {most:g} GiB in RUNS/.teachers for each teacher and seed, in all "
        f"{most * len(files):g} GiB, shared by {len(taught)} run{'s' * (len(taught) > 1)} (Machine.teacher_cache_gib)"
    ]


def _values(spec: Spec) -> Any:
    return run_config.parse(spec.config, spec.id).values


def _by_images(specs: Sequence[Spec]) -> dict[tuple[str, Reading], list[Spec]]:
    """Runs that read the same images, by the source of these and how they are read."""
    # Parsing a configuration takes milliseconds.
    read: dict[tuple[str, str], tuple[str, Reading]] = {}
    for spec in {(spec.dataset, spec.protocol): spec for spec in specs}.values():
        values = _values(spec)
        settings = {name: values[key] for name in Reading._fields if (key := f"Dataset.{name}") in values}
        read[spec.dataset, spec.protocol] = str(values["Dataset.source"]), Reading(**settings)
    by_images: dict[tuple[str, Reading], list[Spec]] = {}
    for spec in specs:
        by_images.setdefault(read[spec.dataset, spec.protocol], []).append(spec)
    return by_images


def _images(
    source: str, reading: Reading, specs: Sequence[Spec], data: Path | None, dry_run: bool, sentences: list[str]
) -> Arrays | Listing | None:
    """The images of a source; None where they need not or cannot be read yet."""
    reader = extensions.member("reader", source, "data source")
    needs_folder = reader.options.get("needs_folder", False)
    own = reader.origin != places.BUILT_IN
    if own and not needs_folder and not any(spec.teacher_file for spec in specs):
        return None  # they come with the reader, which may take long, and not from the user's files
    if needs_folder and dry_run:
        if data is None:
            return None
        if not registry.is_present(source, data):
            sentences.append(f"the images of {source} are not in {data}; without --dry-run they are downloaded")
            return None
    if not own:
        return registry.read_once(source, data, reading)
    with loading_torch():
        from kdbench.streams import Streams

    with Streams(0).as_global("preparation"):  # a reader may draw from the global generators, as it does in a run
        return registry.read_once(source, data, reading)


def _teachers(specs: Sequence[Spec], to_do: set[str], runs: Path, content: Arrays | Listing | None) -> list[str]:
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

    digest = content.digest() if content else None
    for folder in finished:
        teacher.check_run(RunFolder(folder.parent, folder.name), _values(folders[folder]), digest)
    doubts = [teacher.check_file(WeightFile.of(file), _values(spec), content) for file, spec in files.items()]
    return [doubt for doubt in doubts if doubt]


def _refused(
    specs: Sequence[Spec], planned: Sequence[Spec], runs: Path, content: Arrays | Listing | None
) -> list[tuple[Spec, str]]:
    """The runs whose method refuses their networks, one of all that differ in the seed alone, each with the method's sentence."""
    each = {
        (spec.config, spec.student, spec.teacher_runs, spec.teacher_file, spec.teacher_untrained): spec
        for spec in specs
        if _may_refuse(spec.source)
    }
    if not each:
        return []
    with loading_torch():
        from kdbench.run.rehearsal import Rehearsal

    rehearsal = Rehearsal(planned, runs, content)
    sentences = ((spec, rehearsal.refusal(spec)) for spec in each.values())
    return [(spec, sentence) for spec, sentence in sentences if sentence]


def _may_refuse(source: str) -> bool:
    """True if a method looks at its networks in `setup`, and its file raises RunError or calls a function `check_…` that may."""
    if "setup" not in signature.of_method(source).functions:
        return False
    tree = signature.parse(places.sources()[source])
    names = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return any(name == "RunError" or name.startswith("check_") for name in names)


def _check_refused(refused: Sequence[tuple[Spec, str]], specs: Sequence[Spec]) -> None:
    """Raises UserError if a method refuses its networks: each such method once, and how to leave it out."""
    if not refused:
        return
    by_method = {spec.method: (spec, sentence) for spec, sentence in reversed(refused)}
    methods = {spec.method for spec in specs if not spec.is_teacher}
    sentences = [sentence for _, sentence in by_method.values()]
    if len(methods) > 1:
        number, remedy = len(by_method), ",".join(f"-{name}" for name in sorted(by_method))
        sentences = [
            f"{number} of {len(methods)} methods cannot be trained with these networks; leave {'it' if number == 1 else 'them'} "
            f"out with {remedy} at the end of methods=",
            *(f"{name} on {spec.student}: {sentence}" for name, (spec, sentence) in sorted(by_method.items())),
        ]
    raise UserError(". ".join(sentences))
