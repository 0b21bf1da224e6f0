"""The runs that a command's words select: run ids or prefixes, and filters such as methods=kd or state=failed. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench import words as words_
from kdbench.config import extensions, places
from kdbench.errors import UserError, nearest, unknown
from kdbench.launch.status import STATES, RunStatus
from kdbench.store import ids as ids_

KEYS = ("methods", "dataset", "student", "seeds", "state")

_NAMES = {"methods": "method", "dataset": "dataset", "student": "student"}
"""Keys whose values are names; the attribute of a run that each is compared with."""
_STATES = {**{state: state for state in STATES}, "finished": "done"}


@dataclass(frozen=True)
class RunFilter:
    """Conditions that a run must meet; without any, all runs.

    Attributes:
        prefixes: run ids or prefixes; a run's id must match one of them.
        values: allowed values by key.
        is_all: whether the user wrote "all".
    """

    prefixes: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_all: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.prefixes or self.values or self.is_all)

    def ids(self, runs: Path) -> list[str]:
        """The ids that match a prefix, without reading any run.

        Raises:
            UserError: no run has an id that starts with one of the prefixes.
        """
        every = ids_.run_ids(runs)
        if not self.prefixes:
            return every
        matches: set[str] = set()
        for prefix in self.prefixes:
            matching = ids_.matching(ids_.run_name(prefix, runs), every)
            if not matching:
                raise ids_.no_run(prefix, every, runs)
            matches.update(matching)
        return sorted(matches)

    def select(self, statuses: Iterable[RunStatus]) -> list[RunStatus]:
        """The runs that meet the conditions on values.

        Raises:
            UserError: a name that neither kdbench knows nor any of the runs has.
        """
        runs = list(statuses)
        for key, attribute in _NAMES.items():
            names = {getattr(run, attribute) for run in runs} - {None}
            for value in self.values.get(key, ()):
                if value not in names and value not in _valid_names(key):
                    see = "kdbench list " + {"methods": "methods", "dataset": "datasets", "student": "students"}[key]
                    raise unknown(attribute, value, {*names, *_valid_names(key)}, see)
        return [run for run in runs if self._matches(run)]

    def _matches(self, run: RunStatus) -> bool:
        values = {"methods": run.method, "dataset": run.dataset, "student": run.student, "state": run.state}
        values["seeds"] = None if run.seed is None else str(run.seed)
        return all(values[key] in allowed for key, allowed in self.values.items())


def parse(words: Sequence[str]) -> RunFilter:
    """The filter that the words behind `kdbench status` and `kdbench cancel` make.

    Raises:
        UserError: an unknown key, an impossible state or seed, or "all" together with other words.
    """
    parsed = words_.parse(words, KEYS, _unknown_key)
    for binding in parsed.bindings:
        raise _unknown_key(binding.partition("=")[0])
    values = dict(parsed.values)
    for state in values.get("state", ()):
        if state not in _STATES:
            raise unknown("state", state, STATES)
    if "state" in values:
        values["state"] = tuple(_STATES[state] for state in values["state"])
    if "seeds" in values:
        values["seeds"] = tuple(map(str, words_.seed_numbers(values["seeds"])))
    if "all" in parsed.bare and len(words) > 1:
        raise UserError("'all' cannot be combined with other selections")
    if parsed.bare == ("all",):
        return RunFilter(is_all=True)
    return RunFilter(parsed.bare, values)


def _unknown_key(key: str) -> UserError:
    guess = nearest(key, KEYS)
    hint = f"did you mean '{guess}'?" if guess else f"valid: {', '.join(KEYS)}, and run ids or prefixes"
    return UserError(f"unknown selection '{key}'; {hint}")


def _valid_names(key: str) -> Collection[str]:
    if key == "student":
        return extensions.members("backbone")
    return places.members({"methods": "method", "dataset": "dataset"}[key])
