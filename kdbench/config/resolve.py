"""The configuration of one run: gin files of its selections, then the command line's overrides, resolved to one value each.

A configuration is plain data, made without torch. Its text is read back into values by kdbench/config/run_config.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any

from kdbench.config import bindings, checks, places, processor, run_config, settings, signature, switches, syntax
from kdbench.config.cluster import Cluster
from kdbench.config.ginfile import Binding
from kdbench.config.signature import Signature
from kdbench.config.syntax import Reference
from kdbench.errors import UserError

RESULT_VERSION = 1
"""Increased whenever the harness would compute another result from the same configuration: earlier runs then do not count."""


@dataclass(frozen=True)
class Config:
    """The resolved configuration of one method on one dataset with one recipe.

    Attributes:
        method, dataset, recipe: the selections it is made of.
        source: name of the method file that holds the class.
        signature: name, parameters and literal attributes of that class.
        shared: bindings that all methods of the protocol share, by key.
        own: the method's own parameters and `Control.*`, by key.
        machine, measures: device and the like, and the final measurements; they do not define the result.
        changed: the values of the gin files that the command line replaced, by key.
        precision: the precision that stands for Train.precision='auto' here, and why; None where one is named.
    """

    method: str
    dataset: str
    recipe: str
    source: str
    signature: Signature
    shared: Mapping[str, Binding]
    own: Mapping[str, Binding]
    machine: Mapping[str, Binding]
    measures: Mapping[str, Binding]
    changed: Mapping[str, Any] = field(default_factory=dict)
    precision: processor.Choice | None = None

    @property
    def needs_teacher(self) -> bool:
        """True if the method's class declares `needs_teacher`."""
        return bool(self.signature.attributes.get("needs_teacher", False))

    def overrides(self) -> dict[str, Any]:
        """Shared values that the command line changed from those of the gin files."""
        shared = {**{b.key: b for b in _UNBOUND}, **self._shared()}
        return {key: plain(b.value) for key, b in sorted(shared.items()) if key in self.changed}

    def own_overrides(self) -> dict[str, Any]:
        """The method's own values that the command line changed from those of its gin file."""
        return {key: plain(self.own[key].value) for key in sorted(self.changed) if key in self.own}

    def control(self) -> switches.Control:
        """The settings that make this method a control; all defaults for a method that is not a control."""
        return switches.Control(**self._every_value(switches.Control))

    def teaching(self) -> switches.Teaching:
        """The `Teaching` settings: how this run is taught, and what it keeps to teach others."""
        return switches.Teaching(**self._every_value(switches.Teaching))

    def _every_value(self, cls: type) -> dict[str, Any]:
        # What is left out gin would fill in from the run that this process did last.
        usual = {name: parameter.default for name, parameter in _shared(cls).parameters.items()}
        return {**usual, **{b.parameter: b.value for b in self.own.values() if b.configurable == cls.__name__}}

    def protocol(self) -> str:
        """Identity of the comparison: equal for all its methods, teachers, seeds and machines."""
        return digest({key: plain(b.value) for key, b in self._shared().items()} | {"version": RESULT_VERSION})[:8]

    def defines(self) -> dict[str, Any]:
        """All values that define the result."""
        return {key: plain(b.value) for key, b in {**self._shared(), **self.own}.items()}

    def _shared(self) -> dict[str, Binding]:
        """The shared values, and the number of GPUs where it changes the result and not only its rounding."""
        gpus_normalise_apart = _SYNC_BN.key in self.shared
        return {**self.shared, **({_GPUS: self.machine[_GPUS]} if gpus_normalise_apart else {})}

    def every(self) -> dict[str, Binding]:
        """All values."""
        return {**self.shared, **self.own, **self.machine, **self.measures}

    def text(self) -> str:
        """This configuration as gin text, without includes and macros."""
        return run_config.write({key: binding.value for key, binding in self.every().items()})


