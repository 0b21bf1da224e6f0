"""Made-up results; nothing of them is ever written outside a test's own folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEACHER = {"teacher": "resnet20", "teacher.sha256": "c" * 64, "teacher.accuracy": 61.26}


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    """A result like a finished run's; keywords, with `__` for the dot, change or add keys; `taught` adds a teacher."""

    def make(
        method: str = "ce", seed: int = 0, accuracy: float | None = 50.0, taught: bool = False, **changes: Any
    ) -> dict:
        base: dict[str, Any] = {
            **{
                "run": f"{method}{seed}",
                "status": "finished",
                "method": method,
                "method.parameters": "{}",
                "seed": seed,
            },
            **{"dataset": "digits", "student": "cnn", "teacher": None, "recipe": "short", "overrides": "{}"},
            **{"protocol": "1f9c20", "accuracy.last": accuracy, "accuracy.best_val": None, "images_seen": 14370},
            **{"seconds.train": 12.5, "cost.images_per_second": 1149.6, "data.sha256": "d" * 64},
            **{
                "provenance.clean": True,
                "provenance.device": "cpu",
                "provenance.command": f"kdbench run methods={method}",
            },
        }
        base |= TEACHER if taught else {}
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Writes results as run folders and returns the folder of all runs."""

    def put(*results: dict[str, Any]) -> Path:
        runs = tmp_path / "runs"
        for one in results:
            (runs / one["run"]).mkdir(parents=True, exist_ok=True)
            (runs / one["run"] / "result.json").write_text(json.dumps(one))
        return runs

    return put
