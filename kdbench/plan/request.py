"""The words behind `kdbench run`, parsed and checked: which runs the user asked for, and how they are launched. No torch here."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kdbench import words as words_
from kdbench.backbones import registry
from kdbench.config import bindings, extensions, loggers, places, resolve, result_keys, signature
from kdbench.config.cluster import Cluster
from kdbench.config.ginfile import Binding
from kdbench.errors import UserError, hint, nearest, shortened, unknown
from kdbench.plan import method_words

PLAN_KEYS = ("methods", "dataset", "student", "teacher", "recipe", "seeds")
"""Each takes a comma-separated list; the plan is the product of these lists."""
SINGLE_KEYS = ("sweep", "executor", "workers", "runs_per_gpu", "gpus", "cluster")
"""Each takes one value."""
KEYS = (*PLAN_KEYS, *SINGLE_KEYS, "log")
"""All keys of selections."""
WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors", ".tar", ".ckpt", ".bin")
"""Endings that mark a word as a file of weights in the current folder, and not as a backbone or a run."""
LOCAL_EXECUTORS = ("inline", "local")
"""The executors whose runs are done by this machine."""
DEFAULT_CLUSTER = "default"


@dataclass(frozen=True)
class Request:
    """The request of the user.

    Attributes:
        methods, dataset, student, teacher, recipe, seeds: the values of each key; empty where the dataset's default applies.
        overrides: bindings of the runs, parsed.
        grid: for each parameter with several values, their bindings; the plan has a run for each combination.
        executor: name of a launcher.
        workers: processes of executor=local; None for `runs_per_gpu` per GPU.
        runs_per_gpu: runs that share a GPU, here or in a SLURM job.
        cluster: name of the profile, for executor=slurm.
        profile: that profile, with the bindings of `Cluster.*`, which do not concern the runs.
        left_out: a sentence for each file that it leaves out because of an error in it.
        sizes: a sentence for each word of `methods=` that selects several: how many they are.
    """

    methods: tuple[str, ...]
    dataset: tuple[str, ...]
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    recipe: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[Binding, ...]
    grid: tuple[tuple[Binding, ...], ...] = ()
    executor: str = "inline"
    workers: int | None = None
    runs_per_gpu: int = 1
    cluster: str | None = None
    profile: Cluster | None = None
    left_out: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()

    @property
    def bound(self) -> tuple[Binding, ...]:
        """One binding of each parameter that the command line binds."""
        return (*self.overrides, *(values[0] for values in self.grid))

    def combinations(self, method: str) -> list[tuple[Binding, ...]]:
        """The overrides of a method's runs: a tuple for each combination of values, without other methods' parameters."""
        concerned = {*signature.shared(), signature.of_method(bindings.method_source(method)).name}
        axes = [values for values in self.grid if values[0].configurable in concerned]
        return [(*self.overrides, *combination) for combination in itertools.product(*axes)]

    def check_one_value(self, command: str) -> None:
        """Raises UserError if a parameter has several values, which `command` does not take."""
        for values in self.grid:
            raise UserError(f"{command} takes one value of {values[0].key}, not {len(values)}")


def parse(words: Sequence[str]) -> Request:
    """The request that the words behind `kdbench run` make.

    Raises:
        UserError: a word is neither a selection nor a binding, or names something that does not exist.
    """
    parsed = words_.parse(words, KEYS, _unknown_key, SINGLE_KEYS)
    for word in parsed.bare:
        raise UserError(f"'{word}' is neither a selection (such as methods=kd) nor a binding (such as Train.epochs=5)")
    single = {key: ",".join(parsed.values[key]) for key in (*SINGLE_KEYS, "log") if key in parsed.values}
    lists = _lists({key: parsed.values[key] for key in PLAN_KEYS if key in parsed.values}, single.get("sweep"))
    methods = method_words.expanded(lists["methods"])
    overrides = _overrides(parsed.bindings, single)
    of_cluster = tuple(binding for binding in overrides if binding.configurable == "Cluster")
    of_runs = [tuple(values) for _, values in itertools.groupby(overrides, lambda binding: binding.key)]
    executor, workers, runs_per_gpu, cluster = _launch(single, of_cluster)
    return Request(
        methods=methods,
        dataset=_members("dataset", lists["dataset"]),
        student=_backbones("student", lists.get("student", ())),
        teacher=_teachers(lists.get("teacher", ())),
        recipe=_members("recipe", lists.get("recipe", ())),
        seeds=words_.seed_numbers(lists.get("seeds", ("0",))),
        overrides=tuple(values[0] for values in of_runs if len(values) == 1 and values[0] not in of_cluster),
        grid=tuple(values for values in of_runs if len(values) > 1),
        executor=executor,
        workers=workers,
        runs_per_gpu=runs_per_gpu,
        cluster=cluster,
        profile=resolve.profile(cluster, of_cluster) if cluster else None,
        left_out=method_words.left_out(lists["methods"]),
        sizes=method_words.sizes(lists["methods"]),
    )


def _unknown_key(key: str) -> UserError:
    every = [(c.name, p) for c in bindings.overridable().values() for p in c.parameters if p not in KEYS]
    # Many methods have a temperature; the shortest name is the likeliest.
    keys = {p: f"{name}.{p}" for name, p in sorted(every, key=lambda pair: -len(pair[0]))}
    guess = nearest(key, [*KEYS, *keys])
    guess = keys.get(guess, guess) if guess else None
    return UserError(f"unknown selection '{key}'{hint(guess, 'see all with: kdbench run --help')}")


def _overrides(words: Iterable[str], single: Mapping[str, str]) -> tuple[Binding, ...]:
    """The bindings, parsed, with those that gpus= and log= abbreviate, and the sweep's of other parameters."""
    machine = [f"Machine.{key}={single[key]}" for key in ("gpus", "log") if key in single]
    for name in loggers.named(single.get("log", "")):
        if name not in loggers.LOGGERS:
            raise unknown("log", name, loggers.LOGGERS)
    typed = bindings.of_command_line([*words, *machine])
    keys = {binding.key for binding in typed}
    of_sweep = bindings.of_sweep(single["sweep"]) if "sweep" in single else []
    overrides = (*(binding for binding in of_sweep if binding.key not in keys), *typed)
    check_log(binding.value for binding in overrides if binding.key == "Machine.log")
    return overrides


