"""The package of all methods: `kdbench.methods.NAME` is the file methods/NAME.py of the root that has it.

Its search path is the folder methods/ of all roots (`kdbench.config.places`), so that a method outside the repository is
imported like one inside, and one method can build on another (`from kdbench.methods.kd import KD`).
`kdbench.config.signature` finds the class itself.
"""

from __future__ import annotations

import importlib

import gin

from kdbench.config import places
from kdbench.config.signature import of_method

__path__ = [str(root / "methods") for root in places.roots()]


def load(name: str) -> type:
    """The configurable class of the method file `name`: called with (student, teachers, info), it takes the rest from gin.

    Raises:
        ImportError, SyntaxError: what importing the file raises.
    """
    cls = class_of(name)
    if cls not in _configurable:
        _configurable[cls] = gin.external_configurable(cls, name=cls.__name__, module="methods")
    return _configurable[cls]


def class_of(name: str) -> type:
    """The class of the method file `name`: called with (student, teachers, info) and all its parameters.

    Raises:
        ImportError, SyntaxError: raised by importing the file.
    """
    __path__[:] = [str(root / "methods") for root in places.roots()]
    signature = of_method(name)
    module = importlib.import_module(f"kdbench.methods.{name}")
    cls: type = getattr(module, signature.name)
    return cls


_configurable: dict[type, type] = {}
