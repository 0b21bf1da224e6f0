"""Differences between the resolved parameters of two methods or two runs. No torch; nothing is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdbench.config import places, resolve, run_config, signature
from kdbench.config.settings import Machine, Measures
from kdbench.config.switches import Control, Teaching
from kdbench.errors import UserError, hint, nearest, reason
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.plan.spec import Spec
from kdbench.store import ids, teachers
from kdbench.store.folder import CONFIG, RESULT, RunFolder

SHARED, MACHINE, MEASURES, RUN, CONTROL = "shared", "machine", "measures", "the run's", "the control's"
"""Owners of what is not a method's own parameter; `RUN` is what may differ between runs of one table: seed and teacher."""

_NONE = "–"
_TABLE = ("dataset", "student", "protocol")  # equal for all runs of a table
_CHECKSUMS = {"dataset": "data.sha256", "teacher": "teacher.sha256"}  # one name may stand for different contents


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: the title of its column.
        title: one line that describes it.
        values: its resolved parameters by key.
        names: dataset, student, protocol, teacher and seed of a run, each with a checksum or None; empty for a method.
    """

    name: str
    title: str
    values: Mapping[str, Any]
    names: Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Difference:
    """A parameter (with a dot) or name of a run (without one) that differs.

    Attributes:
        a, b: the two values as text; "–" where a side has none.
        owner: `SHARED`, `MACHINE`, `MEASURES`, `RUN`, `CONTROL`, or the method class ("KD's own").
    """

    parameter: str
    a: str
    b: str
    owner: str


@dataclass(frozen=True)
class Comparison:
    """Two methods or two runs, and all that differs between them."""

    a: Side
    b: Side
    differences: tuple[Difference, ...]

    @property
    def is_fair(self) -> bool:
        """True if everything is equal that must be equal in one table, and neither side is a control of the other."""
        return not any(difference.owner in (SHARED, CONTROL) for difference in self.differences)

    @property
    def summary(self) -> str:
        """One sentence: what differs, and whether the two belong in one table."""
        return _summary(self.differences, "runs" if self.a.names else "methods")


def diff(a: str, b: str, runs: Path, words: Sequence[str] = ()) -> Comparison:
    """Compare two methods or two runs.

    Args:
        a, b: names of methods; or run folders, or ids or beginnings of ids in `runs`.
        runs: the folder of all runs.
        words: selections and bindings to resolve methods with, such as "dataset=cifar100".

    Raises:
        UserError: a name that is neither a method nor a run, a method with a run, a run without a result, or a wrong word.
    """
    folder_a, folder_b = _folder(a, runs), _folder(b, runs)
    if folder_a is None and folder_b is None:
        sides = _methods(a, b, words, runs)
    elif folder_a is None or folder_b is None:
        method, run = (a, b) if folder_a is None else (b, a)
        raise UserError(f"'{method}' is a method and '{run}' is a run; diff compares two methods or two runs")
    elif words:
        raise UserError(f"'{words[0]}' applies to methods only; a run's configuration is the one it ran with")
    else:
        sides = of_run("A", folder_a), of_run("B", folder_b)
    return Comparison(*sides, tuple(compare(*sides)))


def compare(a: Side, b: Side) -> list[Difference]:
    """The differences: names of the runs, then shared parameters, the methods' own, the machine's and measures'."""
    names = []
    for key in a.names:
        (left, left_sum), (right, right_sum) = a.names[key], b.names[key]
        if left == right and left_sum and right_sum and left_sum != right_sum:
            left, right = f"{left} {left_sum[:8]}", f"{right} {right_sum[:8]}"
        if left != right:
            names.append(Difference(key, left, right, SHARED if key in _TABLE else RUN))
    parameters = [
        Difference(key, _text(a.values, key), _text(b.values, key), _owner(key, a.values))
        for key in sorted({*a.values, *b.values})
        if key not in a.values or key not in b.values or a.values[key] != b.values[key]
    ]
    last = (MACHINE, MEASURES)
    return names + sorted(parameters, key=lambda each: (each.owner in last) - (each.owner == SHARED))


def _summary(differences: Sequence[Difference], kind: str) -> str:
    """The sentence of `Comparison.summary`; `kind` is "methods" or "runs"."""
    if not differences:
        return f"nothing differs: the two {kind} have the same configuration"
    parameters = [each for each in differences if "." in each.parameter]
    names = [each.parameter for each in differences if "." not in each.parameter]
    shared = sum(each.owner == SHARED for each in parameters)
    table = [name for name in names if name in _TABLE and not (name == "protocol" and shared)]
    if table == ["protocol"]:  # it holds the version of the results too
        return (
            f"the protocol differs but no shared parameter does: these {kind} come from different versions of kdbench"
        )
    if table or shared:
        what = [*table, _count(shared, "shared parameter")] if shared else table
        return f"{_listed(what)} {_differ(shared or len(table))}: these {kind} do not belong in one table"
    controls = [each.parameter for each in parameters if each.owner == CONTROL]
    if controls:
        return f"{_listed(controls)} {_differ(len(controls))}: a control, in which more differs than a method's own parameters"
    seed_or_teacher = [name for name in names if name not in _TABLE]
    if not parameters:
        return f"no parameter differs; {_listed(seed_or_teacher)} {_differ(len(seed_or_teacher))}"
    return _fair(parameters, seed_or_teacher)


