"""Checks of what `losses` returns, each step, so that a mistake is a sentence about the user's code and not one of torch's."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdbench.config import places
from kdbench.errors import RunError
from kdbench.method import Batch, Method

Losses = Callable[[Batch], dict[str, Tensor]]


def checked(losses: Losses, method: Method) -> Losses:
    """`losses` with a check of the terms that it returns.

    Args:
        losses: `method.losses`, or those of a phase.

    Raises:
        RunError: (when called) the terms are not named, differentiable scalars on the training device; the sentence names
            the function, the term, file and line.
    """

    def of(batch: Batch) -> dict[str, Tensor]:
        terms = losses(batch)
        if wrong := _wrong(terms, method):
            sentence, term = wrong
            raise RunError(f"{name_of(losses, method)} {sentence} ({place(losses, term)})")
        return terms

    return of


def _wrong(terms: Any, method: Method) -> tuple[str, str | None] | None:
    """The sentence about a mistake, and the term that it concerns; None if all is right."""
    if not isinstance(terms, Mapping):
        got = f"a tensor of shape {tuple(terms.shape)}" if isinstance(terms, Tensor) else type(terms).__name__
        hint = "; is there a return?" if terms is None else ""
        return f"must return a dict of named terms, such as {{'ce': …}}, and returned {got}{hint}", None
    if not terms:
        return "must return at least one term, and returned an empty dict", None
    for name, value in terms.items():
        if not isinstance(name, str):
            return f"must name its terms by strings, not {name!r}", None
        if wrong := _wrong_term(value, method.info.device):
            return f"returned {wrong[0]} as the term '{name}', which must be {wrong[1]}", name
    if type(method).update is Method.update and not any(value.requires_grad for value in terms.values()):
        names = ", ".join(f"'{name}'" for name in terms)
        return (
            f"returned terms without a gradient ({names}); detach, item, argmax, a new tensor or torch.no_grad cut it off",
            next(iter(terms)),
        )
    return None


def _wrong_term(value: Any, device: torch.device) -> tuple[str, str] | None:
    """A description of a wrong term, and of what it must be; None if it is right."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}", "a tensor, without item() or float()"
    if value.dim():
        return f"a tensor of shape {tuple(value.shape)}", "a scalar: take its mean"
    if not value.is_floating_point():
        return f"a tensor of {str(value.dtype).removeprefix('torch.')}", "of a floating-point type"
    if value.device.type != device.type or (None not in (value.device.index, device.index) and value.device != device):
        return f"a tensor on {value.device}", f"on {device}, where the run trains: use self.info.device"
    return None


def check_gradients(losses: Losses, method: Method, parameters: list[torch.nn.Parameter]) -> None:
    """Check after a phase's first update that the loss reached something that the phase trains.

    Raises:
        RunError: it did not; nothing would have been trained.
    """
    if type(method).update is Method.update and all(parameter.grad is None for parameter in parameters):
        raise RunError(
            f"{name_of(losses, method)} returned terms that do not depend on anything that is trained: they must be computed "
            f"from self.student, or modules that setup(self) adds ({place(losses)})"
        )


def name_of(losses: Losses, method: Method) -> str:
    """`losses` as the user knows it: "Order.losses"."""
    function = _function(losses)
    return getattr(function, "__qualname__", f"{type(method).__name__}.losses").rpartition("<locals>.")[2]


def place(losses: Losses, term: str | None = None) -> str:
    """File and line of `losses`, or of the term of this name in it."""
    code = getattr(_function(losses), "__code__", None)
    if code is None:
        return "its file is not known"
    return f"{places.short(Path(code.co_filename))}:{_line(code.co_filename, code.co_firstlineno, term)}"


def _function(losses: Losses) -> Any:
    while isinstance(losses, partial):
        losses = losses.func
    return getattr(inspect.unwrap(losses), "__func__", losses)


def _line(file: str, first: int, term: str | None) -> int:
    """The line of a term's name in the function that begins at line `first`, of the last return without a term."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return first
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        if first not in (function.lineno, *(decorator.lineno for decorator in function.decorator_list)):
            continue
        names = [n.lineno for n in ast.walk(function) if isinstance(n, ast.Constant) and n.value == term]
        returns = [n.lineno for n in ast.walk(function) if isinstance(n, ast.Return)]
        return (names if term is not None and names else returns or [function.lineno])[-1]
    return first
