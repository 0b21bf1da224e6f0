"""A finished run and its teacher, and what the tests of `reproduce` do with folders of runs."""

import json

import pytest

from kdbench.cli.main import main
from kdbench.store.folder import RunFolder

SHORT = [
    "dataset=digits", "student=resnet8", "teacher=resnet8", "Train.epochs=0.6", "Train.warmup=0", "Train.batch_size=24",
    "Measures.corruptions=False", "Measures.images=10",
]  # fmt: skip


@pytest.fixture(scope="session")
def short():
    """The words of a command whose runs take a few steps."""
    return SHORT


@pytest.fixture(scope="module", autouse=True)
def quick(few_test_images):
    """Runs of a few steps are not measured for longer than they train."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_test_images):
    """A folder with a finished student, its teacher, and the leaderboard of both."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(["run", "methods=kd", *SHORT, "Machine.threads=1", "--runs", str(folder / "runs")]) == 0
    assert main(["leaderboard", "--runs", str(folder / "runs"), "--out", str(folder / "leaderboard")]) == 0
    return folder


@pytest.fixture
def teacher():
    """The folder of the teacher in a folder of runs."""

    def find(runs):
        (path,) = runs.glob("ce-*")
        return path

    return find


@pytest.fixture
def change():
    """Puts another result into a run's folder; `__` stands for the dot."""

    def put(folder, **changes):
        result = RunFolder(folder.parent, folder.name).result()
        result |= {key.replace("__", "."): value for key, value in changes.items()}
        (folder / "result.json").write_text(json.dumps(result))

    return put
