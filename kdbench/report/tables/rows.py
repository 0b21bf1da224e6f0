"""Records of one table → its rows: what each method reached with each teacher, over its seeds."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from kdbench.config.resolve import digest
from kdbench.plan.spec import TEACHER
from kdbench.report.purposes import PURPOSE
from kdbench.report.records import ACCURACY, Record, is_contradicted, is_foreign, number, scored
from kdbench.report.stats.differences import Differences
from kdbench.report.stats.intervals import Interval, mean_interval
from kdbench.words import shortest

UNEVEN = 2.0
_SPARE = 0.5
"""CPU cores of other processes that are always there: the system's own."""
"""Seeds of a row whose training times are further apart did not have the machine to themselves."""


@dataclass(frozen=True)
class Row:
    """One method with one teacher.

    Attributes:
        method: its name, with its own parameters where they are not the usual ones.
        teacher: its name and accuracy; "" for none.
        runs: the runs that count, one per seed.
        superseded: older runs of the same seeds, which do not count.
        teachers: runs that were trained as teachers for students of the same architecture, which do not count either.
        accuracy: accuracy on the test set after the last epoch, percent; None if no run has finished.
        exits: mean accuracy of each classifier that was trained, percent.
        differences: differences of all rows of the table from the baseline; None until the row is in a table.
        rank: 1 + the number of rows that are significantly better (kdbench.report.stats.significance); None without two
            seeds.
        marks: signs that a note below the table explains.
    """

    method: str
    teacher: str
    runs: tuple[Record, ...]
    superseded: tuple[Record, ...] = ()
    teachers: tuple[Record, ...] = ()
    accuracy: Interval | None = None
    exits: dict[str, float] = field(default_factory=dict)
    differences: Differences | None = field(default=None, repr=False, compare=False)
    rank: int | None = None
    marks: str = ""

    @property
    def name(self) -> str:
        """The method with its teacher, which no other row of the table shares."""
        return f"{self.method}, teacher {self.teacher}" if self.teacher else self.method

    def has_defaults_of(self, method: str) -> bool:
        """True for a method with its usual values; the label also gives the number of trials that chose them."""
        record = self.runs[0]
        return record["method"] == method and record["method.parameters"] in ("", "{}")

    @property
    def is_of_teachers(self) -> bool:
        """True if all of its runs were only made to teach others."""
        return all(record[PURPOSE] == TEACHER for record in self.runs)

    @property
    def has_uneven_times(self) -> bool:
        """True if the training of one seed took more than `UNEVEN` times as long as that of another."""
        seconds = self.values("seconds.train").values()
        return len(seconds) > 1 and max(seconds) > UNEVEN * min(seconds)

    @property
    def lack_of_cores(self) -> float:
        """The most CPU cores by which other processes and the threads of a run together exceeded the machine's; 0: none."""
        return max((_lacking(record) for record in self.finished), default=0.0)

    @property
    def read_its_teacher(self) -> bool:
        """True if a run read outputs of a teacher that another run had computed."""
        return any(number(record, "passes.teachers_read") for record in self.finished)

    @property
    def has_comparable_times(self) -> bool:
        """False if its times say nothing: they differ much between seeds, others took cores, or other runs did part of the work."""
        return not (self.has_uneven_times or self.lack_of_cores or self.read_its_teacher)

    @property
    def config(self) -> str:
        """A short hash of the configuration of the runs, as far as a record holds it."""
        record = self.runs[0]
        return digest([record["protocol"], record["method"], record["method.parameters"]])[:8]

    @property
    def commits(self) -> list[str]:
        """The commits of the code that made the runs, each once, in the order of the seeds."""
        return list(dict.fromkeys(commit for record in self.runs for commit in commits(record)))

    @property
    def releases(self) -> list[str]:
        """The versions of kdbench of the runs that no commit is recorded for, each once: "kdbench 0.4.0"."""
        return list(dict.fromkeys(name for record in self.runs if (name := release(record))))

    @cached_property
    def finished(self) -> list[Record]:
        """The runs that have an accuracy."""
        return [record for record in self.runs if scored(record)]

    @cached_property
    def failed(self) -> list[Record]:
        """The runs that have none, and those that `kdbench reproduce` has contradicted, which count as little."""
        return [record for record in self.runs if not scored(record)]

    @property
    def contradicted(self) -> list[Record]:
        """The runs of somebody else that came out differently on this machine."""
        return [record for record in self.runs if is_contradicted(record)]

    def values(self, key: str) -> dict[int, float]:
        """A key of the results by seed, of the finished runs that have it."""
        return {int(record["seed"]): value for record in self.finished if (value := number(record, key)) is not None}

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The accuracies behind the mean."""
        return self.values(ACCURACY)

    def measured(self, key: str) -> Interval | None:
        """Mean and interval of a key of the results, over the finished runs that have it; None if none has."""
        if key not in self._measured:  # every file that is written asks for the same keys
            values = self.values(key).values()
            self._measured[key] = mean_interval(values) if values else None
        return self._measured[key]

    @cached_property
    def _measured(self) -> dict[str, Interval | None]:
        return {}

    @property
    def difference(self) -> Interval | None:
        """Difference of the accuracy from the baseline's, paired by seed; None for the baseline itself and without common seeds."""
        return self.difference_in(ACCURACY)

    @property
    def p(self) -> float | None:
        """p value of this difference, Holm-corrected over the rows of the table; None without a test."""
        return self.p_of(ACCURACY)

    def difference_in(self, key: str) -> Interval | None:
        """`difference` in any key of the results."""
        return self.differences.interval(self.name, key) if self.differences else None

    def p_of(self, key: str) -> float | None:
        """`p` of the difference in any key of the results."""
        return self.differences.p(self.name, key) if self.differences else None


