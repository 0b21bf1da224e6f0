"""`kdbench diff A B`: which resolved parameters differ between two methods or two runs. No torch; nothing is executed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gin import config_parser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdbench.config import ginfile, places, resolve, signature
from kdbench.config.settings import Control, Machine, Measures
from kdbench.errors import UserError, nearest
from kdbench.plan import expand
from kdbench.plan import request as request_
from kdbench.plan.spec import Spec
from kdbench.store import ids
from kdbench.store.folder import CONFIG, RunFolder

SHARED, MACHINE, MEASURES, RUN, CONTROL = "shared", "machine", "measures", "the run's", "the control's"
"""Whose a parameter is that is no method's own; `RUN` is what may differ between runs of one table: seed and teacher."""

_NONE = "–"
_TABLE = ("dataset", "student", "protocol")  # what is equal for all runs of a table
_MARKED = {"dataset": "data.sha256", "teacher": "teacher.sha256"}  # names behind which may be different things


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: what the column is called.
        title: what it is, in one line.
        values: its resolved parameters by key.
        names: for a run, its dataset, student, protocol, teacher and seed, each with a checksum or None.
    """

    name: str
    title: str
    values: Mapping[str, Any]
    names: Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True)
class Difference:
    """A parameter (with a dot) or name of a run (without) that differs, as text; "–" where a side has none."""

    parameter: str
    a: str
    b: str
    whose: str


def diff(words: Sequence[str], runs: Path) -> int:
    """Print what differs.

    Args:
        words: A and B, and for methods the selections and bindings that they are resolved with.
        runs: the folder of all runs.

    Returns:
        1 if something differs that must be equal in one table, else 0.

    Raises:
        UserError: a word that means nothing, a method beside a run, a folder that is no run.
    """
    a, b = sides(words, runs)
    differences = compare(a, b)
    # Into a pipe, lines keep their length: whoever greps them wants whole ones.
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=200)
    for side in (a, b):
        console.print(Text(f"{side.name}: {side.title}"))
    if differences:
        table = Table("parameter", a.name, b.name, "whose", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for each in differences:
            style = "bold" if each.whose == SHARED else ""
            table.add_row(*map(Text, (each.parameter, each.a, each.b, each.whose)), style=style)
        console.print()
        console.print(table)
    console.print()
    console.print(Text(summary(differences, "runs" if a.names else "methods")))
    return int(any(each.whose in (SHARED, CONTROL) for each in differences))


def sides(words: Sequence[str], runs: Path) -> tuple[Side, Side]:
    """What the words of the command line mean; the arguments and errors are those of `diff`."""
    asked = [word for word in words if "=" not in word]
    rest = [word for word in words if "=" in word]
    if len(asked) != 2:
        raise UserError(f"diff compares two methods or two runs, as in kdbench diff A B; {len(asked)} given")
    folders = [_folder(word, runs) for word in asked]
    a, b = folders
    if a is None and b is None:
        return _methods(asked[0], asked[1], rest)
    if a is None or b is None:
        method, run = asked if a is None else reversed(asked)
        raise UserError(f"'{method}' is a method and '{run}' is a run; diff compares two methods or two runs")
    if rest:
        raise UserError(f"'{rest[0]}' is for methods; a run's configuration is the one it ran with")
    return of_run("A", a), of_run("B", b)


def compare(a: Side, b: Side) -> list[Difference]:
    """What differs: names of the runs, then shared parameters, the methods' own, the machine's and measures'."""
    found = []
    for key in a.names:
        (left, left_sum), (right, right_sum) = a.names[key], b.names[key]
        if left == right and left_sum and right_sum and left_sum != right_sum:
            left, right = f"{left} {left_sum[:8]}", f"{right} {right_sum[:8]}"
        if left != right:
            found.append(Difference(key, left, right, SHARED if key in _TABLE else RUN))
    parameters = [
        Difference(key, _shown(a.values, key), _shown(b.values, key), _whose(key, a.values))
        for key in sorted({*a.values, *b.values})
        if key not in a.values or key not in b.values or a.values[key] != b.values[key]
    ]
    last = (MACHINE, MEASURES)
    return found + sorted(parameters, key=lambda each: (each.whose in last) - (each.whose == SHARED))