def _fair(parameters: Sequence[Difference], seed_or_teacher: Sequence[str]) -> str:
    """The sentence about parameters that may differ in one table."""
    machine = sum(each.owner == MACHINE for each in parameters)
    measures = sum(each.owner == MEASURES for each in parameters)
    counts = {
        "the methods' own": len(parameters) - machine - measures,
        "the machine's": machine,
        "of the final measurements": measures,
    }
    owners = [owner for owner, n in counts.items() if n]
    part = _listed([f"{counts[owner]} of them {owner}" for owner in owners])
    if len(owners) == 1:
        part = owners[0] if len(parameters) == 1 else f"all of them {owners[0]}"
    also = f" ({_listed(seed_or_teacher)} {_differ(len(seed_or_teacher))} too)" if seed_or_teacher else ""
    unpaired = ", but not paired by seed" if "seed" in seed_or_teacher else ""
    count = _count(len(parameters), "parameter")
    return f"{count} {_differ(len(parameters))}, {part}{also}: a fair comparison{unpaired}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _differ(n: int) -> str:
    return "differs" if n == 1 else "differ"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _text(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else _NONE


def _owner(key: str, values: Mapping[str, Any]) -> str:
    configurable = key.rpartition(".")[0]
    if key == "Machine.gpus" and "Parallel.sync_bn" in values:
        return SHARED  # each GPU normalises over its own share (kdbench/config/resolve.py)
    apart = {
        Machine.__name__: MACHINE,
        Measures.__name__: MEASURES,
        Control.__name__: CONTROL,
        Teaching.__name__: RUN,
    }
    other = SHARED if configurable in signature.shared() else f"{configurable}'s own"
    return apart.get(configurable, other)


def _folder(word: str, runs: Path) -> Path | None:
    """The run folder that a word means; None for a method, which takes precedence if the word could be both."""
    methods = places.members("method")
    if word in methods:
        return None
    folders = {path.parent.name: path.parent for path in sorted(runs.glob(f"*/{CONFIG}"))}
    path = places.user_path(word)
    if word not in folders and ("/" in word or (path / CONFIG).is_file()):
        if not (path / CONFIG).is_file():
            raise UserError(f"'{word}' is not a run folder (it has no {CONFIG})")
        return path.resolve()
    run = ids.one(word, folders)
    if run:
        return folders[run]
    guess = ids.nearest_run(word, folders) if "-" in word else nearest(word, methods)  # ids have a "-" in them
    end = hint(guess, "see all with: kdbench list methods, kdbench status --all")
    raise UserError(f"'{word}' is neither a method nor a run in {runs}{end}")


def _methods(a: str, b: str, words: Sequence[str], runs: Path) -> tuple[Side, Side]:
    if any(word.startswith("methods=") for word in words):
        raise UserError("diff takes its two methods without 'methods=', as in kdbench diff A B")
    request = request_.parse([f"methods={a},{b}", *words])
    request.check_one_value("diff")
    for key in ("dataset", "student", "teacher", "recipe"):
        if len(getattr(request, key)) > 1:
            raise UserError(f"diff takes one {key}, not {len(getattr(request, key))}")
    # The plan fills in what the dataset proposes, and refuses a binding that neither method uses.
    planned = expand.plan(replace(request, seeds=request.seeds[:1]), teachers.finder(runs))
    specs = {spec.method: spec for spec in planned if not spec.is_teacher}

    def side(name: str) -> Side:
        spec = specs[name]
        resolved = resolve.resolve(name, spec.dataset, spec.recipe, request.overrides)
        every = resolved.every()
        teacher = f"teacher {spec.teacher}" if spec.teacher else "no teacher"
        title = f"dataset {spec.dataset}, recipe {spec.recipe}, {teacher}"
        return Side(name, title, {key: binding.value for key, binding in every.items()}, {})

    return side(a), side(b)


def of_run(name: str, path: Path, result: Mapping[str, Any] | None = None) -> Side:
    """The run in a folder.

    Args:
        name: the title of its column.
        result: its result; None to read it from the folder.

    Raises:
        UserError: it has no result, or its configuration is not a resolved one.
    """
    folder = RunFolder(path.parent, path.name)
    folder.check_links()
    try:
        result = result or folder.checked(RESULT)
    except (OSError, ValueError) as error:
        raise UserError(f"the run '{path.name}' has no readable result, which diff needs ({reason(error)})") from None
    names = {}
    for key in (*_TABLE, "teacher", "seed"):
        value = result.get(key)
        names[key] = (_NONE if value is None else str(value), result.get(_CHECKSUMS.get(key, "")))
    title = f"{path.name}, recipe {result.get('recipe', _NONE)}, {result.get('status', _NONE)}"
    return Side(name, title, run_config.read(path / CONFIG).values, names)


def of_spec(name: str, spec: Spec) -> Side:
    """A planned run; `name` is the title of its column."""
    names = {key: getattr(spec, key) for key in (*_TABLE, "teacher", "seed")}
    texts = {key: (_NONE if value is None else str(value), None) for key, value in names.items()}
    return Side(name, f"{spec.id}, recipe {spec.recipe}", run_config.parse(spec.config, spec.id).values, texts)
