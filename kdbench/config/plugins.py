"""The Python files of plug-in roots as modules: `kdbench.config.plugins.ROOT.readers.NAME`.

ROOT is the folder's name and a hash of its path, so that files of the same name in two roots are two modules. A file can
import its neighbours (`from ._blocks import Block`), and other processes with the same plug-ins can import and unpickle
what it defines.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType

from kdbench.config import places

__path__: list[str] = []  # makes this module a package


def package(root: Path) -> str:
    """The package whose modules are the files of `root`; made if it does not exist yet."""
    label = re.sub(r"\W", "_", root.name)
    name = f"{__name__}.{label}_{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(root)]
    return name


for _root in places.roots():  # a process that unpickles imports this module and nothing else before
    package(_root)
