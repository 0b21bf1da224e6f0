"""The configuration of one run: gin files of its selections, then the command line's overrides, resolved to one value each.

All of it is plain data, made without torch; the process that trains parses the text of it once (kdbench/run/execute.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kdbench.config import ginfile, places, schedules, settings, signature, space, views
from kdbench.config.cluster import Cluster
from kdbench.config.ginfile import Binding, Reference
from kdbench.errors import UserError

RESULT_VERSION = 1
"""Raised whenever the harness would compute a different result from the same configuration: old runs are then not found."""


@dataclass(frozen=True)
class Config:
    """The resolved configuration of one method on one dataset with one recipe.

    Attributes:
        method, dataset, recipe: the selections it is made of.
        source: name of the method file that holds the class.
        shared: what all methods of the protocol share, by key.
        own: the method's own parameters, by key.
        machine, measures: device and the like, and what is measured at the end: no part of what defines the result.
        changed: the values of the gin files that the command line replaced, by key.
    """

    method: str
    dataset: str
    recipe: str
    source: str
    shared: Mapping[str, Binding]
    own: Mapping[str, Binding]
    machine: Mapping[str, Binding]
    measures: Mapping[str, Binding]
    changed: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self) -> dict[str, Any]:
        """Shared values that the command line made different from the gin files'."""
        shared = {**{b.key: b for b in _UNBOUND}, **self._shared()}
        return {key: plain(b.value) for key, b in sorted(shared.items()) if key in self.changed}

    def own_overrides(self) -> dict[str, Any]:
        """The method's own values that the command line made different from its gin file's."""
        return {key: plain(self.own[key].value) for key in sorted(self.changed) if key in self.own}

    def control(self) -> settings.Control:
        """What makes this a control; all defaults for what is none."""
        return settings.Control(**self._every_value(settings.Control))

    def teaching(self) -> settings.Teaching:
        """How this is taught, and what it keeps to teach others."""
        return settings.Teaching(**self._every_value(settings.Teaching))

    def _every_value(self, cls: type) -> dict[str, Any]:
        # What is left out gin would fill in from the run that this process did last.
        usual = {name: parameter.default for name, parameter in _shared(cls).parameters.items()}
        return {**usual, **{b.parameter: b.value for b in self.own.values() if b.configurable == cls.__name__}}

    def protocol(self) -> str:
        """Identity of the comparison: equal for all methods, teachers, seeds and machines of one."""
        return digest({key: plain(b.value) for key, b in self._shared().items()} | {"version": RESULT_VERSION})[:8]

    def defines(self) -> dict[str, Any]:
        """All values that define the result."""
        return {key: plain(b.value) for key, b in {**self._shared(), **self.own}.items()}

    def _shared(self) -> dict[str, Binding]:
        """The shared values, and the number of GPUs where it changes the result and not only its rounding."""
        each_normalises_its_own = _SYNC_BN.key in self.shared
        return {**self.shared, **({_GPUS: self.machine[_GPUS]} if each_normalises_its_own else {})}

    def every(self) -> dict[str, Binding]:
        """All values."""
        return {**self.shared, **self.own, **self.machine, **self.measures}

    def text(self) -> str:
        """Gin text that gives exactly this configuration, without includes and macros."""
        parts = (
            ("what all methods share", self.shared),
            ("the method's own", self.own),
            ("the machine", self.machine),
            ("what is measured at the end", self.measures),
        )
        blocks = [
            "\n".join([f"# {title}", *(f"{key} = {b.value!r}" for key, b in sorted(bindings.items()))])
            for title, bindings in parts
        ]
        return "\n\n".join(blocks) + "\n"


