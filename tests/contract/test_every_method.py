"""What holds for every method of the plug-in folder, whatever part of the contract it shows."""

import csv
from pathlib import Path

import pytest

from kdbench.config import signature
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, RunFolder
from kdbench.store.result import defects

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in (HERE / "plugin" / "methods").glob("*.py"))
FREE = ("seconds.", "convergence.seconds.", "cost.peak", "cost.images", "provenance.")
"""Keys of a result that no two runs have in common."""


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    """A folder with a finished run of every method, each done in one go, and its specs by method."""
    runs = tmp_path_factory.mktemp("undisturbed")
    specs = {name: plan(f"methods={name}", "Train.epochs=2", "Machine.checkpoint_every=0") for name in NAMES}
    for each in specs.values():
        for spec in each:
            if RunFolder(runs, spec.id).state() == "absent":
                result = run(spec, runs, None)
                assert result["status"] == "finished", result["error"]
    return runs, specs


def record(runs, spec):
    """All that must be equal of two runs of one spec."""
    folder = RunFolder(runs, spec.id)
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in csv.DictReader((folder / EPOCHS).open())]
    return lines, {key: value for key, value in folder.result().items() if not key.startswith(FREE)}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_stopped_after_every_step_ends_in_the_same_bits(undisturbed, name, tmp_path):
    before, specs = undisturbed
    *teachers, spec = specs[name]
    for teacher in teachers:
        (tmp_path / teacher.id).symlink_to(before / teacher.id)
    processes = 0
    while RunFolder(tmp_path, spec.id).result() is None:
        processes += 1
        try:
            run(spec, tmp_path, None, Caller(stop=lambda: True))
        except Stopped:
            continue
    assert processes > 5
    assert record(tmp_path, spec) == record(before, spec)


@pytest.mark.parametrize("name", NAMES)
def test_the_result_has_the_counted_passes_and_declared_keys(undisturbed, name):
    runs, specs = undisturbed
    *_, spec = specs[name]
    result = RunFolder(runs, spec.id).result()
    assert result["passes.student"] == result["images_seen"] > 0
    needs_teacher = signature.of_method(spec.source).attributes.get("needs_teacher", False)
    assert (result["passes.teachers"] > 0) == needs_teacher
    assert result["cost.flops_training"] >= result["cost.flops"] / 2, "at least the student, in some phase"
    assert defects(result) == []


@pytest.fixture(scope="module")
def ranks(two_ranks, tmp_path_factory):
    """What each of two processes left."""
    return two_ranks(HERE / "ranks.py", tmp_path_factory.mktemp("ranks"), *NAMES)


def relative(one, other):
    """Largest difference over the largest value."""
    one, other = one.double(), other.double()
    return ((one - other).abs().max() / other.abs().max().clamp(min=1e-30)).item()


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_does(ranks, name):
    first, second = (each["parts"][name] for each in ranks)
    alone = {**ranks[0]["whole"], **ranks[1]["whole"]}[name]
    assert relative(first.losses + second.losses, alone.losses) < 1e-9
    assert first.sha256 == second.sha256, "all state is bit-equal on both ranks"
    for key, value in alone.state.items():
        assert relative(first.state[key], value) < 1e-8, key
    assert first.seen == second.seen == alone.seen
