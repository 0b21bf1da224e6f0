"""Which runs of a folder are meant: ids or their beginnings, and words such as methods=kd or state=failed. No torch here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench import models, places
from kdbench.errors import UserError, nearest, unknown
from kdbench.status import STATES, Run, run_ids

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
        found = [(word, beginning(_name(word, runs), known)) for word in self.words]
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


def one(word: str, ids: Iterable[str]) -> str | None:
    """The run that a word means: its id, or the beginning of no other's; None if there is none.

    Raises:
        UserError: it begins the ids of several.
    """
    begun = beginning(word, ids)
    if len(begun) > 1:
        more = f" and {len(begun) - 3} others" if len(begun) > 3 else ""
        raise UserError(f"'{word}' begins the ids of {len(begun)} runs: {', '.join(begun[:3])}{more}; say more of one")
    return begun[0] if begun else None


def beginning(word: str, ids: Iterable[str]) -> list[str]:
    """The ids that begin with a word; if it ends where a part of an id does, only those (seed 1, not seed 10)."""
    begun = [id_ for id_ in ids if id_.startswith(word)]
    if word in begun:
        return [word]
    return [id_ for id_ in begun if id_[len(word)] == "-"] or begun


def short_names(ids: Collection[str]) -> dict[str, str]:
    """By id, the short beginning that means this run: without the hash, or with as much of it as is needed."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for id_ in ids:
        alike[id_.rpartition("-")[0]].append(id_)
    found: dict[str, str] = {}
    for start, same in alike.items():
        ends = [id_[len(start) :] for id_ in same]
        longest = max(map(len, ends))
        length = 0 if start and len(same) == 1 else 5
        while len({end[:length] for end in ends}) < len(ends) and length < longest:
            length += 1
        found |= {id_: start + end[:length] if start else id_ for id_, end in zip(same, ends, strict=True)}
    return found


def folder(word: str, runs: Path) -> Path:
    """The folder of the one run that a word means, in `runs`.

    Raises:
        UserError: there is none, or several.
    """
    known = run_ids(runs)
    found = one(_name(word, runs), known)
    if found is None:
        raise no_run(word, known, runs)
    return runs / found


def nearest_run(word: str, ids: Iterable[str]) -> str | None:
    """The id whose beginning is most like a word: the end of an id is hard to type."""
    by_start = {id_[: len(word)]: id_ for id_ in ids}
    return by_start.get(nearest(word, by_start) or "")


def no_run(word: str, ids: Iterable[str], runs: Path) -> UserError:
    """The error for a word that begins none of `ids`."""
    guess = nearest_run(word, ids)
    hint = f"did you mean '{guess}'? " if guess else ""
    return UserError(f"'{word}' begins the id of no run in {runs}; {hint}See all with: kdbench status --all")


def _name(word: str, runs: Path) -> str:
    """The shell completes names to paths: those of folders in `runs` are as good as their names."""
    path = Path(word).expanduser()
    return path.name if "/" in word and path.resolve().parent == runs.resolve() else word


def _unknown_key(key: str) -> str:
    guess = nearest(key, KEYS)
    hint = f"did you mean '{guess}'?" if guess else f"valid: {', '.join(KEYS)}, and beginnings of ids"
    return f"unknown selection '{key}'; {hint}"


def _known(key: str) -> Collection[str]:
    if key == "student":
        return models.NAMES
    return places.members({"methods": "method", "dataset": "dataset"}[key])
