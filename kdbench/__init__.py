"""kdbench: compares knowledge-distillation methods under one protocol.

The public functions are those of kdbench.api, which is imported when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kdbench.version import __version__ as __version__

if TYPE_CHECKING:
    from kdbench.api import Plan, load_results, load_student, plan, run, tables, wrap
    from kdbench.errors import RunError, UserError

__all__ = ["Plan", "RunError", "UserError", "load_results", "load_student", "plan", "run", "tables", "wrap"]

_DEPRECATED = {"plan_runs": "plans", "run_all": "plans", "make_tables": "results"}
"""Earlier functions, by the module of kdbench.api that still has them."""

# Packages of kdbench have these two names as well. The first import of a package sets its name here, where it would hide the
# function: so both (empty) packages are imported now and their names removed.
for _name in ("plan", "run"):
    import_module(f"kdbench.{_name}")
    del globals()[_name]


def __getattr__(name: str) -> Any:
    if name in ("RunError", "UserError"):
        return getattr(import_module("kdbench.errors"), name)
    if name in __all__:
        return getattr(import_module("kdbench.api"), name)
    if name in _DEPRECATED:
        return getattr(import_module(f"kdbench.api.{_DEPRECATED[name]}"), name)
    raise AttributeError(f"module 'kdbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
