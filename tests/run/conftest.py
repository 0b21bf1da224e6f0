"""Real runs of the methods in tests/teaching, a few steps of digits each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.config import places
from kdbench.data.readers import registry as readers
from kdbench.launch import backlog, local
from kdbench.plan import expand, request
from kdbench.plan.spec import Spec
from kdbench.run import load
from kdbench.store import teachers

SHORT = [
    "dataset=digits", "student=resnet8", "teacher=resnet20", "Train.epochs=2", "Train.warmup=0", "Train.batch_size=24",
    "Split.validation=0.2", "Machine.checkpoint_every=0", "Machine.threads=1", "Measures.corruptions=False",
    "Measures.noise=()",
]  # fmt: skip


class Taught:
    """A folder of runs; those that are finished are not done again."""

    def __init__(self, runs: Path):
        self.runs = runs

    def specs(self, *words: str, runs: Path | None = None) -> list[Spec]:
        """The plan of words."""
        keys = {word.partition("=")[0] for word in words}
        kept = [word for word in SHORT if word.partition("=")[0] not in keys]
        return expand.plan(request.parse([*kept, *words]), teachers.finder(runs or self.runs))

    def do(self, *words: str) -> list[dict[str, Any]]:
        """The results of a plan's runs, teachers first; all have finished."""
        planned = self.specs(*words)
        if to_do := backlog.open_runs(planned, self.runs):
            local.inline(to_do, self.runs, None)
        results = backlog.results(planned, self.runs)
        assert [(result["status"], result.get("error")) for result in results] == [("finished", None)] * len(planned)
        return results

    def failure(self, *words: str) -> str:
        """The error of the one run of a plan."""
        (result,) = local.inline(self.specs(*words), self.runs, None)
        return result["error"]


@pytest.fixture(scope="module")
def taught_runs(tmp_path_factory) -> Taught:
    return Taught(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def taught(own_plugins, taught_runs: Taught) -> Taught:
    """The runs of this module, with the methods of tests/teaching."""
    places.add_plugins([str(Path(__file__).parents[1] / "teaching")])
    return taught_runs


@pytest.fixture
def test_set() -> Callable[[Path], tuple[Tensor, Tensor]]:
    """The test images of digits as the run of a folder sees them, (N, C, H, W), and their labels."""
    arrays = readers.read("digits", None)

    def seen_by(folder: Path) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(each) for each in load.normalisation(folder))
        images = (torch.from_numpy(arrays.test_images).float() / 255 - mean) / std
        return images.permute(0, 3, 1, 2), torch.from_numpy(arrays.test_labels)

    return seen_by
