"""Rows of one table → lines: what each method reached with each teacher, over its seeds."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from kdbench.config.resolve import digest
from kdbench.config.settings import BASELINE
from kdbench.plan.spec import EQUAL_TEACHER_SEED
from kdbench.report.stats.differences import ACCURACY, Differences
from kdbench.report.stats.intervals import Interval, mean_interval

Row = dict[str, str]


@dataclass(frozen=True)
class Line:
    """What a method reached with one teacher.

    Attributes:
        method: its name, with its own parameters where they are not the usual ones.
        teacher: its name and accuracy; "" for none.
        runs: those that count, one a seed.
        superseded: older runs of the same seeds, which do not count.
        teachers: runs that were made to teach students of the same architecture, which do not count either.
        accuracy: on the test set after the last epoch, percent; None if no run has finished.
        exits: mean accuracy of each classifier that was trained, percent.
        differences: of all lines of the table to the baseline; None until the line is in a table.
        rank: 1 + the number of lines that are significantly better (kdbench.report.significance); None without two seeds.
        marks: signs that a note below the table explains.
    """

    method: str
    teacher: str
    runs: tuple[Row, ...]
    superseded: tuple[Row, ...] = ()
    teachers: tuple[Row, ...] = ()
    accuracy: Interval | None = None
    exits: dict[str, float] = field(default_factory=dict)
    differences: Differences | None = field(default=None, repr=False, compare=False)
    rank: int | None = None
    marks: str = ""

    @property
    def is_baseline(self) -> bool:
        """Whether this is the student alone with its usual values; the label also says how many trials chose them."""
        row = self.runs[0]
        return row["method"] == BASELINE and row["method.parameters"] in ("", "{}")

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The accuracies that went into the mean."""
        return self.values(ACCURACY)

    def values(self, key: str) -> dict[int, float]:
        """By seed, a key of the results of the finished runs that have it."""
        return {int(row["seed"]): value for row in self.finished if (value := number(row, key)) is not None}

    @property
    def difference(self) -> Interval | None:
        """In accuracy to the baseline, paired by seed; None for the baseline itself and without common seeds."""
        return self.difference_in(ACCURACY)

    @property
    def p(self) -> float | None:
        """Of the paired t test of this difference, Holm-corrected over the lines of the table; None without a test."""
        return self.p_of(ACCURACY)

    def difference_in(self, key: str) -> Interval | None:
        """The same in any key of the results."""
        return self.differences.of(self, key) if self.differences else None

    def p_of(self, key: str) -> float | None:
        """The same for the difference in any key of the results."""
        return self.differences.p(self, key) if self.differences else None

    @property
    def name(self) -> str:
        """What tells the line from the others of its table."""
        return f"{self.method}, teacher {self.teacher}" if self.teacher else self.method

    @property
    def config(self) -> str:
        """A short hash of what the line's runs were configured with, as far as a row tells it."""
        row = self.runs[0]
        return digest([row["protocol"], row["method"], row["method.parameters"]])[:8]

    @property
    def commits(self) -> list[str]:
        """The commits of the code that made the runs, each once, in the order of the seeds."""
        texts = [row.get("provenance.commits") or row.get("provenance.commit", "") for row in self.runs]
        return list(dict.fromkeys(commit for text in texts for commit in text.split()))

    @cached_property
    def finished(self) -> list[Row]:
        """The runs that have an accuracy."""
        return [row for row in self.runs if scored(row)]

    @cached_property
    def failed(self) -> list[Row]:
        """The runs that have none."""
        return [row for row in self.runs if not scored(row)]

    def measured(self, key: str) -> Interval | None:
        """Mean and interval of a key of the results, over the finished runs that have it; None if none has."""
        if key not in self._measured:  # every file that is written asks for the same keys
            values = [value for row in self.finished if (value := number(row, key)) is not None]
            self._measured[key] = mean_interval(values) if values else None
        return self._measured[key]

    @cached_property
    def _measured(self) -> dict[str, Interval | None]:
        return {}


