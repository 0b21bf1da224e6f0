"""What holds for every method in whole runs: those of the plug-in folder, and those of methods/ that tests/run leaves out."""

import csv
import itertools
from pathlib import Path

import pytest
from examples import each_method

from kdbench.config import signature
from kdbench.run.caller import Caller
from kdbench.run.execute import run
from kdbench.run.resume import Stopped
from kdbench.store.folder import EPOCHS, RunFolder
from kdbench.store.result import defects

HERE = Path(__file__).parent
PLUGINS = sorted(path.stem for path in (HERE / "plugin" / "methods").glob("*.py"))
IN_TESTS_OF_RUNS = {"byot", "ce", "corsd", "crd", "kd", "rkd"}  # in tests/run, in more precisions and batch sizes
OWN = sorted({path.stem for path in (HERE.parents[1] / "methods").glob("*.py")} - IN_TESTS_OF_RUNS)
NAMES = [*PLUGINS, *OWN]
LENGTH = ["Train.epochs=2", "Train.batch_size=24"]  # six steps; after the last a run is not stopped
LONGER = {"ft": ["Train.epochs=3", "Train.batch_size=24"]}
"""Methods whose teachers are trained for a share of the budget, which must be a step."""
STOP, AFTER_A_PHASE = 4, 2
"""Steps after which a run is stopped: in the second epoch; and that of a method with phases also just behind the first one."""
FREE = ("seconds.", "convergence.seconds.", "cost.peak", "cost.images", "provenance.")
"""Keys of a result that no two runs have in common."""


@pytest.fixture(scope="module")
def names(request):
    """The methods of this file's tests that are asked for; `-k NAME` makes no others wait."""
    asked = {item.callspec.params["name"] for item in request.session.items if item.module is request.module}
    return [name for name in NAMES if name in asked]


@pytest.fixture(scope="module")
def undisturbed(plan, names, tmp_path_factory):
    """A folder with a finished run of every method, each done in one go, and its specs by method."""
    runs = tmp_path_factory.mktemp("undisturbed")
    specs = {name: plan(f"methods={name}", *LONGER.get(name, LENGTH)) for name in names}
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


def stopped(specs, before, runs, stop):
    """How often a run was stopped before it was finished, in a folder where its teachers are those of the folder `before`."""
    *teachers, spec = specs
    for teacher in teachers:
        (runs / teacher.id).symlink_to(before / teacher.id)
    times = 0
    while RunFolder(runs, spec.id).result() is None:
        try:
            run(spec, runs, None, Caller(stop=stop))
        except Stopped:
            times += 1
    return times


@pytest.mark.parametrize("name", PLUGINS)
def test_a_run_that_is_stopped_after_every_step_ends_in_the_same_bits(undisturbed, name, tmp_path):
    before, specs = undisturbed
    assert stopped(specs[name], before, tmp_path, lambda: True) == 5
    assert record(tmp_path, specs[name][-1]) == record(before, specs[name][-1])


@pytest.mark.parametrize("name", each_method(OWN))
def test_a_run_that_is_stopped_ends_in_the_same_bits(undisturbed, name, tmp_path):
    before, specs = undisturbed
    steps = itertools.count(1)
    stops = [AFTER_A_PHASE, STOP] if "phases" in signature.of_method(name).functions else [STOP]
    assert stopped(specs[name], before, tmp_path, lambda: next(steps) in stops) == len(stops)
    assert record(tmp_path, specs[name][-1]) == record(before, specs[name][-1])


@pytest.mark.parametrize("name", [*PLUGINS, *each_method(OWN)])
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
def ranks(two_ranks, names, tmp_path_factory):
    """What each of two processes left."""
    return two_ranks(HERE / "ranks.py", tmp_path_factory.mktemp("ranks"), *names)


def relative(one, other):
    """Largest difference over the largest value."""
    one, other = one.double(), other.double()
    return ((one - other).abs().max() / other.abs().max().clamp(min=1e-30)).item()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_does(ranks, name):
    first, second = (each["parts"][name] for each in ranks)
    alone = {**ranks[0]["whole"], **ranks[1]["whole"]}[name]
    assert relative(first.losses + second.losses, alone.losses) < 1e-9
    assert first.sha256 == second.sha256, "all state is bit-equal on both ranks"
    for key, value in alone.state.items():
        assert relative(first.state[key], value) < 1e-8, key
    assert first.seen == second.seen == alone.seen