def _launch(single: Mapping[str, str], of_cluster: Sequence[Binding]) -> tuple[str, int | None, int, str | None]:
    """The executor, its workers, its runs per GPU, and its cluster profile."""
    workers = words_.whole_number("workers", single["workers"], 1) if "workers" in single else None
    runs_per_gpu = words_.whole_number("runs_per_gpu", single["runs_per_gpu"], 1) if "runs_per_gpu" in single else None
    cluster = single.get("cluster")
    executor = single.get("executor") or (
        "local" if workers else "slurm" if cluster else "local" if runs_per_gpu else "inline"
    )
    extensions.member("launcher", executor, "executor")
    result_keys.columns()  # a measure that is declared wrongly is refused before anything starts
    if workers and executor != "local":
        raise UserError(f"workers={workers} requires executor=local, not executor={executor}")
    if workers and runs_per_gpu:
        raise UserError(
            f"workers={workers} and runs_per_gpu={runs_per_gpu} both set the number of processes; leave one out"
        )
    if runs_per_gpu and executor not in ("local", "slurm"):
        raise UserError(f"runs_per_gpu={runs_per_gpu} requires executor=local or slurm, not executor={executor}")
    if executor != "slurm" and (cluster or of_cluster):
        word = f"cluster={cluster}" if cluster else of_cluster[0].key
        raise UserError(f"{word} requires executor=slurm, not executor={executor}")
    if executor == "slurm":
        cluster = cluster or DEFAULT_CLUSTER
        places.member("cluster", cluster)
    return executor, workers, runs_per_gpu or 1, cluster


