"""Files that cannot be used: an error in one of them leaves out what it declares, and nothing else."""

from __future__ import annotations

from kdbench.config import bindings, extensions, places, resolve, signature
from kdbench.errors import UserError


def of_methods() -> dict[str, str]:
    """The methods and controls that no plan can use, by name, each with the sentence that says why."""
    every = {name: _of_method(name) for name in {**places.members("method"), **places.sources()}}
    return {name: sentence for name, sentence in every.items() if sentence}


def _of_method(name: str) -> str | None:
    try:
        bindings.member(name)
        resolve.own_values(name, signature.of_method(bindings.method_source(name)))
    except UserError as error:
        return str(error)
    return None


def of_extensions() -> list[str]:
    """A sentence for each file of a backbone, reader, measure or launcher that was left out."""
    return [sentence for kind in extensions.KINDS for sentence in extensions.broken(kind).values()]