def plain(value: Any) -> Any:
    """`value` as JSON has it."""
    if isinstance(value, Reference):
        return repr(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def digest(values: Any) -> str:
    """sha256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _shared(cls: type) -> Signature:
    return signature.shared()[cls.__name__]


def resolve(method: str, dataset: str, recipe: str, overrides: Iterable[Binding] = ()) -> Config:
    """The configuration of these selections; overrides of other methods' parameters are ignored.

    Raises:
        UserError: an unknown selection, an error in a file, a parameter without a value, or a value out of range.
    """
    source = bindings.method_source(method)
    own_signature = signature.of_method(source)
    of_files = _of_files(method, dataset, recipe, own_signature)
    ours = {b.key: b for b in overrides if b.configurable in {*signature.shared(), own_signature.name}}
    precision, named = _precision({**of_files, **ours})
    ours |= named
    changed = {
        key: of_files[key].value if key in of_files else None
        for key, binding in ours.items()
        if key not in of_files or binding.value != of_files[key].value
    }
    effective = {**of_files, **ours}
    if "Train.warmup" not in ours:
        effective |= _fitting_warmup(of_files, effective)

    parts: dict[str, dict[str, Binding]] = {"shared": {}, "own": {}, "machine": {}, "measures": {}}
    part_of = {
        "Control": "own",
        "Teaching": "own",
        own_signature.name: "own",
        "Machine": "machine",
        "Measures": "measures",
    }
    for key, binding in sorted(effective.items()):
        if _is_unset(binding):
            continue  # leaves no trace: protocols and ids are those of a kdbench without the switch
        if _has_no_effect(binding, effective):
            changed.pop(key, None)
            continue
        parts[part_of.get(binding.configurable, "shared")][key] = binding
    config = Config(method, dataset, recipe, source, own_signature, **parts, changed=changed, precision=precision)
    checks.of_config(config)
    return config


def _of_files(method: str, dataset: str, recipe: str, own: Signature) -> dict[str, Binding]:
    """The bindings of the gin files of these selections, with the defaults in Python."""
    return {
        **{b.key: b for b in _UNBOUND},
        **{k: b for k, b in bindings.of_group("dataset", dataset).items() if b.configurable != "Defaults"},
        **bindings.of_group("recipe", recipe),
        **own_values(method, own),
        **bindings.of_file("machine", places.own_root() / "gin" / "machine.gin", "machine"),
        **bindings.of_file("measures", places.own_root() / "gin" / "measures.gin", "measures"),
    }


def _fitting_warmup(of_files: Mapping[str, Binding], effective: Mapping[str, Binding]) -> dict[str, Binding]:
    """The binding of a recipe's warm-up that is too long for a shorter budget: the same share of it as in the recipe."""
    warmup, usual, epochs = of_files.get("Train.warmup"), of_files.get("Train.epochs"), effective.get("Train.epochs")
    if warmup is None or usual is None or epochs is None or not warmup.value < usual.value:
        return {}
    if warmup.value < epochs.value or epochs.value <= 0:
        return {}
    share = warmup.value / usual.value
    origin = f"{warmup.origin}, as a share of Train.epochs={epochs.value:g}"
    return {warmup.key: Binding(warmup.configurable, warmup.parameter, share * epochs.value, origin)}


def _precision(bound: Mapping[str, Binding]) -> tuple[processor.Choice | None, dict[str, Binding]]:
    """The choice for Train.precision='auto', and its binding, as if the user had named it; nothing where one is named."""
    asked = bound.get("Train.precision")
    if asked is None or asked.value != processor.AUTO:
        return None, {}
    choice = processor.native_precision(bound["Machine.device"].value)
    origin = f"{asked.origin}: auto, because {choice.reason}"
    return choice, {asked.key: Binding(asked.configurable, asked.parameter, choice.precision, origin)}


def _is_unset(binding: Binding) -> bool:
    """True if a binding only repeats the default of a switch that no gin file binds."""
    return any(binding.key == default.key and binding.value == default.value for default in _UNBOUND)


def _has_no_effect(binding: Binding, effective: Mapping[str, Binding]) -> bool:
    """True if a binding is of an unused schedule or optimiser, or synchronises the normalisation of one GPU."""
    if binding.key == _SYNC_BN.key and effective[_GPUS].value == 1:
        return True
    return bindings.is_unused(binding, effective)


_GPUS = "Machine.gpus"
_SYNC_BN = Binding("Parallel", "sync_bn", True, "default in Python")
_UNBOUND = (
    Binding("Selection", "on_test", False, "default in Python"),
    _SYNC_BN,
    *(
        Binding(cls.__name__, name, p.default, "default in Python")
        for cls in (
            *(
                settings.Dataset,
                switches.Labels,
                settings.Augment,
                settings.Train,
                switches.Strong,
                switches.ResizedCrop,
            ),
            *(switches.Mix, switches.SecondTask),
        )
        for name, p in _shared(cls).parameters.items()
        if p.default is not MISSING
    ),
)
"""Switches that gin files need not bind, with their defaults."""


def unused(overrides: Iterable[Binding], configs: Iterable[Config]) -> list[Binding]:
    """The overrides that none of these configurations contains."""
    used = {key for config in configs for key in config.every()}
    used |= {binding.key for binding in _UNBOUND}
    return [binding for binding in overrides if binding.key not in used]


def own_values(method: str, own: Signature) -> dict[str, Binding]:
    """The bindings of a method's gin file, with the defaults in Python.

    Args:
        own: the method's class.

    Raises:
        UserError: an error in the file, or a parameter without a value.
    """
    bound = bindings.of_method(method)
    defaults = {
        f"{own.name}.{name}": Binding(own.name, name, parameter.default, "default in Python")
        for name, parameter in own.parameters.items()
        if parameter.default is not MISSING
    }
    missing = [key for name in own.parameters if (key := f"{own.name}.{name}") not in {**defaults, **bound}]
    if missing:
        file = f"gin/{syntax.label(places.member('method', method))}"
        raise UserError(f"{file} does not set {missing[0]}, which has no default")
    return {**defaults, **bound}


def dataset(name: str, own: Iterable[Binding] = ()) -> settings.Dataset:
    """The settings of a dataset apart from any run: those of its gin file, and the command line's.

    Args:
        own: bindings of the command line.

    Raises:
        UserError: there is no such dataset, a binding is not of `Dataset`, or a value is missing, out of range or not one that
            the reader takes.
    """
    bound = {b.key: b for b in bindings.of_group("dataset", name).values() if b.configurable == "Dataset"}
    for binding in own:
        if binding.configurable != "Dataset":
            raise UserError(f"only settings of the dataset (Dataset.KEY=VALUE) can be given here, not {binding.key}")
        bound[binding.key] = binding
    parameters = _shared(settings.Dataset).parameters
    usual = {n: p.default for n, p in parameters.items() if p.default is not MISSING}
    values = {**usual, **{b.parameter: b.value for b in bound.values()}}
    if missing := [parameter for parameter in parameters if parameter not in values]:
        raise UserError(
            f"the dataset '{name}' does not set Dataset.{missing[0]}; include a complete one, or give it a value"
        )
    try:
        built = settings.Dataset(**values)
    except ValueError as error:
        raise UserError(checks.first_line(error)) from None
    checks.check_reading(built.source, bound)
    return built


def profile(name: str, overrides: Sequence[Binding] = ()) -> Cluster:
    """The profile slurm/NAME.gin, with the command line's bindings of `Cluster.*`.

    Raises:
        UserError: there is no profile of this name, it has an error, or it does not set every parameter.
    """
    bound = {**bindings.of_group("cluster", name), **{b.key: b for b in overrides}}
    for parameter, declared in signature.shared()["Cluster"].parameters.items():
        if f"Cluster.{parameter}" not in bound and declared.default is MISSING:
            raise UserError(
                f"the cluster '{name}' does not set Cluster.{parameter}; give it a value, or put "
                "include 'slurm/default.gin' at the top of the file"
            )
    try:
        return Cluster(**{b.parameter: b.value for b in bound.values()})
    except ValueError as error:
        raise UserError(checks.first_line(error)) from None
