"""Tests of all methods: `make test` runs them for some examples, and `make test FULL=1` for every method."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest

from kdbench.config import about, places, signature
from kdbench.config.contract import HOOKS


@cache
def examples() -> frozenset[str]:
    """Methods that between them have every family and define every hook: in the order of their names, those that add one."""
    names, covered = set(), set()
    for name in sorted(places.sources()):
        has = {about.of_method(name).family, *signature.of_method(name).functions & HOOKS.keys()}
        if not has <= covered:
            names.add(name)
            covered |= has
    return frozenset(names)


def each_method(cases: Iterable[Any]) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, names of methods or tuples that begin with one; `exhaustive` but for the examples."""
    listed = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*case, marks=() if case[0] in examples() else pytest.mark.exhaustive, id="-".join(map(str, case)))
        for case in listed
    ]
