"""Loggers that show a run while it trains (`log=tensorboard,wandb,mlflow`): each gets the lines of epochs.csv.

A logger is a class `Log` in a file of the package's name: `Log(folder, lines)` begins or continues the logged run of a run folder,
given the lines of epochs.csv so far, `add(line)` shows one more, and `close()` ends what this process has of it, or `withdraw()`
where another process has taken the run over meanwhile. A step is an epoch, and a metric is a column. A logger may fail: it is
then left out, with one warning.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from kdbench.config.loggers import LOGGERS, misfit
from kdbench.plan.spec import is_run_name
from kdbench.store.folder import LOGGED, RunFolder
from kdbench.streams import Streams

Line = Mapping[str, Any]


class Logger(Protocol):
    """One logger of one run."""

    def add(self, line: Line) -> None: ...
    def close(self) -> None: ...
    def withdraw(self) -> None: ...


class Loggers:
    """The loggers of one run, none of which can end it or change its random numbers.

    Args:
        names: of `kdbench.config.loggers.LOGGERS`.
        folder: of the run.
        lines: of epochs.csv so far, the first one first.
    """

    def __init__(self, names: Sequence[str], folder: RunFolder, lines: Sequence[Line]):
        self._folder = folder
        self._loggers: dict[str, Logger] = {}
        for name in names:
            with self._harmless(name):
                if name not in LOGGERS:  # of a configuration that no plan has checked
                    raise ValueError(misfit(name))
                self._loggers[name] = import_module(f"kdbench.run.loggers.{name}").Log(folder, lines)

    def add(self, line: Line) -> None:
        """Show one more line at once."""
        self._each(lambda logger: logger.add(line))

    def close(self) -> None:
        """Hand over what is still to be sent; the run may be continued by another process."""
        self._each(lambda logger: logger.close())

    def withdraw(self) -> None:
        """Leave the logged run to the process that has taken the run over."""
        self._each(lambda logger: logger.withdraw())

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            with self._harmless(name):
                call(logger)

    @contextmanager
    def _harmless(self, name: str) -> Iterator[None]:
        """Leave a logger out that fails, with a warning; the global generators, which methods may draw from, stay."""
        try:
            with Streams(0).as_global("loggers"):
                yield
        except Exception as error:
            self._loggers.pop(name, None)
            sentence = f"log={name} is left out of the rest of this run: {type(error).__name__}: {error}"
            warnings.warn(sentence, stacklevel=2)
            self._folder.log(sentence)


def metrics(line: Line, separator: str = ".") -> dict[str, float]:
    """The values of a line by name of the metric; empty cells are left out, and the epoch, which is the step.

    Args:
        separator: stands for the points of a column's name; many viewers group metrics by "/".
    """
    cells = ((column.replace(".", separator), value) for column, value in line.items() if column != "epoch")
    return {name: float(value) for name, value in cells if value not in (None, "")}


def logged_id(folder: RunFolder, name: str, create: Callable[[], str] | None = None) -> tuple[str, bool]:
    """The id of a run folder's logged run, which processes that resume it continue; done afresh, a run gets a new one.

    Args:
        name: of the logger.
        create: makes an id; by default the run's own with a random end.

    Returns:
        The id, and whether it is new.
    """
    ids = folder.read(LOGGED) or {}
    if is_run_name(id_ := ids.get(name)):  # the folder may be a stranger's, and files are looked for by this name
        return str(id_), False
    ids[name] = create() if create else f"{folder.path.name[:100]}-{secrets.token_hex(4)}"
    folder.write(LOGGED, ids, lasting=False)
    return ids[name], True
