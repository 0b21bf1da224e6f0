"""Results, run folders and images that tests make up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdbench.data.readers import digits, registry
from kdbench.data.readers.arrays import Arrays

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


@pytest.fixture(scope="module")
def few_test_images() -> Iterator[None]:
    """Digits with 64 test images instead of 1,707, which take a third of a run of a few steps."""
    read = digits.read

    def fewer(source: str, folder: Path | None) -> Arrays:
        whole = read(source, folder)
        some = slice(None, None, len(whole.test_labels) // 64)  # they are in the order of their labels
        return replace(whole, test_images=whole.test_images[some][:64], test_labels=whole.test_labels[some][:64])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "read", fewer)
        registry.read_once.cache_clear()
        yield
    registry.read_once.cache_clear()


@pytest.fixture(scope="session")
def cats_and_dogs() -> Callable[..., Path]:
    """Makes class folders of image files and returns their root.

    Arguments: the root, and the numbers of images of each class for training and the test. Keywords: `image`, which makes the
    image of a number (random pixels by default), `ending`, and the `options` of saving it.
    """
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)

    def random(number: int) -> Any:
        return Image.fromarray(draw.integers(0, 256, (10 + number, 12, 3), dtype=np.uint8))

    def make(
        root: Path, train: int, test: int, image: Callable = random, ending: Callable = lambda number: "png",
        options: Callable = lambda number: {},
    ) -> Path:  # fmt: skip
        for part, count in (("train", train), ("test", test)):
            for name in ("cat", "dog"):
                (root / part / name).mkdir(parents=True)
                for number in range(count):
                    image(number).save(root / part / name / f"{number}.{ending(number)}", **options(number))
        return root

    return make
