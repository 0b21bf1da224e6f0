"""The words behind `kdbench run`, parsed and checked: what the user asked for. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kdbench.config import extensions, places, resolve, result_keys
from kdbench.config.ginfile import Binding
from kdbench.config.settings import BASELINE
from kdbench.errors import UserError, nearest, unknown

SELECTIONS = ("methods", "dataset", "student", "teacher", "recipe", "seeds")


SINGLE = ("sweep", "executor", "workers", "gpus", "cluster", "log")


DEFAULT_CLUSTER = "default"


LOGS = ("tensorboard",)


@dataclass(frozen=True)
class Request:
    """What the user asked for: every selection a list, overrides parsed.

    Attributes:
        cluster: name of the profile, for executor=slurm.
        cluster_overrides: those of `Cluster.*`, which say nothing of runs.
    """

    methods: tuple[str, ...]
    dataset: tuple[str, ...]
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    recipe: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[Binding, ...]
    executor: str = "inline"
    workers: int | None = None
    cluster: str | None = None
    cluster_overrides: tuple[Binding, ...] = ()


def parse(words: Sequence[str]) -> Request:
    """The words behind `kdbench run`.

    Raises:
        UserError: a word that is neither a selection nor a binding, or names something that is not there.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    bindings: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(
                f"'{word}' is neither a selection (such as methods=kd) nor a binding (such as Train.epochs=5)"
            )
        if "." in key:
            bindings.append(word)
        elif key not in (*SELECTIONS, *SINGLE):
            raise _unknown_selection(key)
        elif key in chosen:
            raise UserError(f"'{key}' is given twice; several values go in one comma list ({key}=A,B)")
        else:
            chosen[key] = tuple(dict.fromkeys(filter(None, value.split(","))))
            if not chosen[key]:
                raise UserError(f"'{key}=' has no value")
            if key in SINGLE and len(chosen[key]) > 1:
                raise UserError(f"'{key}' takes one value, not {len(chosen[key])}")
    workers = _count("workers", chosen.pop("workers", (None,))[0])
    (cluster,) = chosen.pop("cluster", (None,))
    (executor,) = chosen.pop("executor", ("local" if workers else "slurm" if cluster else "inline",))
    launchers = extensions.members("launcher")
    if executor not in launchers:
        raise unknown("executor", executor, launchers, "kdbench list launchers")
    result_keys.columns()  # a measure that is declared wrongly is refused before anything starts
    bindings += [f"Machine.gpus={number}" for number in chosen.pop("gpus", ())]
    bindings += [f"Machine.log={_log(name)}" for name in chosen.pop("log", ())]
    overrides = tuple(resolve.parse_overrides(bindings))
    check_log(binding.value for binding in overrides if binding.key == "Machine.log")
    of_cluster = tuple(b for b in overrides if b.configurable == "Cluster")
    if executor != "local" and workers:
        raise UserError(f"workers={workers} goes with executor=local, not with executor={executor}")
    if executor != "slurm" and (cluster or of_cluster):
        word = f"cluster={cluster}" if cluster else of_cluster[0].key
        raise UserError(f"{word} goes with executor=slurm, not with executor={executor}")
    if executor == "slurm":
        cluster = cluster or DEFAULT_CLUSTER
        places.member("cluster", cluster)
    if not set(chosen) - {"seeds"}:
        chosen["sweep"] = ("default",)
    if "sweep" in chosen:
        chosen = {**_sweep(chosen.pop("sweep")[0]), **chosen}
    chosen.setdefault("dataset", ("digits",))
    chosen.setdefault("methods", ("all",))
    return Request(
        methods=_methods(chosen["methods"]),
        dataset=_members("dataset", chosen["dataset"]),
        student=_backbones("student", chosen.get("student", ())),
        teacher=_teachers(chosen.get("teacher", ())),
        recipe=_members("recipe", chosen.get("recipe", ())),
        seeds=tuple(_seed(text) for text in chosen.get("seeds", ("0",))),
        overrides=tuple(b for b in overrides if b not in of_cluster),
        executor=executor,
        workers=workers,
        cluster=cluster,
        cluster_overrides=of_cluster,
    )


def _unknown_selection(key: str) -> UserError:
    parameters = {
        p: f"{s.name}.{p}" for s in resolve.known_overrides().values() for p in s.parameters if p not in SINGLE
    }
    guess = nearest(key, [*SELECTIONS, *SINGLE, *parameters])
    hint = (
        f"did you mean '{parameters.get(guess, guess)}'?" if guess else f"valid: {', '.join((*SELECTIONS, *SINGLE))}."
    )
    return UserError(f"unknown selection '{key}'; {hint} See all with: kdbench run --help")


def _sweep(name: str) -> dict[str, tuple[str, ...]]:
    return {b.parameter: tuple(map(str, b.value)) for b in resolve.group_bindings("sweep", name).values()}


def _methods(names: Iterable[str]) -> tuple[str, ...]:
    every = places.members("method")
    if "all" in names:
        # A variant (another method's class with other values) is asked for by name, also beside "all".
        plain = sorted((n for n in every if not resolve.is_variant(n)), key=lambda n: (n != BASELINE, n))
        names = list(dict.fromkeys([*plain, *(n for n in names if n != "all")]))
    for name in names:
        if name not in every:
            raise unknown("method", name, [*every, "all"], "kdbench list methods")
    return tuple(names)


def _members(group: str, names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        places.member(group, name)
    return tuple(names)


def _backbones(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        if name not in extensions.members("backbone"):
            raise unknown(kind, name, extensions.members("backbone"), "kdbench list students")
    return tuple(names)


def _teachers(names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        if is_weight_file(name):
            if not Path(name).expanduser().is_file():
                raise UserError(f"the teacher's weight file '{name}' does not exist")
        else:
            _backbones("teacher", [name])
    return tuple(names)


def is_weight_file(teacher: str) -> bool:
    return teacher.endswith((".pt", ".pth")) or "/" in teacher


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UserError(f"seeds takes whole numbers from 0, such as seeds=0,1,2, not '{text}'")
    return int(text)


def _count(key: str, text: str | None) -> int | None:
    if text is not None and (not text.isascii() or not text.isdigit() or int(text) < 1):
        raise UserError(f"{key} takes a whole number from 1, such as {key}=2, not '{text}'")
    return int(text) if text else None


def _log(name: str) -> str:
    if name not in LOGS:
        raise unknown("log", name, LOGS)
    return name


def check_log(names: Iterable[str]) -> None:
    """Raises UserError if the package that one of these values of `Machine.log` needs is not installed."""
    for name in filter(None, names):
        if find_spec(name) is None:
            raise UserError(f"log={name} needs the package {name}; install it with: pip install 'kdbench[{name}]'")