def commits(record: Record) -> list[str]:
    """The commits of the code that made a run, the first one first; none where kdbench was installed from a package."""
    text = record.get("provenance.commits") or record.get("provenance.commit", "")
    return [commit for commit in text.split() if commit != "None"]  # so joined, for a process without a commit


def release(record: Record) -> str:
    """The version of kdbench of a run without a commit, "kdbench 0.4.0"; "" with one, and where neither is recorded."""
    version = record.get("provenance.kdbench", "")
    return f"kdbench {version}" if version and not commits(record) else ""


@lru_cache(maxsize=4096)  # most rows of a board share theirs
def with_values(name: str, parameters: str, short: bool, trials: int = 0) -> str:
    """`kd (temperature=2; 20 trials)`, or `name` alone where nothing is changed and nothing was tuned.

    Args:
        parameters: JSON text of an object; anything else is shown as it is.
        short: leave out the configurable before the dot, unless two parameters then have the same name.
        trials: number of trials that chose these values.
    """
    try:
        values = dict(sorted(json.loads(parameters or "{}").items()))
        written = [value if isinstance(value, str) else json.dumps(shortest(value)) for value in values.values()]
    except (ValueError, AttributeError, RecursionError):
        return f"{name} ({parameters})"
    last = [key.rpartition(".")[2] for key in values]
    texts = []
    for key, end, value in zip(values, last, written, strict=True):
        shown = end if short and last.count(end) == 1 else key
        texts.append(f"{shown}={value}")
    effort = f"{trials} trial{'s' * (trials != 1)}" if trials else ""
    inside = "; ".join(filter(None, [", ".join(texts), effort]))
    inside = inside.encode(errors="replace").decode()  # JSON can write half a character, and no file can hold one
    return f"{name} ({inside})" if inside else name


def rows(records: Iterable[Record]) -> list[Row]:
    """The rows of one table, without rank and differences: by method, own parameters and the teacher's weights.

    Equal weights are one teacher, whatever their file is called.
    """
    groups: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        label = with_values(record["method"], record["method.parameters"], short=True)
        groups[label, record["method"]][record.get("teacher.sha256", "")].append(record)
    made = []
    for by_weights in groups.values():
        without: dict[str, list[Record]] = defaultdict(list)
        for record in by_weights.pop("", []):
            without[record["teacher"]].append(record)
        for teacher, unknown in without.items():
            # A run may fail before it knows its teacher's weights; with one teacher to choose from it belongs there.
            same = [group for group in by_weights.values() if any(r["teacher"] == teacher for r in group)]
            if len(same) == 1 and not any(scored(record) for record in unknown):
                same[0].extend(unknown)
            else:
                made.append(_row(teacher, unknown))
        made += [_row(_name(group), group) for group in by_weights.values()]
    return made


def _name(records: list[Record]) -> str:
    """The teacher's name in a row: a backbone's before a file's, then the first in the alphabet."""
    return min((from_file(record), record["teacher"]) for record in records)[1]


def from_file(record: Record) -> bool:
    """True if a run's teacher is weights from outside, and not a run."""
    return bool(record["teacher"]) and not record.get("teacher.run")


def _row(teacher: str, records: list[Record]) -> Row:
    # A run that was trained as a teacher of its own architecture is not one of the seeds that are compared.
    as_teachers = [record for record in records if record[PURPOSE] == TEACHER]
    students = [record for record in records if record not in as_teachers]
    # A run of this machine counts before one of the same seed that somebody else did, whatever time that records.
    records = sorted(
        students or records,
        key=lambda record: (not is_foreign(record), record.get("provenance.finished_at", ""), record["run"]),
    )
    newest = {int(record["seed"]): record for record in records}
    counted = [newest[seed] for seed in sorted(newest)]
    finished = [record for record in counted if scored(record)]

    def mean(key: str, among: list[Record]) -> float:
        return mean_interval(value for record in among if (value := number(record, key)) is not None).mean

    # Seeds of one row may have been run before and after tuning; the larger effort is what chose the values.
    trials = max(int(number(record, "tuning.trials") or 0) for record in counted)
    last = records[-1]
    teacher_accuracy = mean("teacher.accuracy", counted)
    exits = [key for key in last if key.startswith("exits.")]  # all records of a frame have the same keys
    keys = [key for key in exits if any(number(record, key) is not None for record in finished)]
    # exit2 before exit10, and both before the ensemble of all.
    ordered = sorted(keys, key=lambda key: (not key[-1].isdigit(), len(key), key))
    return Row(
        method=with_values(last["method"], last["method.parameters"], short=True, trials=trials),
        teacher=teacher if math.isnan(teacher_accuracy) else f"{teacher} ({teacher_accuracy:.1f})".strip(),
        runs=tuple(counted),
        teachers=tuple(as_teachers) if students else (),
        superseded=tuple(record for record in records if newest[int(record["seed"])] is not record),
        accuracy=mean_interval(float(record[ACCURACY]) for record in finished) if finished else None,
        exits={key.removeprefix("exits."): mean(key, finished) for key in ordered},
    )


def _lacking(record: Record) -> float:
    load, threads = number(record, "provenance.load"), number(record, "provenance.threads")
    if load is None or threads is None or load <= _SPARE:
        return 0.0
    cores = number(record, "provenance.cores")
    # Rows from before cores were recorded: a busy core is then taken for one that was lacking.
    return max(0.0, load + threads - cores) if cores else load