def number(row: Row, key: str) -> float | None:
    """The finite number in a cell, or None."""
    try:
        value = float(row.get(key, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def scored(row: Row) -> bool:
    """Whether this run has a result that can be averaged."""
    return row["status"] == "finished" and number(row, ACCURACY) is not None


@lru_cache(maxsize=4096)  # most rows of a board share theirs
def with_values(name: str, parameters: str, short: bool, trials: int = 0) -> str:
    """`kd (temperature=2.0; 20 trials)`, or `name` alone where nothing is changed and nothing was tuned.

    Args:
        parameters: JSON text of an object; anything else is shown as it is.
        short: leave out the configurable before the dot, unless two parameters are then called the same.
        trials: that it took to choose these values.
    """
    try:
        values = dict(sorted(json.loads(parameters or "{}").items()))
    except (ValueError, AttributeError):
        return f"{name} ({parameters})"
    last = [key.rpartition(".")[2] for key in values]
    texts = []
    for key, end, value in zip(values, last, values.values(), strict=True):
        shown = end if short and last.count(end) == 1 else key
        texts.append(f"{shown}={value if isinstance(value, str) else json.dumps(value)}")
    told = f"{trials} trial{'s' * (trials != 1)}" if trials else ""
    inside = "; ".join(filter(None, [", ".join(texts), told]))
    inside = inside.encode(errors="replace").decode()  # JSON can write half a character, and no file can hold one
    return f"{name} ({inside})" if inside else name


def lines(rows: list[Row]) -> list[Line]:
    """The lines of one table, without rank and comparison: by method, own parameters, teacher and teacher's weights."""
    groups: dict[tuple[str, str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        label = with_values(row["method"], row["method.parameters"], short=True)
        groups[label, row["method"], row["teacher"]][row.get("teacher.sha256", "")].append(row)
    found = []
    for (_, _, teacher), by_weights in groups.items():
        # A run may fail before it knows its teacher's weights; with one teacher to choose from it belongs there.
        known = [weights for weights in by_weights if weights]
        if len(known) == 1 and not any(scored(row) for row in by_weights.get("", [])):
            by_weights[known[0]] += by_weights.pop("", [])
        found += [_line(teacher, group) for group in by_weights.values()]
    return found


def _line(teacher: str, rows: list[Row]) -> Line:
    # A run that was made to teach students of its own architecture is none of the seeds that were compared.
    taught = [row for row in rows if row["method"] == BASELINE and int(row["seed"]) == EQUAL_TEACHER_SEED]
    students = [row for row in rows if row not in taught]
    rows = sorted(students or rows, key=lambda row: (row.get("provenance.finished_at", ""), row["run"]))
    newest = {int(row["seed"]): row for row in rows}
    counted = [newest[seed] for seed in sorted(newest)]
    finished = [row for row in counted if scored(row)]

    def mean(key: str, among: list[Row]) -> float:
        return mean_interval(value for row in among if (value := number(row, key)) is not None).mean

    # Seeds of one line may have been run before and after tuning; the larger effort is what chose the values.
    trials = max(int(number(row, "tuning.trials") or 0) for row in counted)
    newest_row = rows[-1]
    measured = mean("teacher.accuracy", counted)
    exits = [key for key in newest_row if key.startswith("exits.")]  # all rows of a frame have the same keys
    keys = [key for key in exits if any(number(row, key) is not None for row in finished)]
    # exit2 before exit10, and both before the ensemble of all.
    ordered = sorted(keys, key=lambda key: (not key[-1].isdigit(), len(key), key))
    return Line(
        method=with_values(newest_row["method"], newest_row["method.parameters"], short=True, trials=trials),
        teacher=teacher if math.isnan(measured) else f"{teacher} ({measured:.1f})".strip(),
        runs=tuple(counted),
        teachers=tuple(taught) if students else (),
        superseded=tuple(row for row in rows if newest[int(row["seed"])] is not row),
        accuracy=mean_interval(float(row[ACCURACY]) for row in finished) if finished else None,
        exits={key.removeprefix("exits."): mean(key, finished) for key in ordered},
    )