def _lists(given: Mapping[str, tuple[str, ...]], sweep: str | None) -> dict[str, tuple[str, ...]]:
    """The values of each plan key, those of the sweep included; a request without any but seeds is the default sweep.

    The methods of that sweep are also those of a request that names none.
    """
    if not set(given) - {"seeds"} and sweep is None:
        sweep = "default"
    defaults = {"dataset": ("digits",), "methods": _sweep("default")["methods"]}
    return {**defaults, **(_sweep(sweep) if sweep else {}), **given}


def _sweep(name: str) -> dict[str, tuple[str, ...]]:
    bound = bindings.of_group("sweep", name).values()
    return {b.parameter: tuple(map(str, b.value)) for b in bound if b.parameter in PLAN_KEYS}


def _members(group: str, names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        places.member(group, name)
    return tuple(names)


def _backbones(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        registry.check(name, kind)
    return tuple(names)


def _teachers(names: Iterable[str]) -> tuple[str, ...]:
    for name in names:  # backbones and runs are looked up by the plan, which knows the folder of runs
        if name.lower() == "none":
            raise UserError(
                f"teacher={name} is not needed: methods without a teacher ignore teacher=, and the others need one; "
                "leave it out"
            )
        if not name.isprintable():  # of a sweep: it is part of commands
            raise UserError(f"the teacher {shortened(repr(name))} has characters that cannot be printed")
        if is_weight_file(name):
            file = WeightFile.of(name)
            if file.network and extensions.library_of(file.network):
                registry.check(file.network, "teacher")
            if not file.path.is_file():
                raise UserError(f"the teacher's weight file '{file.path}' does not exist")
            if not os.access(file.path, os.R_OK):
                raise UserError(f"the teacher's weight file '{file.path}' cannot be read: permission denied")
        elif "+" in name:
            raise UserError(
                f"teacher={name} is not possible: teacher= selects one teacher per run, and teacher={name.replace('+', ',')} "
                "compares several; only a method whose gin file sets Teaching.chain or Teaching.states has several at once"
            )
    return tuple(names)


@dataclass(frozen=True)
class WeightFile:
    """A teacher's weight file as the user names it: FILE, or NETWORK:FILE.

    Attributes:
        path: of the file.
        network: the backbone that the weights are for; None if it is recognised by their names and shapes.
    """

    path: Path
    network: str | None = None

    @classmethod
    def of(cls, teacher: str) -> WeightFile:
        """The file that a word of `teacher=` names.

        Raises:
            UserError: no file system can have such a path, or the network asks for pretrained weights too.
        """
        network, _, file = teacher.partition(":")
        if not extensions.is_backbone(network) or not ("/" in file or Path(file).suffix in WEIGHT_SUFFIXES):
            return cls(places.user_path(teacher))
        if extensions.library_of(network) and "." in network:
            raise UserError(
                f"'{network}' names pretrained weights; for weights in a file, pass {network.partition('.')[0]}:{file}"
            )
        return cls(places.user_path(file), network)

    def identity(self) -> str:
        """Its part of a run's id: the content, wherever the file is, and the network if the user named it."""
        sha256 = places.file_sha256(self.path)
        return f"{self.network} {sha256}" if self.network else sha256


def is_weight_file(teacher: str) -> bool:
    """True if a teacher is given as a file, and not as a backbone or a run."""
    if WeightFile.of(teacher).network:
        return True
    path = places.user_path(teacher)
    if extensions.library_of(teacher) and not path.is_file():
        return False
    return not path.is_dir() and ("/" in teacher or path.suffix in WEIGHT_SUFFIXES)


def check_log(values: Iterable[str]) -> None:
    """Raises UserError if one of these values of `Machine.log` names no logger, or one whose package is not installed."""
    for name in (name for value in values for name in loggers.named(value)):
        if wrong := loggers.misfit(name):
            raise UserError(wrong)
        package = find_spec(name)
        if package is None or package.origin is None:  # not there, or a folder of that name without a package in it
            raise UserError(f"log={name} needs the package {name}; install it with: pip install 'kdbench[{name}]'")