def plain(value: Any) -> Any:
    """`value` as JSON has it."""
    if isinstance(value, Reference):
        return repr(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def digest(values: Any) -> str:
    """sha256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


_FILES_ONLY = {"Defaults": "dataset", "Sweep": "sweep", "Control": "method", "Teaching": "method", "Search": "method"}
"""Configurables that the command line cannot bind, and whose gin file can."""


def known_overrides() -> dict[str, signature.Signature]:
    """The configurables that the command line may bind."""
    return {n: s for n, s in ginfile.every_configurable().items() if n not in _FILES_ONLY}


def parse_overrides(texts: Iterable[str]) -> list[Binding]:
    """The command line's bindings.

    Raises:
        UserError: a name or value that cannot be, or a key given twice.
    """
    known = known_overrides()
    found: dict[str, Binding] = {}
    for text in texts:
        configurable = text.partition("=")[0].rpartition(".")[0]
        if configurable in _FILES_ONLY:
            raise UserError(f"{configurable}.* can be bound in a {_FILES_ONLY[configurable]}'s gin file only")
        binding = ginfile.parse_override(text, known)
        if binding.key in found:
            raise UserError(f"{binding.key} is given twice on the command line")
        found[binding.key] = binding
    return list(found.values())


@cache
def _group_bindings(group: str, path: Path, name: str) -> dict[str, Binding]:
    known = {cls.__name__: signature.shared()[cls.__name__] for cls in signature.SHARED_BY_GROUP[group]}
    bindings = ginfile.read(path, known, f"the {group} '{name}'")
    schedule = bindings.get("Train.schedule")
    for binding in bindings.values():
        in_file_itself = binding.origin.startswith(f"{ginfile.label(path)}:")
        if _unused_schedule(binding, schedule) and in_file_itself and schedule is not None:
            raise UserError(f"{binding.origin}: nothing uses {binding.key}: Train.schedule is {schedule.value!r}")
    return bindings


def _unused_schedule(binding: Binding, schedule: Binding | None) -> bool:
    used = schedule.value.name if schedule else None
    return binding.configurable in signature.SCHEDULE_NAMES and binding.configurable != used


def group_bindings(group: str, name: str) -> dict[str, Binding]:
    """The bindings of gin/GROUP/NAME.gin, for the groups dataset, recipe and sweep."""
    return _group_bindings(group, places.member(group, name), name)


def method_source(name: str) -> str:
    """The method file that `name` uses: its own, or that of the gin file that its gin file includes (a variant)."""
    path = places.member("method", name)
    for _ in range(8):
        if path.stem in places.sources():
            return path.stem
        bases = ginfile.includes(path)
        if not bases:
            break
        path = bases[0]
    raise UserError(
        f"the method '{name}' has a gin file but no methods/{name}.py, and includes no other method's gin file"
    )


def is_variant(name: str) -> bool:
    """Whether a method is another one's class with other values: a gin file without a Python file."""
    return name not in places.sources()


def method_bindings(name: str) -> dict[str, Binding]:
    """The bindings of gin/method/NAME.gin: the method's own parameters, `Control.*` and `Teaching.*`."""
    return _method_file(name)[0]


def search_space(name: str) -> space.Space:
    """What gin/method/NAME.gin lets `kdbench tune` choose from, by parameter."""
    return _method_file(name)[1]


@cache
def _method_file(name: str) -> tuple[dict[str, Binding], space.Space]:
    own = signature.of_method(method_source(name))
    known = {own.name: own, **{cls.__name__: _shared(cls) for cls in signature.SHARED_BY_GROUP["method"]}}
    path = places.member("method", name)
    bindings = ginfile.read(path, known, f"the method '{name}'")
    found = space.of_file(path, bindings, own)
    return {key: binding for key, binding in bindings.items() if key != space.KEY}, found


def _shared(cls: type) -> signature.Signature:
    return signature.shared()[cls.__name__]


def resolve(method: str, dataset: str, recipe: str, overrides: Iterable[Binding] = ()) -> Config:
    """The configuration of these selections; overrides of other methods' parameters are left aside.

    Raises:
        UserError: a selection that is not there, a file that is wrong, a parameter that nothing binds, a value out of range.
    """
    source = method_source(method)
    own_signature = signature.of_method(source)
    file = f"gin/{ginfile.label(places.member('method', method))}"
    own = _with_defaults(own_signature, method_bindings(method), file)
    shared = {b.key: b for b in _UNBOUND}
    shared |= {k: b for k, b in group_bindings("dataset", dataset).items() if b.configurable != "Defaults"}
    shared |= group_bindings("recipe", recipe)
    beside = {
        key: binding
        for name in ("machine", "measures")
        for key, binding in _group_bindings(name, places.own_root() / "gin" / f"{name}.gin", name).items()
    }

    before = {**shared, **own, **beside}
    ours = {b.key: b for b in overrides if b.configurable in {*signature.shared(), own_signature.name}}
    changed = {
        k: before[k].value if k in before else None
        for k, b in ours.items()
        if k not in before or b.value != before[k].value
    }
    after = {**before, **ours}

    schedule = after.get("Train.schedule")
    usual = {b.key: b.value for b in _UNBOUND}
    parts: dict[str, dict[str, Binding]] = {"shared": {}, "own": {}, "machine": {}, "measures": {}}
    for key, binding in sorted(after.items()):
        if _unused_schedule(binding, schedule):
            changed.pop(key, None)
            continue
        if binding.key in usual and binding.value == usual[binding.key]:
            continue  # leaves no trace: protocols and ids are those of a kdbench without the switch
        if binding.key == _SYNC_BN.key and after[_GPUS].value == 1:
            changed.pop(key, None)
            continue  # one GPU has nothing to synchronise
        part = {
            "Control": "own",
            "Teaching": "own",
            own_signature.name: "own",
            "Machine": "machine",
            "Measures": "measures",
        }.get(binding.configurable, "shared")
        parts[part][key] = binding
    config = Config(method, dataset, recipe, source, **parts, changed=changed)
    _check_complete(config)
    _check_ranges(config)
    return config


_GPUS = "Machine.gpus"
_SYNC_BN = Binding("Parallel", "sync_bn", True, "default in Python")
_UNBOUND = (
    Binding("Selection", "on_test", False, "default in Python"),
    _SYNC_BN,
    *(Binding("Strong", name, p.default, "default in Python") for name, p in _shared(views.Strong).parameters.items()),
)
"""What no gin file need bind, at its default."""


def unused(overrides: Iterable[Binding], configs: Iterable[Config]) -> list[Binding]:
    """The overrides that none of these configurations contains."""
    used = {key for config in configs for key in config.every()}
    used |= {binding.key for binding in _UNBOUND}
    return [binding for binding in overrides if binding.key not in used]


def _with_defaults(own: signature.Signature, bound: dict[str, Binding], file: str) -> dict[str, Binding]:
    defaults = {
        f"{own.name}.{name}": Binding(own.name, name, parameter.default, "default in Python")
        for name, parameter in own.parameters.items()
        if parameter.default is not signature.dataclasses.MISSING
    }
    missing = [key for name in own.parameters if (key := f"{own.name}.{name}") not in {**defaults, **bound}]
    if missing:
        raise UserError(f"{file} does not set {missing[0]}, which has no default")
    return {**defaults, **bound}


def _check_complete(config: Config) -> None:
    wanted = [settings.Dataset, settings.Split, settings.Augment, settings.SGD, settings.Train]
    schedule = config.shared.get("Train.schedule")
    names = [cls.__name__ for cls in wanted] + ([schedule.value.name] if schedule else [])
    for name in names:
        for parameter in signature.shared()[name].parameters:
            if f"{name}.{parameter}" not in config.shared:
                whose = f"dataset '{config.dataset}'" if name == "Dataset" else f"recipe '{config.recipe}'"
                raise UserError(
                    f"the {whose} does not set {name}.{parameter}; include a complete one, or give it a value"
                )


def _check_ranges(config: Config) -> None:
    """Build every settings object once, so that a value out of range is refused before anything starts."""
    groups = ("dataset", "recipe", "machine", "measures", "method")
    classes = [cls for group in groups for cls in signature.SHARED_BY_GROUP[group]]
    for cls in classes:
        values = {b.parameter: b.value for b in config.every().values() if b.configurable == cls.__name__}
        if not values:
            continue
        parameters = _shared(cls).parameters
        if cls in schedules.SCHEDULES and len(values) < len(parameters):
            continue
        # Every value is given: what is left out gin would fill in from the run that this process did last.
        usual = {n: p.default for n, p in parameters.items() if p.default is not signature.dataclasses.MISSING}
        try:
            cls(**{**usual, **values})
        except ValueError as error:
            raise UserError(str(error).splitlines()[0]) from None  # gin adds a line of its own


def profile(name: str, overrides: Sequence[Binding] = ()) -> Cluster:
    """The profile slurm/NAME.gin, with what the command line says instead.

    Raises:
        UserError: there is none of this name, or it is wrong, or does not say all.
    """
    bindings = {**group_bindings("cluster", name), **{b.key: b for b in overrides}}
    for parameter in signature.shared()["Cluster"].parameters:
        if f"Cluster.{parameter}" not in bindings:
            raise UserError(
                f"the cluster '{name}' does not set Cluster.{parameter}; give it a value, or put "
                "include 'slurm/default.gin' at the top of the file"
            )
    try:
        return Cluster(**{b.parameter: b.value for b in bindings.values()})
    except ValueError as error:
        raise UserError(str(error).splitlines()[0]) from None  # gin adds a line of its own
