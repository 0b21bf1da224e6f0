"""Which runs of a folder are meant: ids or their beginnings, and words such as methods=kd or state=failed. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.config import extensions, places
from kdbench.errors import UserError, nearest, unknown
from kdbench.launch.status import STATES, Run
from kdbench.store.ids import beginning, no_run, run_ids, run_name

KEYS = ("methods", "dataset", "student", "seeds", "state")

_FIELDS = {"methods": "method", "dataset": "dataset", "student": "student"}
_STATE_WORDS = {**{state: state for state in STATES}, "finished": "done"}


@dataclass(frozen=True)
class Selection:
    """What the words of a command mean; without any, all runs.

    Attributes:
        words: ids or their beginnings, of which a run must have one.
        values: by key, those of which a run must have one.
        everything: whether the user said "all".
    """

    words: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    everything: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.values or self.everything)

    def ids(self, runs: Path) -> list[str]:
        """The folders that can hold what is meant.

        Raises:
            UserError: a word that begins no run's id.
        """
        known = run_ids(runs)
        if not self.words:
            return known
        found = [(word, beginning(run_name(word, runs), known)) for word in self.words]
        for word, those in found:
            if not those:
                raise no_run(word, known, runs)
        return sorted({id_ for _, those in found for id_ in those})

    def chosen(self, found: Iterable[Run]) -> list[Run]:
        """Those of `found` that are meant.

        Raises:
            UserError: a name that neither a run has nor kdbench knows.
        """
        runs = list(found)
        for key, attribute in _FIELDS.items():
            there = {getattr(run, attribute) for run in runs} - {None}
            for value in self.values.get(key, ()):
                if value not in there and value not in _known(key):
                    listed = "kdbench list " + {"methods": "methods", "dataset": "datasets", "student": "students"}[key]
                    raise unknown(attribute, value, {*there, *_known(key)}, listed)
        return [run for run in runs if self._has(run)]

    def _has(self, run: Run) -> bool:
        values = {"methods": run.method, "dataset": run.dataset, "student": run.student, "state": run.state}
        values["seeds"] = None if run.seed is None else str(run.seed)
        return all(values[key] in allowed for key, allowed in self.values.items())


def parse(words: Sequence[str]) -> Selection:
    """The words behind `kdbench status` and `kdbench cancel`.

    Raises:
        UserError: an unknown key, a state or seed that cannot be, or "all" beside other words.
    """
    values: dict[str, tuple[str, ...]] = {}
    beginnings = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            beginnings.append(word)
            continue
        if key not in KEYS:
            raise UserError(_unknown_key(key))
        if key in values:
            raise UserError(f"'{key}' is given twice; several values go in one comma list ({key}=A,B)")
        values[key] = tuple(dict.fromkeys(filter(None, text.split(","))))
        if not values[key]:
            raise UserError(f"'{key}=' has no value")
    for state in values.get("state", ()):
        if state not in _STATE_WORDS:
            raise unknown("state", state, STATES)
    if "state" in values:
        values["state"] = tuple(_STATE_WORDS[state] for state in values["state"])
    for seed in values.get("seeds", ()):
        if not seed.isascii() or not seed.isdigit():
            raise UserError(f"seeds takes whole numbers from 0, such as seeds=0,1,2, not '{seed}'")
    if "seeds" in values:
        values["seeds"] = tuple(str(int(seed)) for seed in values["seeds"])
    if "all" in beginnings and len(words) > 1:
        raise UserError("'all' means all runs and stands alone")
    if beginnings == ["all"]:
        return Selection(everything=True)
    return Selection(tuple(beginnings), values)


def _unknown_key(key: str) -> str:
    guess = nearest(key, KEYS)
    hint = f"did you mean '{guess}'?" if guess else f"valid: {', '.join(KEYS)}, and beginnings of ids"
    return f"unknown selection '{key}'; {hint}"


def _known(key: str) -> Collection[str]:
    if key == "student":
        return extensions.members("backbone")
    return places.members({"methods": "method", "dataset": "dataset"}[key])
