"""Files of the user's own that a run is made with: its method, gin files, networks and reader, if they are not kdbench's.

They are stored in the run's folder, laid out like a plug-in folder, so that `--plugins` takes it as it is.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdbench.config import bindings, extensions, ginfile, places, signature
from kdbench.errors import UserError
from kdbench.plan.spec import Spec


def of_run(spec: Spec) -> dict[str, Path]:
    """The files by their name in a plug-in folder ("methods/order.py"); empty for a run of kdbench's files alone.

    A file that is gone, or cannot be read any more, is left out: the run's configuration is complete without it.
    """
    files = [places.members(group).get(getattr(spec, group)) for group in ("method", "dataset", "recipe")]
    files.append(places.sources().get(spec.source))
    words = (spec.student, spec.teacher_word, *(spec.teacher or "").split())
    used = [*(("backbone", word) for word in words), ("reader", _reader(spec.dataset))]
    files += [extension.path for kind, word in used if (extension := extensions.members(kind).get(word or ""))]
    every = _with_all_that_they_use([path for path in files if path])
    placed = ((places.root_of(path), path) for path in every if not _is_built_in(path))
    return {path.relative_to(root).as_posix(): path for root, path in placed if root}


def need_plugins(files: Iterable[Path]) -> bool:
    """True if `--plugins` must name the folder of some of these files, because not all are in an installed package."""
    return any(not places.origin(path).startswith("package ") for path in files)


def _reader(dataset: str) -> str | None:
    with contextlib.suppress(UserError, KeyError):
        return str(bindings.of_group("dataset", dataset)["Dataset.source"].value)
    return None


def _is_built_in(path: Path) -> bool:
    return places.origin(path) == places.BUILT_IN


def _with_all_that_they_use(files: list[Path]) -> list[Path]:
    """The files, those that gin files include, and the modules next to a Python file that it imports."""
    waiting, every = list(files), dict.fromkeys(files)
    while waiting:
        path = waiting.pop()
        if _is_built_in(path):
            continue
        with contextlib.suppress(UserError):
            used = ginfile.includes(path) if path.suffix == ".gin" else list(_imported(path))
            waiting += [other for other in used if other not in every]
            every |= dict.fromkeys(used)
    return list(every)


def _imported(path: Path) -> Iterator[Path]:
    neighbours = {neighbour.stem: neighbour for neighbour in path.parent.glob("*.py")}
    for statement in ast.walk(signature.parse(path)):
        names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import | ast.ImportFrom) else []
        if isinstance(statement, ast.ImportFrom) and statement.module:
            names.append(statement.module)
        for name in names:
            if neighbour := neighbours.get(name.rpartition(".")[2]):
                yield neighbour