def summary(differences: Sequence[Difference], kind: str) -> str:
    """One sentence: whether the two can stand in one table.

    Args:
        kind: "methods" or "runs".
    """
    if not differences:
        return f"nothing differs: the two {kind} have the same configuration"
    parameters = [each for each in differences if "." in each.parameter]
    shared = sum(each.whose == SHARED for each in parameters)
    machine = sum(each.whose == MACHINE for each in parameters)
    measures = sum(each.whose == MEASURES for each in parameters)
    own = len(parameters) - shared - machine - measures
    names = [each.parameter for each in differences if each not in parameters]
    table = [name for name in names if name in _TABLE and not (name == "protocol" and shared)]
    if table or shared:
        if table == ["protocol"]:  # it holds the version of the results as well
            return (
                f"the protocol differs and no shared parameter does: these {kind} come from other versions of kdbench"
            )
        what = [*table, _count(shared, "shared parameter")] if shared else table
        return f"{_listed(what)} {_differ(shared or len(table))}: these {kind} do not belong in one table"
    controls = [each.parameter for each in parameters if each.whose == CONTROL]
    if controls:
        return f"{_listed(controls)} {_differ(len(controls))}: a control, in which more differs than a method's own parameters"
    beside = [name for name in names if name not in _TABLE]
    unpaired = ", but not one paired by seed" if "seed" in beside else ""
    if not parameters:
        return f"no parameter differs; {_listed(beside)} {_differ(len(beside))}"
    parts = [(own, "the methods' own"), (machine, "the machine's"), (measures, "of what is measured at the end")]
    few = [(n, whose) for n, whose in parts if n]
    part = _listed([f"{n} of them {whose}" for n, whose in few])
    if len(few) == 1:
        part = few[0][1] if len(parameters) == 1 else f"all of them {few[0][1]}"
    also = f" ({_listed(beside)} {_differ(len(beside))} too)" if beside else ""
    return (
        f"{_count(len(parameters), 'parameter')} {_differ(len(parameters))}, {part}{also}: a fair comparison{unpaired}"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _differ(n: int) -> str:
    return "differs" if n == 1 else "differ"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _shown(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else _NONE


def _whose(key: str, values: Mapping[str, Any]) -> str:
    configurable = key.rpartition(".")[0]
    if key == "Machine.gpus" and "Parallel.sync_bn" in values:
        return SHARED  # each GPU normalises over its own share (kdbench/config/resolve.py)
    apart = {Machine.__name__: MACHINE, Measures.__name__: MEASURES, Control.__name__: CONTROL}
    other = SHARED if configurable in signature.shared() else f"{configurable}'s own"
    return apart.get(configurable, other)


def _folder(word: str, runs: Path) -> Path | None:
    """The run folder that a word means; None for a method, which comes first where it could be both."""
    methods = places.members("method")
    if word in methods:
        return None
    found = {path.parent.name: path.parent for path in sorted(runs.glob(f"*/{CONFIG}"))}
    path = Path(word).expanduser()
    if word not in found and ("/" in word or (path / CONFIG).is_file()):
        if not (path / CONFIG).is_file():
            raise UserError(f"'{word}' is no run folder: there is no {CONFIG} in it")
        return path.resolve()
    run = ids.one(word, found)
    if run:
        return found[run]
    guess = ids.nearest_run(word, found) if "-" in word else nearest(word, methods)  # ids have a "-" in them
    hint = f"did you mean '{guess}'? " if guess else ""
    raise UserError(
        f"'{word}' is neither a method nor a run in {runs}; {hint}See all with: kdbench list methods, kdbench status --all"
    )


def _methods(a: str, b: str, words: Sequence[str]) -> tuple[Side, Side]:
    if any(word.startswith("methods=") for word in words):
        raise UserError("diff takes its two methods without 'methods=', as in kdbench diff A B")
    request = request_.parse([f"methods={a},{b}", *words])
    for key in ("dataset", "student", "teacher", "recipe"):
        if len(getattr(request, key)) > 1:
            raise UserError(f"diff takes one {key}, not {len(getattr(request, key))}")
    # The plan fills in what the dataset proposes, and refuses a binding that neither method uses.
    specs = {
        spec.method: spec for spec in expand.plan(replace(request, seeds=request.seeds[:1])) if not spec.is_teacher
    }

    def side(name: str) -> Side:
        spec = specs[name]
        resolved = resolve.resolve(name, spec.dataset, spec.recipe, request.overrides)
        every = resolved.every()
        teacher = f"teacher {spec.teacher}" if spec.teacher else "no teacher"
        title = f"dataset {spec.dataset}, recipe {spec.recipe}, {teacher}"
        return Side(name, title, {key: binding.value for key, binding in every.items()}, {})

    return side(a), side(b)


def of_run(name: str, path: Path, result: Mapping[str, Any] | None = None) -> Side:
    """The run in a folder; UserError if there is no result in it and none is given."""
    result = result or RunFolder(path.parent, path.name).result()
    if result is None:
        raise UserError(f"the run '{path.name}' has no result that can be read; diff needs the names in it")

    def named(key: str) -> tuple[str, str | None]:
        value = result.get(key)
        return _NONE if value is None else str(value), result.get(_MARKED.get(key, ""))

    title = f"{path.name}, recipe {result.get('recipe', _NONE)}, {result.get('status', _NONE)}"
    values = _values(ginfile.statements(path / CONFIG), ginfile.label(path / CONFIG))
    return Side(name, title, values, {key: named(key) for key in (*_TABLE, "teacher", "seed")})


def of_spec(name: str, spec: Spec) -> Side:
    """A run that is planned."""
    values = _values(ginfile.statements_in(spec.config), spec.id)
    names = {key: getattr(spec, key) for key in (*_TABLE, "teacher", "seed")}
    texts = {key: (_NONE if value is None else str(value), None) for key, value in names.items()}
    return Side(name, f"{spec.id}, recipe {spec.recipe}", values, texts)


def _values(statements: Iterable[Any], label: str) -> dict[str, Any]:
    """The parameters in a run's config.gin, also those of methods that are not there any more."""
    found = {}
    for statement in statements:
        if not isinstance(statement, config_parser.BindingStatement) or not statement.arg_name:
            raise UserError(f"{label} is no resolved configuration: it holds more than bindings")
        found[f"{statement.selector}.{statement.arg_name}"] = statement.value
    return found
