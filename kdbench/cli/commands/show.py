"""`kdbench show`: the resolved configuration, and what each method is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdbench.cli.commands.run import DETAILS as DETAILS
from kdbench.cli.printing import print_text

if TYPE_CHECKING:
    from kdbench.config.ginfile import Binding
    from kdbench.config.resolve import Config

SUMMARY = "show the resolved configuration, the file that set each value, and the facts about each method"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="key=value", help="as for kdbench run")


def run(arguments: argparse.Namespace) -> int:
    from kdbench.cli.console import print_left_out
    from kdbench.config import bindings, resolve
    from kdbench.plan import request as request_

    request = request_.parse(arguments.words)
    print_left_out(request.left_out)
    for dataset in request.dataset:
        default = bindings.of_group("dataset", dataset)["Defaults.recipe"].value
        for recipe in request.recipe or (default,):
            by_protocol: dict[str, list[Config]] = {}
            for method in request.methods:
                for overrides in request.combinations(method):
                    config = resolve.resolve(method, dataset, recipe, overrides)
                    by_protocol.setdefault(config.protocol(), []).append(config)
            for protocol, configs in by_protocol.items():
                print_text(f"# dataset={dataset} recipe={recipe}: protocol {protocol}")
                _print_protocol(configs)
    return 0


def _print_protocol(configs: Sequence[Config]) -> None:
    """The values that these configurations share, and those of each with what its method is."""
    from kdbench.config import about, bindings

    _print(configs[0].shared)
    for config in configs:
        print_text(f"\n# methods={config.method}")
        for entry, text in _facts(config.method):
            print_text(f"# {entry}: {text}")
        _print(config.own, about.comments(config.method))
        for name, dimension in bindings.search_space(config.method).items():
            print_text(f"# kdbench tune chooses {name}: {dimension}")
    print_text("\n# machine (does not affect results)")
    _print(configs[0].machine)
    print_text("\n# final measurements (do not affect results)")
    _print(configs[0].measures)


def _facts(method: str) -> list[tuple[str, str]]:
    """The facts about a method that its files give, each with the word for it."""
    from kdbench.config import about, bindings

    source = bindings.method_source(method)
    facts = about.of_method(method)
    test = about.test_of(source)
    entries = [
        ("summary", facts.title),
        ("family", facts.family),
        ("base", about.base(method)),
        ("paper", facts.paper),
        ("loss", facts.loss),
        ("needs", ", ".join(about.needs(source))),
        *(("source", text) for text in facts.sources),
        *(("choice", text) for text in facts.choices),
        *(("fault", text) for text in facts.faults),
        ("test", str(test) if test else ""),
    ]
    return [(entry, text) for entry, text in entries if text]


def _print(part: Mapping[str, Binding], comments: Mapping[str, str] | None = None) -> None:
    """One line for each value: what sets it, and the comment that is there, by place."""
    lines = [(f"{key} = {binding.value!r}", binding.origin) for key, binding in part.items()]
    width = max((len(line) for line, _ in lines), default=0)
    for line, origin in lines:
        comment = (comments or {}).get(origin)
        print_text(f"{line:<{width}}  # {origin}{f': {comment}' if comment else ''}")
