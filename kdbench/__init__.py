"""kdbench: compares knowledge-distillation methods under one protocol.

The public functions are those of kdbench.api, which is imported when one of them is first used.
"""

from typing import TYPE_CHECKING, Any

from kdbench.version import __version__ as __version__

if TYPE_CHECKING:
    from kdbench.api import load_results, load_student, make_tables, plan_runs, run_all

__all__ = ["load_results", "load_student", "make_tables", "plan_runs", "run_all"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kdbench' has no attribute '{name}'")
    from kdbench import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
